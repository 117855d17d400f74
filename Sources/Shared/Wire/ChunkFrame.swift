/// Many chunks in one body, both ways: for each its SHA-256 (32 bytes), its length (4, little-endian) and its bytes.
public enum ChunkFrame {
    public static let headerByteCount = Manifest.packedReferenceByteCount
    /// The longest body of a batch, headers included.
    public static let maximumBodyByteCount = 8 << 20

    public static func header(_ reference: ChunkReference) -> [UInt8] { Manifest.pack(CollectionOfOne(reference)) }

    public enum FormatError: Error, Equatable, Sendable { case truncated, chunkLength }

    /// The frames of `body`: each reference with the range of its bytes. Hashes are not checked.
    public static func parse(_ body: UnsafeRawBufferPointer) throws(FormatError) -> [(reference: ChunkReference, range: Range<Int>)] {
        var frames: [(reference: ChunkReference, range: Range<Int>)] = []
        var at = 0
        while at < body.count {
            guard body.count - at >= headerByteCount else { throw .truncated }
            let reference: ChunkReference
            do { reference = try Manifest.unpack(Array(body[at..<at + headerByteCount]))[0] } catch { throw .chunkLength }
            at += headerByteCount
            guard body.count - at >= Int(reference.length) else { throw .truncated }
            frames.append((reference, at..<at + Int(reference.length)))
            at += Int(reference.length)
        }
        return frames
    }
}
