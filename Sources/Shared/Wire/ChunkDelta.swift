/// A chunk said as its difference from another: `base`, cut or filled with zeros to the new chunk's length, then pieces laid over it.
///
/// Body of `POST /v1/uploads/{upload}/chunks/{hash}/delta`: for each piece its offset in the chunk (4 bytes, little-endian), its length (4,
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

    /// Lays the pieces of `body` over `chunk`, which holds the base at its final length.
    public static func apply(_ body: UnsafeRawBufferPointer, to chunk: UnsafeMutableRawBufferPointer) throws(FormatError) {
        var at = 0, end = 0
        while at < body.count {
            guard body.count - at >= headerByteCount else { throw .truncated }
            let offset = Int(UInt32(littleEndian: body.loadUnaligned(fromByteOffset: at, as: UInt32.self)))
            let length = Int(UInt32(littleEndian: body.loadUnaligned(fromByteOffset: at + 4, as: UInt32.self)))
            at += headerByteCount
            guard offset >= end else { throw .order }
            end = offset + length
            guard end <= chunk.count else { throw .beyondEnd }
            guard body.count - at >= length else { throw .truncated }
            UnsafeMutableRawBufferPointer(rebasing: chunk[offset..<end]).copyMemory(from: UnsafeRawBufferPointer(rebasing: body[at..<at + length]))
            at += length
        }
    }
}
