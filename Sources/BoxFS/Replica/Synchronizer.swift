import ChunkCache
import Foundation
import GRDB
import Glibc
import Shared
import Synchronization

/// Keeps one mount's tree and the server's namespaces the same: sends the log, takes the change feed, brings what is missing.
///
/// Four tasks: `commitLoop` ends the replica's open transaction soon after each change, `pushLoop` sends the log in order,
/// `pullLoop` follows the feed, `hydrateLoop` fetches the directories that nobody visited. Each of them may fail for as long as the
/// server is away and goes on where it was.
final class Synchronizer: MissingFetcher {
    let tree: Tree
    let remote: Remote
    let chunks: ChunkFetcher
    let device: String
    let deadlineSeconds: Double
    /// Where unsent changes of shared folders go that may not be sent any more.
    let rescueFolder: String
    private let notifier = Mutex<(any KernelNotifications)?>(nil)

    let state = Mutex(State())
    struct State: Sendable {
        var isConnected = false
        var lastError: String?
        /// Why nothing is sent or taken any more: a person has to act.
        var stopped: String?
        var problems: [String] = []
        var quota: (limit: UInt64?, used: UInt64) = (nil, 0)
        var isOverQuota = false
        var sending: [String] = []
        var bytesToSend: UInt64 = 0
        /// Log records up to here are on the server.
        var acknowledged: Int64 = 0
        var uploadWaiters: [UploadWaiter] = []
        /// What `settle` sleeps in before the log is sent, and whether it ends with the last file that is open for writing.
        var pause: Task<Void, Never>?, pausesWhileOpen = false
        var hydrationWaiters: [InodeNumber: [@Sendable (FileSystemError?) -> Void]] = [:]
    }
    struct UploadWaiter: Sendable { let log: Int64, done: @Sendable (_ isUploaded: Bool) -> Void }

    let knownVersions = Mutex(KnownVersions())
    let commitSignal = Signal(), pushSignal = Signal(), hydrateSignal = Signal()
    let pollUnderWay = Mutex<Task<FollowAnswer, any Error>?>(nil)
    private let tasks = Mutex<[Task<Void, Never>]>([])

    init(tree: Tree, remote: Remote, chunks: ChunkFetcher, device: String, deadlineSeconds: Double, rescueFolder: String) throws {
        self.tree = tree
        self.remote = remote
        self.chunks = chunks
        self.rescueFolder = rescueFolder
        self.device = device
        self.deadlineSeconds = deadlineSeconds
        state.withLock {
            $0.acknowledged = (try? tree.acknowledgedLog()) ?? tree.lastLog
        }
    }

    func start(notifying notifications: any KernelNotifications) {
        notifier.withLock { $0 = notifications }
        tree.lock.withLock {
            tree.changesWaiting = { [commitSignal] in commitSignal.raise() }
            tree.logGrew = { [pushSignal] in pushSignal.raise() }
            tree.writersGone = { [weak self] in self?.writersAreGone() }
        }
        tasks.withLock {
            $0 = [
                Task { await self.commitLoop() }, Task { await self.pushLoop() },
                Task { await self.pullLoop() }, Task { await self.hydrateLoop() },
            ]
        }
        pushSignal.raise()
    }

    /// Ends the tasks; what is not sent stays in the log. The replica is committed.
    func stop() async {
        let running = tasks.withLock { tasks in
            defer { tasks = [] }
            return tasks
        }
        for task in running { task.cancel() }
        state.withLock { $0.pause?.cancel() }
        for signal in [commitSignal, pushSignal, hydrateSignal] { signal.raise() }
        let hydrations = state.withLock { state in
            defer { state.hydrationWaiters = [:] }
            return state.hydrationWaiters.values.flatMap { $0 }
        }
        for waiter in hydrations { waiter(.interrupted) }
        for task in running { await task.value }
        tree.lock.withLock { try? tree.commit() }
        try? tree.database.sync()
        tree.removeFiles()
    }

    /// Ends the open transaction a little after it began, so that the changes of many calls share it.
    private func commitLoop() async {
        while !Task.isCancelled {
            await commitSignal.wait()
            try? await Task.sleep(for: .milliseconds(20))
            tree.lock.withLock {
                do throws(FileSystemError) { try tree.commit() } catch { note("The local database could not be written (\(error)). Nothing can be changed here until the next mount, which begins at what was closed: unmount, and mount again.") }
                tree.trim()
            }
        }
    }

    // MARK: What others are told

    func note(_ problem: String) {
        state.withLock { state in
            if state.problems.last != problem { state.problems.append(problem) }
            if state.problems.count > 50 { state.problems.removeFirst() }
        }
        try? FileHandle.standardError.write(contentsOf: Data("boxfs: \(problem)\n".utf8))    // the log's disk may be full
    }

    func stopForGood(_ reason: String) {
        let waiters = state.withLock { state in
            state.stopped = reason
            defer { state.uploadWaiters = [] }
            return state.uploadWaiters
        }
        note(reason)
        for waiter in waiters { waiter.done(false) }
    }

    func connected(_ error: RemoteError?) {
        let wasConnected = state.withLock { state in
            defer {
                state.isConnected = error == nil
                state.lastError = error.map { "\($0)" }
            }
            return state.isConnected
        }
        if error == nil, !wasConnected { hydrateSignal.raise() }
    }

    /// - Parameters:
    ///   - events: those of entries from `Tree.willTell`.
    ///   - shown: what of it was done elsewhere just now, for those who watch.
    func notify(_ events: [KernelEvent], shown: [RemoteChange] = []) {
        guard !events.isEmpty, let notifier = notifier.withLock({ $0 }) else { return }
        defer {
            if events.contains(where: \.isOfEntry) { notifier.afterwards { [tree] in tree.lock.withLock { tree.told(events) } } }
            if !shown.isEmpty { notifier.replay(shown) }
        }
        for event in events {
            switch event {
            case .inode(let number, let data): notifier.invalidate(number, data: data)
            case .entry(let name, let parent): notifier.invalidate(entry: name, in: parent)
            case .deleted(let name, let child, let parent): notifier.delete(entry: name, of: child, in: parent)
            }
        }
    }

    /// Returns when the kernel has heard it.
    func tell(_ events: [KernelEvent]) async {
        notify(events)
        await withCheckedContinuation { continuation in
            if let notifier = notifier.withLock({ $0 }) { notifier.afterwards { continuation.resume() } } else { continuation.resume() }
        }
    }

    func attributesChanged(_ inode: InodeNumber) { notify([.inode(inode, data: false)]) }

    func moved(_ places: [(InodeNumber, String)]) { notify(tree.willTell(places.map { .entry($1, in: $0) })) }

    var quota: (limit: UInt64?, used: UInt64) {
        state.withLock { $0.isOverQuota ? (min($0.quota.limit ?? 0, $0.quota.used), $0.quota.used) : $0.quota }
    }
}

/// What the kernel is to hear once no lock is held.
enum KernelEvent: Sendable {
    case inode(InodeNumber, data: Bool)
    case entry(String, in: InodeNumber)
    case deleted(String, of: InodeNumber, in: InodeNumber)

    var isOfEntry: Bool { if case .inode = self { false } else { true } }
}

extension Tree {
    /// Entries of these events are changed here, and the kernel is going to hear of it. Under the lock under which they changed.
    func willTell(_ events: [KernelEvent]) -> [KernelEvent] {
        untoldEntries += events.count(where: \.isOfEntry)
        return events
    }

    func told(_ events: [KernelEvent]) { untoldEntries -= events.count(where: \.isOfEntry) }
}

/// Wakes one waiting task; raised while nobody waits, it wakes the next wait at once.
final class Signal: Sendable {
    private let stream: AsyncStream<Void>
    private let continuation: AsyncStream<Void>.Continuation

    init() { (stream, continuation) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1)) }

    func raise() { continuation.yield() }

    /// Returns at once when the task is cancelled.
    func wait() async {
        var iterator = stream.makeAsyncIterator()
        _ = await iterator.next()
    }
}

extension Tree {
    func meta(_ key: String) throws(FileSystemError) -> String? {
        try database.read { try String.fetchOne($0, sql: "SELECT value FROM meta WHERE key = ?", arguments: [key]) }
    }

    func setMeta(_ key: String, _ value: String) throws(FileSystemError) {
        try change {
            try $0.execute(
                sql: "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", arguments: [key, value])
        }
    }

    /// No log record up to here waits to be sent.
    func acknowledgedLog() throws(FileSystemError) -> Int64 {
        try database.read { try Int64.fetchOne($0, sql: "SELECT min(id) FROM log") }.map { $0 - 1 } ?? lastLog
    }

    /// Whether our own change of the node is not answered yet. Under the lock.
    func isPending(_ inode: Inode) throws(FileSystemError) -> Bool {
        if inode.hasUnloggedContent { return true }
        return try isPending(node: inode.id)
    }

    func isPending(node: NodeID) throws(FileSystemError) -> Bool {
        try database.read { database in
            try Int64.fetchOne(database.cachedStatement(sql: """
                SELECT 1 FROM log WHERE node = ?1 UNION ALL SELECT 1 FROM log WHERE other_node = ?1 LIMIT 1
                """), arguments: [node.data])
        } != nil
    }

    func isPending(entriesOf directory: NodeID) throws(FileSystemError) -> Bool {
        try database.read { database in
            try Int64.fetchOne(database.cachedStatement(sql: """
                SELECT 1 FROM log WHERE parent = ?1 UNION ALL SELECT 1 FROM log WHERE other_parent = ?1 LIMIT 1
                """), arguments: [directory.data])
        } != nil
    }

    func isPending(entry name: String, in parent: NodeID) throws(FileSystemError) -> Bool {
        try database.read { database in
            try Int64.fetchOne(database.cachedStatement(sql: """
                SELECT 1 FROM log WHERE parent = ?1 AND name = ?2
                UNION ALL SELECT 1 FROM log WHERE other_parent = ?1 AND other_name = ?2 LIMIT 1
                """), arguments: [parent.data, name])
        } != nil
    }
}
