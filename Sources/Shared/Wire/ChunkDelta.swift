/// A chunk said as its difference from another: `base` from `start` on, cut or filled with zeros to the new chunk's length, then pieces laid over it.
///
/// Body of `POST /v1/namespaces/{namespace}/uploads/{upload}/deltas`: for each piece its offset in the chunk (4 bytes, little-endian), its length (4,
/// little-endian) and its bytes. Pieces come in rising order and do not overlap.
public enum ChunkDelta {
    public static let headerByteCount = 8
    /// A longer difference is sent as a whole chunk.
    public static let maximumBodyByteCount = 1 << 20

    public enum FormatError: Error, Equatable, Sendable { case truncated, order, beyondEnd }

    public static func header(_ range: Range<Int>) -> [UInt8] {
        [UInt32(range.lowerBound), UInt32(range.count)].flatMap { word in
            stride(from: UInt32(0), to: 32, by: 8).map { UInt8(truncatingIfNeeded: word >> $0) }
        }
    }

    /// A piece of a body: where its bytes go in the chunk, and where they lie in the body.
    public struct Piece: Sendable {
        public let range: Range<Int>
        public let position: Int
    }

    public static func pieces(of body: UnsafeRawBufferPointer, chunkLength: Int) throws(FormatError) -> [Piece] {
        var pieces: [Piece] = []
        var at = 0, end = 0
        while at < body.count {
            guard body.count - at >= headerByteCount else { throw .truncated }
            let offset = Int(UInt32(littleEndian: body.loadUnaligned(fromByteOffset: at, as: UInt32.self)))
            let length = Int(UInt32(littleEndian: body.loadUnaligned(fromByteOffset: at + 4, as: UInt32.self)))
            at += headerByteCount
            guard offset >= end else { throw .order }
            end = offset + length
            guard end <= chunkLength else { throw .beyondEnd }
            guard body.count - at >= length else { throw .truncated }
            pieces.append(Piece(range: offset..<end, position: at))
            at += length
        }
        return pieces
    }

    /// Lays the pieces of `body` over a part of the chunk, which holds the base there.
    /// - Parameter offset: of the part in the chunk.
    public static func lay(_ pieces: [Piece], of body: UnsafeRawBufferPointer, over part: UnsafeMutableRawBufferPointer, at offset: Int) {
        for piece in pieces where piece.range.overlaps(offset..<offset + part.count) {
            let range = piece.range.clamped(to: offset..<offset + part.count)
            let start = piece.position + range.lowerBound - piece.range.lowerBound
            UnsafeMutableRawBufferPointer(rebasing: part[range.lowerBound - offset..<range.upperBound - offset])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: body[start..<start + range.count]))
        }
    }
}
