import Foundation
import GRDB
import Shared
import Synchronization

// Bringing what operations miss.
extension Synchronizer {
    func fetch(_ missing: Missing, since start: UInt64, done: @escaping @Sendable (FileSystemError?) -> Void) -> any FetchToken {
        let isRoom = missing == .cacheRoom
        // Who is slowed by the link waits as long as something is sent; all else has one deadline for the call.
        let left = if case .pace = missing { deadlineSeconds } else { isRoom ? deadlineSeconds : max(0, deadlineSeconds - Double(Clock.now() - start) / 1e9) }
        let waiter = Waiter(deadlineSeconds: left, late: isRoom ? .noSpace : .io, progress: isRoom ? sentBytes : nil, done: done)
        switch missing {
        case .chunk(let hash, let length, let number):
            waiter.onEnd(chunks.fetch(ChunkReference(hash: hash, length: length), of: namespaceID(of: number)) { error in
                waiter.finish(error.map(Self.translated))
            })
        case .directory(let number): hydrate(number) { waiter.finish($0) }
        case .manifest(let number): bring(waiter) { [self] () throws(FileSystemError) in try await fetchManifest(number, waiter) }
        case .versions(let file, let number): bring(waiter) { [self] () throws(FileSystemError) in try await fetchVersions(of: file, number, waiter) }
        case .removed(let folder, let number): bring(waiter) { [self] () throws(FileSystemError) in await fetchRemoved(from: folder, number) }
        case .version(let id, let number): bring(waiter) { [self] () throws(FileSystemError) in try await fetchContent(of: id, number, waiter) }
        case .cacheRoom:
            // What fills the cache may all be of files that are open still.
            let last = tree.lock.withLock { (try? tree.logOpenFiles()) ?? tree.lastLog }, acknowledged = acknowledgedLog
            guard last > acknowledged else {    // nothing that could be sent
                waiter.finish(.noSpace)
                break
            }
            waitForUpload(upTo: acknowledged + 1) { waiter.finish($0 ? nil : .noSpace) }
        case .pace(let milliseconds):
            guard state.withLock(\.isConnected) else {     // there is no link to be slowed to
                waiter.finish(nil)
                break
            }
            DispatchQueue.global().asyncAfter(deadline: .now() + .milliseconds(milliseconds)) { waiter.finish(nil) }
        case .uploaded(let log):
            waitForUpload(upTo: log) { waiter.finish($0 ? nil : .io) }
        }
        return waiter
    }

    private func bring(_ waiter: Waiter, _ work: @escaping @Sendable () async throws(FileSystemError) -> Void) {
        Task {
            do throws(FileSystemError) {
                try await work()
                waiter.finish(nil)
            } catch { waiter.finish(error) }
        }
    }

    private var sentBytes: @Sendable () -> UInt64 { { [counters = remote.engine.settings.counters] in counters.sent.load(ordering: .relaxed) } }

    func prefetch(_ references: [ChunkReference], for number: InodeNumber) { chunks.prefetch(references, of: namespaceID(of: number)) }

    /// Who has the right to an inode's chunks; the home where nothing is known any more.
    func namespaceID(of number: InodeNumber) -> NamespaceID {
        tree.lock.withLock {
            let number = (try? tree.inode(number))?.namespace ?? Namespace.home
            return (tree.namespaces[number] ?? tree.namespaces[Namespace.home]!).id
        }
    }

    static func translated(_ error: RemoteError) -> FileSystemError {
        switch error {
        case .problem(let problem) where problem.code == ProblemCode.notFound.rawValue: .stale
        case .cancelled: .interrupted
        case .offline, .problem, .invalidAnswer: .io
        }
    }

    /// Repeats `body` while the server is away, until `waiter` was answered.
    func persistently<T: Sendable>(_ waiter: Waiter?, _ body: () async throws -> T) async throws(FileSystemError) -> T {
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
        let namespace = namespaceID(of: number)
        var packed: [Data] = []
        for page in pages { packed.append(try await persistently(waiter) { Data(try await self.remote.page(namespace, page)) }) }
        try tree.lock.withLock { () throws(FileSystemError) in
            let inode = try tree.inode(number)
            guard inode.pages == pages else { return }      // replaced meanwhile: the operation finds out
            try tree.change { rows in
                try rows.execute(sql: "DELETE FROM manifests WHERE inode = ?", arguments: [Int64(number.rawValue)])
                for (index, page) in packed.enumerated() {
                    try rows.execute(
                        sql: "INSERT INTO manifests (inode, page, packed) VALUES (?, ?, ?)", arguments: [Int64(number.rawValue), index, page])
                }
            }
            inode.pages = nil
            tree.markDirty(inode)
        }
    }

    // MARK: Waiting for the log

    var acknowledgedLog: Int64 { state.withLock(\.acknowledged) }

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
            state.pause?.cancel()
            return nil
        }
        if let isUploaded { done(isUploaded) } else { pushSignal.raise() }
    }
}

/// One waiting operation: answered by the work, by its deadline or by an interruption, whichever comes first.
final class Waiter: FetchToken {
    private let done: Mutex<(@Sendable (FileSystemError?) -> Void)?>
    private let end = Mutex<(@Sendable () -> Void)?>(nil)

    /// - Parameters:
    ///   - late: the answer at the deadline.
    ///   - progress: as long as it grows, the deadline does not come.
    init(
        deadlineSeconds: Double, late: FileSystemError, progress: (@Sendable () -> UInt64)? = nil,
        done: @escaping @Sendable (FileSystemError?) -> Void
    ) {
        self.done = Mutex(done)
        watch(deadlineSeconds, late, progress, progress?())
    }

    private func watch(_ seconds: Double, _ late: FileSystemError, _ progress: (@Sendable () -> UInt64)?, _ seen: UInt64?) {
        DispatchQueue.global().asyncAfter(deadline: .now() + seconds) { [weak self] in
            guard let self, isWaiting else { return }
            if let now = progress?(), now != seen { watch(seconds, late, progress, now) } else { giveUp(late) }
        }
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

    func cancel() { giveUp(.interrupted) }

    private func giveUp(_ error: FileSystemError) {
        let action = end.withLock { end in
            defer { end = nil }
            return end
        }
        finish(error)
        action?()
    }
}
