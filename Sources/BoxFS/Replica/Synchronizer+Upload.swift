import ChunkCache
import Foundation
import Shared

extension Synchronizer {
    /// Chunks up to this size travel together, bytes.
    static let smallBytes = 256 << 10
    private static let parallelPuts = 4

    /// Brings a batch's new chunks and pages to the server: hashes first, then what it wants. The session has the commit's identifier: after an
    /// interruption or a restart it goes on, and what arrived before does not travel again.
    /// - Parameter made: what `sendDifferences` has brought of it.
    /// - Returns: the session that the commit names; nil when there is nothing to bring.
    func upload(_ outgoing: Outgoing, _ namespace: NamespaceID, made: Set<ChunkHash> = []) async throws -> UploadID? {
        var references: [ChunkHash: ChunkReference] = [:]
        for chunk in outgoing.claims where outgoing.fresh?.contains(chunk.hash) ?? true { references[chunk.hash] = chunk }
        let isBegun = references.keys.contains(where: made.contains)
        for hash in made { references[hash] = nil }
        let pages = Dictionary(outgoing.pages.map { (SHA256.hash($0), $0) }, uniquingKeysWith: { first, _ in first })
        guard !references.isEmpty || !pages.isEmpty else { return isBegun ? outgoing.upload : nil }
        var rest = Array(references.values)[...]
        var session: UploadID?
        var needed: [ChunkReference] = [], neededPages: [ChunkHash] = []
        repeat {
            let part = rest.prefix(10_000)
            rest = rest.dropFirst(part.count)
            let request = UploadRequest(
                chunks: Data(Manifest.pack(part)), pages: session == nil ? Array(pages.keys) : [], upload: outgoing.upload)
            let answer = if let session { try await remote.extendUpload(session, request) } else { try await remote.startUpload(namespace, request) }
            session = answer.upload
            needed += answer.neededChunks.compactMap { references[$0] }
            neededPages += answer.neededPages
        } while !rest.isEmpty
        guard let session else { return nil }
        connected(nil)
        state.withLock { $0.bytesToSend = needed.reduce(0) { $0 + UInt64($1.length) } }
        defer { state.withLock { $0.bytesToSend = 0 } }
        try await put(needed, session)
        for hash in neededPages {
            guard let packed = pages[hash] else { continue }
            try await remote.putPage(session, hash, packed)
        }
        return session
    }

    private func put(_ chunks: [ChunkReference], _ session: UploadID) async throws {
        var jobs: [[ChunkReference]] = []
        var group: [ChunkReference] = [], groupBytes = 0
        for chunk in chunks {
            guard chunk.length <= Self.smallBytes else {
                jobs.append([chunk])
                continue
            }
            let bytes = Int(chunk.length) + ChunkFrame.headerByteCount
            if groupBytes + bytes > ChunkFrame.maximumBodyByteCount / 2 {
                jobs.append(group)
                (group, groupBytes) = ([], 0)
            }
            group.append(chunk)
            groupBytes += bytes
        }
        if !group.isEmpty { jobs.append(group) }
        try await inParallel(jobs) { try await self.put(job: $0, session) }
    }

    /// Does the jobs, some at a time; after an error those that have not begun are left.
    func inParallel<Job: Sendable>(_ jobs: [Job], _ work: @escaping @Sendable (Job) async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            var next = jobs.makeIterator()
            for _ in 0..<Self.parallelPuts {
                if let job = next.next() { tasks.addTask { try await work(job) } }
            }
            while try await tasks.next() != nil {
                if let job = next.next() { tasks.addTask { try await work(job) } }
            }
        }
    }

    private func put(job: [ChunkReference], _ session: UploadID) async throws {
        let opened = try job.map { chunk in
            guard let open = tree.cache.open(chunk) else {
                throw tree.cache.isLost(chunk) ? LostChunk(reference: chunk) : FileSystemError.io
            }
            return open
        }
        if job.count == 1 {
            try await remote.putChunk(session, job[0], opened[0])
        } else {
            try await remote.putChunks(session, Array(zip(job, opened)))
        }
        state.withLock { state in
            let bytes = job.reduce(UInt64(0)) { $0 + UInt64($1.length) }
            state.bytesToSend -= min(bytes, state.bytesToSend)
        }
    }
}
