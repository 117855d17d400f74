import ChunkCache
import Foundation
import GRDB
import Shared

// Sending the log.
extension Synchronizer {
    func pushLoop() async {
        var failures = 0, lastSent: ContinuousClock.Instant?
        while !Task.isCancelled {
            do {
                await pushSignal.wait()
                try await settle(after: lastSent)
                if !state.withLock(\.isConnected) { try await checkServer() }
                while try await pushRound(), !Task.isCancelled {}
                (failures, lastSent) = (0, .now)
            } catch {
                if Task.isCancelled { return }
                failures += 1
                report(error)
                let pause = min(15.0, 0.1 * Double(1 << min(failures, 8)))
                Task { [pushSignal] in
                    try? await Task.sleep(for: .seconds(pause))
                    pushSignal.raise()
                }
                try? await Task.sleep(for: .milliseconds(50))
            }
        }
    }

    private func report(_ error: any Error) {
        switch error {
        case let error as RemoteError:
            connected(error)
            if case .problem(let problem) = error {
                note("The server refused changes: \(problem.title). \(problem.detail ?? "") They are kept here and tried again.")
            }
        case is RightGone: break
        case let error as FileSystemError: note("Changes could not be prepared for sending (\(error)); they are tried again.")
        default: note("Sending failed: \(error).")
        }
    }

    /// A shared folder takes no changes of ours any more. Nothing to tell people yet: `leaveLostFolders` will.
    private struct RightGone: Error {}

    /// Sends one batch of each namespace. The home's goes first: what became a shared folder may have begun there. What the server says
    /// of one shared folder does not hold up the others.
    ///
    /// - Returns: whether more waits that was cut off by the batches' sizes.
    private func pushRound() async throws -> Bool {
        guard state.withLock({ $0.stopped == nil }) else { return false }
        let namespaces = tree.lock.withLock { tree.namespacesHomeFirst.filter { !$0.isLost } }
        var hasMore = false, refusal: (any Error)?
        for namespace in namespaces {
            do { hasMore = try await push(namespace) || hasMore } catch RemoteError.problem(let problem) {
                if problem.code == ProblemCode.lostChanges.rawValue {
                    stopForGood(Self.lostChanges)
                    return false
                }
                if namespace.isHome {
                    if problem.code == ProblemCode.quotaExceeded.rawValue { state.withLock { $0.isOverQuota = true } }
                    throw RemoteError.problem(problem)
                }
                // The right is gone: the home's feed is about to say so, and then they are kept beside the tree.
                let isGone = [ProblemCode.notFound.rawValue, ProblemCode.forbidden.rawValue].contains(problem.code)
                refusal = refusal ?? (isGone ? RightGone() : RemoteError.problem(problem))
            }
        }
        if let refusal { throw refusal }
        return hasMore
    }

    private func push(_ namespace: Namespace) async throws -> Bool {
        if let left = try Outgoing.load(tree, namespace.number) {
            try await bring(left, namespace)
            return true
        }
        guard let batch = try tree.lock.withLock({ () throws(FileSystemError) in try Batch.cut(tree, namespace.number) }) else { return false }
        defer { tree.lock.withLock { batch.release(tree) } }
        tell(sending: batch)
        defer { tell(sending: nil) }
        let commit = CommitID.make()
        async let made = Self.carriesChunks(batch) ? [] : sendDifferences(batch, namespace.id, Outgoing.upload(of: commit))
        let outgoing = try await seal(batch, commit)
        try outgoing.save(tree)
        try await bring(outgoing, namespace, made: await made)
        if tree.lock.withLock({ tree.lastLog > batch.lastLog }) { pushSignal.raise() }
        return batch.isPartial
    }

    private func tell(sending batch: Batch?) {
        let paths = tree.lock.withLock { (batch?.files.prefix(5) ?? []).compactMap { try? tree.path(of: $0.inode.number) } }
        state.withLock { $0.sending = paths }
    }

    /// Seals the batch's segments and writes its contents' operations.
    func seal(_ batch: Batch, _ commit: CommitID) async throws -> Outgoing {
        let segments = batch.files.flatMap { $0.slots.compactMap(\.segment) }
        let sealed: [Sealer.Sealed]
        do { sealed = try await Sealer.seal(segments, into: tree.cache) } catch {
            tree.lock.withLock { batch.takeBack(tree) }
            throw error
        }
        let chunks = Dictionary(uniqueKeysWithValues: sealed.map { (ObjectIdentifier($0.segment), $0.chunks) })
        let seen = tree.lock.withLock { tree.namespaces[batch.namespace]?.known }
        var outgoing = Outgoing(
            lastLog: batch.lastLog, namespace: batch.namespace,
            request: CommitRequest(commit: commit, upload: nil, device: device, operations: batch.operations, seen: seen))
        outgoing.fresh = Set(sealed.flatMap(\.chunks).map(\.hash))
        if Self.carriesChunks(batch) { outgoing.carried = Self.carried(sealed) }
        defer { Sealer.end(sealed, tree.cache) }
        try tree.lock.withLock { () throws(FileSystemError) in
            for file in batch.files {
                let manifest = FileContent.manifest(size: file.size, slots: file.slots) { chunks[ObjectIdentifier($0)] ?? [] }
                outgoing.add(file, manifest)
                file.content.install(file.slots, chunks)
                let lengths = Dictionary(manifest.chunks.map { ($0.hash, $0.length) }, uniquingKeysWith: { first, _ in first })
                for hash in file.content.takeClaims() {
                    if let length = lengths[hash] {
                        outgoing.claims.append(ChunkReference(hash: hash, length: length))
                    } else {
                        tree.cache.markSent([hash])     // sealed before, overwritten since
                    }
                }
                tree.markContentDirty(file.inode)
            }
            tree.filesToRemove += sealed.flatMap(\.wholes).map(\.file)
        }
        return outgoing
    }

    // MARK: The commit

    /// Chunks first, unless the commit carries them, then the commit. After an interruption the server says which chunks it has already, and whether it knows the commit.
    private func bring(_ outgoing: Outgoing, _ namespace: Namespace, made: Set<ChunkHash> = []) async throws {
        var outgoing = outgoing
        do {
            if let carried = outgoing.carried, outgoing.pages.isEmpty {
                outgoing.request.chunks = carried
            } else {
                outgoing.request.upload = try await upload(outgoing, namespace.id, made: made)
            }
            try await send(outgoing, namespace)
        } catch let lost as LostChunk { try giveUp(lost.reference, outgoing, namespace) }
    }

    private func send(_ outgoing: Outgoing, _ namespace: Namespace) async throws {
        var outgoing = outgoing
        for attempt in 1...3 {
            do {
                let answer = try await remote.commit(namespace.id, outgoing.request)
                connected(nil)
                return try await answered(outgoing, namespace, answer)
            } catch RemoteError.problem(let problem)
                where attempt < 3 && [ProblemCode.chunksMissing.rawValue, ProblemCode.uploadExpired.rawValue].contains(problem.code) {
                outgoing.request.chunks = nil
                outgoing.request.upload = try await upload(outgoing.withAllChunks(), namespace.id)
            }
        }
    }
}
