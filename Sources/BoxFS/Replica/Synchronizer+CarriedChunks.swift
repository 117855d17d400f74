import Foundation
import Shared

// A short batch's chunks go with its commit: one exchange instead of three, and no rows of a session.
extension Synchronizer {
    /// What the new chunks of such a batch have together at most, bytes.
    private static let carriedBytes = 128 << 10

    /// Not where a manifest has pages: they are sent before the commit, and differences with them.
    static func carriesChunks(_ batch: Batch) -> Bool {
        batch.files.allSatisfy { $0.slots.count <= Manifest.maximumInlineCount }
            && batch.files.reduce(0) { $0 + $1.slots.reduce(0) { $0 + ($1.segment?.length ?? 0) } } <= carriedBytes
    }

    /// The chunks of sealed segments, each once.
    /// - Returns: nil if a segment cannot be read: what is sent by itself comes from the cache.
    static func carried(_ sealed: [Sealer.Sealed]) -> [CarriedChunk]? {
        var carried: [CarriedChunk] = [], known: Set<ChunkHash> = []
        for one in sealed {
            let parts = one.segment.parts.isEmpty ? one.chunks.map { 0..<Int($0.length) } : one.segment.parts
            for (chunk, part) in zip(one.chunks, parts) where known.insert(chunk.hash).inserted {
                guard let chunk = try? Self.carried(chunk, part, of: one.segment) else { return nil }
                carried.append(chunk)
            }
        }
        return carried
    }

    private static func carried(_ chunk: ChunkReference, _ part: Range<Int>, of segment: Segment) throws(FileSystemError) -> CarriedChunk {
        if let changes = segment.differences {
            let delta = try changes.delta(of: part, in: segment)
            if delta.count < part.count / 2 { return CarriedChunk(chunk, base: changes.base.hash, start: UInt32(part.lowerBound), data: Data(delta)) }
        }
        return CarriedChunk(chunk, data: Data(try segment.bytes(part)))
    }
}
