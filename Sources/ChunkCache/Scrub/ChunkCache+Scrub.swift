import Glibc
import Shared

extension ChunkCache {
    /// What one step of a scrub found.
    public struct ScrubStep: Sendable {
        /// Where the next step goes on; nil: all chunks were seen.
        public var last: ChunkHash?
        public var damaged: [(reference: ChunkReference, isUnsent: Bool)] = []
    }

    /// Reads chunks from the disk, in the order of their hashes, and hashes them again. Damaged ones are removed, unless they are unsent.
    ///
    /// - Parameters:
    ///   - last: of the step before; nil begins.
    ///   - bytes: after so many the step ends.
    public func scrub(after last: ChunkHash?, bytes: Int) -> ScrubStep {
        var step = ScrubStep(), left = bytes
        let bound = last?.bytes ?? []
        // The hashes of one folder, as many as it takes: not all of them are sorted at each step.
        var folder = Int(bound.first ?? 0)
        while folder < 256 {
            let chunks = state.withLock { $0.chunks.filter { Int($0.key.bytes[0]) == folder } }
            for (hash, chunk) in chunks.sorted(by: { $0.key.bytes.lexicographicallyPrecedes($1.key.bytes) }) {
                guard last == nil || bound.lexicographicallyPrecedes(hash.bytes) else { continue }
                if isDamaged(hash, chunk) {
                    step.damaged.append((ChunkReference(hash: hash, length: chunk.length), chunk.claims > 0))
                    foundDamaged(hash, chunk)
                }
                step.last = hash
                left -= Int(chunk.length)
                if left <= 0 { return step }
            }
            folder += 1
        }
        step.last = nil
        return step
    }

    private func isDamaged(_ hash: ChunkHash, _ chunk: CacheState.Chunk) -> Bool {
        let (path, _, offset) = whereabouts(hash, chunk)
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }     // evicted meanwhile
        defer { close(descriptor) }
        // From the disk, not from the kernel's memory, and without pushing out what is in there.
        posix_fadvise(descriptor, off_t(offset), off_t(chunk.length), POSIX_FADV_DONTNEED)
        defer { posix_fadvise(descriptor, off_t(offset), off_t(chunk.length), POSIX_FADV_DONTNEED) }
        return SHA256.hash(descriptor, from: offset, count: Int(chunk.length)) != hash
    }
}
