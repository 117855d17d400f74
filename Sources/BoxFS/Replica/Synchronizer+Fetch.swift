import Foundation
import GRDB
import Shared
import Synchronization

// Bringing what operations miss, and the directories that nobody asked for yet.
extension Synchronizer {
    func fetch(_ missing: Missing, done: @escaping @Sendable (FileSystemError?) -> Void) -> any FetchToken {
        let waiter = Waiter(deadlineSeconds: deadlineSeconds, late: missing == .cacheRoom ? .noSpace : .io, done: done)
        switch missing {
        case .chunk(let hash, let length, _):
            waiter.onEnd(chunks.fetch(ChunkReference(hash: hash, length: length)) { error in
                waiter.finish(error.map(Self.translated))
            })
        case .directory(let number): hydrate(number) { waiter.finish($0) }
        case .manifest(let number):
            Task {
                do throws(FileSystemError) {
                    try await self.fetchManifest(number, waiter)
                    waiter.finish(nil)
                } catch { waiter.finish(error) }
            }
        case .cacheRoom: waitForUpload(upTo: state.withLock(\.acknowledged) + 1) { waiter.finish($0 ? nil : .noSpace) }
        case .uploaded:
            waitForUpload(upTo: tree.lock.withLock { tree.lastLog }) { waiter.finish($0 ? nil : .io) }
        }
        return waiter
    }

    func prefetch(_ references: [ChunkReference]) { chunks.prefetch(references) }

    static func translated(_ error: RemoteError) -> FileSystemError {
        switch error {
        case .problem(let problem) where problem.code == ProblemCode.notFound.rawValue: .stale
        case .cancelled: .interrupted
        case .offline, .problem, .invalidAnswer: .io
        }
    }

    /// Repeats `body` while the server is away, until `waiter` was answered.
    private func persistently<T: Sendable>(_ waiter: Waiter?, _ body: () async throws -> T) async throws(FileSystemError) -> T {
        var pauseMilliseconds = 50
        while true {
            do { return try await body() } catch let error as FileSystemError { throw error } catch {
                let remote = error as? RemoteError
                if let remote { connected(remote) }
                guard case .offline = remote, waiter?.isWaiting ?? !Task.isCancelled else { throw remote.map(Self.translated) ?? .io }
            }
            try? await Task.sleep(for: .milliseconds(pauseMilliseconds))
            pauseMilliseconds = min(pauseMilliseconds * 2, 2000)
            guard waiter?.isWaiting ?? !Task.isCancelled else { throw .io }
        }
    }

    private func fetchManifest(_ number: InodeNumber, _ waiter: Waiter) async throws(FileSystemError) {
        let pages = try tree.lock.withLock { () throws(FileSystemError) in try tree.inode(number).pages }
        guard let pages else { return }
        var packed: [Data] = []
        for page in pages { packed.append(try await persistently(waiter) { Data(try await self.remote.page(self.namespace, page)) }) }
        try tree.lock.withLock { () throws(FileSystemError) in
            let inode = try tree.inode(number)
            guard inode.pages == pages else { return }      // replaced meanwhile: the operation finds out
            try tree.change { database in
                try database.execute(sql: "DELETE FROM manifests WHERE inode = ?", arguments: [Int64(number.rawValue)])
                for (index, page) in packed.enumerated() {
                    try database.execute(
                        sql: "INSERT INTO manifests (inode, page, packed) VALUES (?, ?, ?)", arguments: [Int64(number.rawValue), index, page])
                }
            }
            inode.pages = nil
            tree.markDirty(inode)
        }
    }

    // MARK: Directories

    /// Brings a directory's entries; calls for one directory share the work.
    private func hydrate(_ number: InodeNumber, done: @escaping @Sendable (FileSystemError?) -> Void) {
        let isFirst = state.withLock { state in
            defer { state.hydrationWaiters[number, default: []].append(done) }
            return state.hydrationWaiters[number] == nil
        }
        guard isFirst else { return }
        Task {
            var failure: FileSystemError?
            do throws(FileSystemError) { try await self.fetchEntries(number) } catch { failure = error }
            let waiters = self.state.withLock { $0.hydrationWaiters.removeValue(forKey: number) ?? [] }
            for waiter in waiters { waiter(failure) }
        }
    }

    private func fetchEntries(_ number: InodeNumber) async throws(FileSystemError) {
        let waiter = Waiter(deadlineSeconds: deadlineSeconds, late: .io) { _ in }
        defer { waiter.finish(nil) }
        let id: NodeID? = try tree.lock.withLock { () throws(FileSystemError) in
            let inode = try tree.directory(number)
            guard inode.hydration != .complete else { return nil }
            inode.hydration = .arriving     // from here on the feed's rows are taken, so that no change falls between two pages
            inode.uses += 1
            tree.markDirty(inode)
            return inode.id
        }
        guard let id else { return }
        defer {
            tree.lock.withLock {
                guard let inode = tree.inodes[number] else { return }
                inode.uses -= 1
                tree.releaseIfUnused(inode)
            }
        }
        var after: String?
        var isComplete = false
        while !isComplete {
            let start = after
            let page = try await persistently(waiter) { try await self.remote.children(self.namespace, id, after: start) }
            connected(nil)
            let events = try tree.lock.withLock { () throws(FileSystemError) -> [KernelEvent]? in
                // The feed was applied further than this page knows: it may show what is no more.
                guard page.sequence >= state.withLock({ $0.cursor }) else { return nil }
                var applier = FeedApplier(tree: tree)
                try applier.apply(entries: page.entries, nodes: page.nodes)
                if page.next == nil {
                    let inode = try tree.inode(number)
                    inode.hydration = .complete
                    tree.markDirty(inode)
                }
                return applier.events
            }
            guard let events else { continue }
            notify(events)
            after = page.next
            isComplete = page.next == nil
        }
    }

    /// Fetches the directories that nobody visited, one after the other, in the order in which they became known.
    func hydrateLoop() async {
        while !Task.isCancelled {
            let next = try? tree.lock.withLock { () throws(FileSystemError) in
                try tree.commit()
                return try tree.database.read { try Int64.fetchOne($0, sql: "SELECT inode FROM nodes WHERE hydrated < 2 AND mode & 61440 = 16384 ORDER BY inode LIMIT 1") }
            }
            if let next = next ?? nil, state.withLock({ $0.isConnected && $0.stopped == nil }) {
                let failed = await withCheckedContinuation { continuation in
                    hydrate(InodeNumber(rawValue: UInt64(next))) { continuation.resume(returning: $0 != nil) }
                }
                if failed { try? await Task.sleep(for: .seconds(5)) }
            } else {
                try? await Task.sleep(for: .seconds(1))
            }
        }
    }

    // MARK: Waiting for the log

    func isUploaded(_ number: InodeNumber) -> Bool {
        tree.lock.withLock {
            guard let inode = try? tree.inode(number) else { return true }
            return (try? tree.isPending(inode) || inode.isDirectory && tree.isPending(entriesOf: inode.id)) == false
        }
    }

    /// Calls `done` once every record up to `log` is on the server, or nothing is sent any more. While someone waits, the log is sent
    /// without delay.
    func waitForUpload(upTo log: Int64, done: @escaping @Sendable (_ isUploaded: Bool) -> Void) {
        let isUploaded: Bool? = state.withLock { state in
            if state.acknowledged >= log { return true }
            if state.stopped != nil { return false }
            state.uploadWaiters.append(UploadWaiter(log: log, done: done))
            return nil
        }
        if let isUploaded { done(isUploaded) } else { pushSignal.raise() }
    }
}

/// One waiting operation: answered by the work, by its deadline or by an interruption, whichever comes first.
final class Waiter: FetchToken {
    private let done: Mutex<(@Sendable (FileSystemError?) -> Void)?>
    private let end = Mutex<(@Sendable () -> Void)?>(nil)

    /// - Parameter late: the answer at the deadline.
    init(deadlineSeconds: Double, late: FileSystemError, done: @escaping @Sendable (FileSystemError?) -> Void) {
        self.done = Mutex(done)
        DispatchQueue.global().asyncAfter(deadline: .now() + deadlineSeconds) { [weak self] in self?.finish(late) }
    }

    var isWaiting: Bool { done.withLock { $0 != nil } }

    /// Called when the operation was answered otherwise than by the work.
    func onEnd(_ action: @escaping @Sendable () -> Void) { end.withLock { $0 = action } }

    func finish(_ error: FileSystemError?) {
        let answer = done.withLock { done in
            defer { done = nil }
            return done
        }
        answer?(error)
    }

    func cancel() {
        let action = end.withLock { end in
            defer { end = nil }
            return end
        }
        finish(.interrupted)
        action?()
    }
}
