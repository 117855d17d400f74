import Shared
import Synchronization

extension Synchronizer {
    /// Sends what distinguishes a batch's segments from chunks that the server has. Neither side knows the new chunks' hashes yet: this goes on
    /// while they are put together, hashed and written here, and the server does the same there.
    ///
    /// What it does not bring, for whatever reason, travels whole.
    /// - Returns: the chunks that the upload session has now.
    func sendDifferences(_ batch: Batch, _ namespace: NamespaceID, _ upload: UploadID) async -> Set<ChunkHash> {
        let segments = batch.files.flatMap { $0.slots.compactMap(\.segment) }.filter { $0.length > Self.smallBytes }
        let jobs = segments.compactMap { segment in segment.differences.map { Difference(segment: segment, changes: $0) } }
        let made = Mutex<Set<ChunkHash>>([])
        try? await inParallel(jobs) { job in
            let hash = try await self.remote.makeChunk(
                namespace, upload, base: job.changes.base.hash, length: job.segment.length, job.delta())
            made.withLock { _ = $0.insert(hash) }
        }
        return made.withLock { $0 }
    }
}

/// A frozen segment, and where it is another than a chunk that the server has.
private struct Difference: Sendable {
    let segment: Segment
    let changes: SegmentChanges

    func delta() throws(FileSystemError) -> [UInt8] {
        var body: [UInt8] = []
        for range in changes.ranges {
            body += ChunkDelta.header(range)
            let start = body.count
            body += [UInt8](repeating: 0, count: range.count)
            try body.withMutableBytes { bytes throws(FileSystemError) in
                try segment.read(into: UnsafeMutableRawBufferPointer(rebasing: bytes[start...]), at: range.lowerBound)
            }
        }
        return body
    }
}
