import Shared
import Synchronization

extension Synchronizer {
    /// Sends what distinguishes a batch's segments from chunks that the server has. Neither side knows the new chunks' hashes yet: this goes on
    /// while they are put together, hashed and written here, and the server does the same there.
    ///
    /// What it does not bring, for whatever reason, travels whole.
    /// - Returns: the chunks that the upload session has now.
    func sendDifferences(_ batch: Batch, _ namespace: NamespaceID, _ upload: UploadID) async -> Set<ChunkHash> {
        let differences = batch.files.flatMap { $0.slots.compactMap(\.segment) }.flatMap(Difference.of)
        // Many short chunks travel as well together.
        let short = differences.filter { $0.range.count <= Self.smallBytes }, isShort = short.count <= Self.shortDifferences
        let jobs = isShort ? differences : differences.filter { $0.range.count > Self.smallBytes }
        let made = Mutex<Set<ChunkHash>>([])
        try? await inParallel(jobs) { job in
            let hash = try await self.remote.makeChunk(
                namespace, upload, base: job.changes.base.hash, from: job.range.lowerBound, length: job.range.count, job.changes.delta(of: job.range, in: job.segment))
            made.withLock { _ = $0.insert(hash) }
        }
        return made.withLock { $0 }
    }

    /// Short chunks whose differences are worth a request each.
    private static let shortDifferences = 8
}

/// A part of a frozen segment that becomes a chunk, and where the segment is another than a chunk that the server has.
private struct Difference: Sendable {
    let segment: Segment
    let range: Range<Int>
    let changes: SegmentChanges

    /// A chunk for each part of a segment, unless too much of it is new.
    static func of(_ segment: Segment) -> [Difference] {
        guard segment.length >= Patch.grainBytes, let changes = segment.differences else { return [] }
        return segment.parts.map { Difference(segment: segment, range: $0, changes: changes) }
    }
}
