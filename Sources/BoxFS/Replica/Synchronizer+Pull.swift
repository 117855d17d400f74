import Foundation
import GRDB
import Shared

// Following the change feed.
extension Synchronizer {
    /// How long the server holds a poll back. A connection that was forgotten on its way is noticed when the answer does not come.
    private static let waitSeconds = 10
    /// Rows of one page: for as long as it is applied, calls wait (`Tree.lock`).
    private static let pageLimit = 250

    func pullLoop() async {
        var failures = 0
        while !Task.isCancelled {
            guard state.withLock({ $0.stopped == nil }) else { return }
            do {
                // The first answer after an error comes at once: it tells whether the server is back.
                let wait = failures == 0 && state.withLock(\.isConnected) ? Self.waitSeconds : 0
                try await pullOnce(waitSeconds: wait)
                failures = 0
            } catch {
                if Task.isCancelled { return }
                if let error = error as? RemoteError { connected(error) } else { note("Following the server's changes failed: \(error).") }
                failures += 1
                try? await Task.sleep(for: .milliseconds(min(5_000, 100 << min(failures, 6))))
            }
        }
    }

    func pullOnce(waitSeconds: Int) async throws {
        let followed = cursors()
        guard let answer = try await poll(followed, waitSeconds: waitSeconds) else { return }
        let wasConnected = state.withLock(\.isConnected)
        connected(nil)
        for (namespace, after, known) in followed {
            guard let page = answer.pages.first(where: { $0.namespace == namespace.id })?.page else { continue }
            // Where there is nothing more the cursor is the namespace's last number.
            guard try isKnownServer(page, since: page.more ? after : known) else { return }
            if namespace.isHome { state.withLock { $0.quota = (page.quota, page.used) } }
            if page.cursor > after || !page.entries.isEmpty || !page.nodes.isEmpty { try apply(page, to: namespace, isNews: wasConnected) }
            if page.nodes.contains(where: { FileType(mode: $0.mode) == .directory }) { hydrateSignal.raise() }
        }
        await leaveLostFolders()
        if !wasConnected { pushSignal.raise() }
    }

    /// - Returns: nil when there is another namespace to be followed by now.
    private func poll(_ followed: [Followed], waitSeconds: Int) async throws -> FollowAnswer? {
        let poll = Task { [remote] in
            try await remote.follow(followed.map { .init(namespace: $0.namespace.id, after: $0.after) }, wait: waitSeconds, limit: Self.pageLimit)
        }
        pollUnderWay.withLock { $0 = poll }
        defer { pollUnderWay.withLock { $0 = nil } }
        if cursors().count != followed.count { poll.cancel() }
        do {
            return try await withTaskCancellationHandler { try await poll.value } onCancel: { poll.cancel() }
        } catch RemoteError.cancelled where !Task.isCancelled { return nil }
    }

    /// Ends the poll that waits, as there is one more feed to be followed: that of a shared folder that a listing brought.
    func followAnew() { pollUnderWay.withLock { $0?.cancel() } }

    private typealias Followed = (namespace: Namespace, after: Int64, known: Int64)

    /// How far the feeds were applied, and what was heard before of their ends. The home's first: it says what the others are.
    private func cursors() -> [Followed] {
        tree.lock.withLock { tree.namespacesHomeFirst.filter { !$0.isLost }.map { ($0, $0.cursor, $0.known) } }
    }

    /// - Parameter isNews: what happened while we were away is no news to anybody.
    func apply(_ page: ChangePage, to namespace: Namespace, isNews: Bool) throws(FileSystemError) {
        let (events, shown) = try tree.lock.withLock { () throws(FileSystemError) -> ([KernelEvent], [RemoteChange]) in
            guard tree.namespaces[namespace.number] === namespace, !namespace.isLost else { return ([], []) }
            var applier = FeedApplier(tree: tree, namespace: namespace)
            try applier.applyDeferred()     // older than the page
            try applier.apply(entries: page.entries, nodes: page.nodes)
            namespace.cursor = page.cursor
            if !page.more { namespace.caughtUp = page.cursor }
            try tree.save(namespace)
            try tree.releaseMerged()
            return (tree.willTell(applier.events), isNews ? try tree.remoteChanges(applier.events) : [])
        }
        notify(events, shown: shown)
    }

    /// Absence is never a deletion: another server, or this one as it was some time ago, must not undo what is here.
    ///
    /// - Parameter since: what the server had, as far as this mount had heard when it asked for the page: its cursor is not before that.
    private func isKnownServer(_ page: ChangePage, since: Int64) throws(FileSystemError) -> Bool {
        let known = try tree.lock.withLock { () throws(FileSystemError) in (try tree.meta("server"), try tree.meta("epoch")) }
        let here = (page.identity.description, String(page.epoch))
        if known.0 == here.0, known.1 == here.1, page.cursor >= since { return true }
        if known.0 == nil {
            try tree.lock.withLock { () throws(FileSystemError) in
                try tree.setMeta("server", here.0)
                try tree.setMeta("epoch", here.1)
            }
            return true
        }
        stopForGood(known.0 != here.0
            ? "This is not the server that the folder came from. Nothing is sent or taken; all that is here stays. Log in to the right server, or mount with a new --cache-dir."
            : Self.lostChanges)
        return false
    }

    static let lostChanges = "The server was restored from a backup or lost changes that were seen here. Nothing is sent or taken; all that is here stays. Unsent changes are in this mount; mount with a new --cache-dir to see the server's state."

    /// After the server was away, before anything is sent: is it the one that it was? If not, nothing is sent (`State.stopped`).
    func checkServer() async throws {
        guard let (home, _, known) = cursors().first else { return }
        let page = try await remote.changes(home.id, after: known, wait: 0, limit: 1)
        if try isKnownServer(page, since: known) { connected(nil) }
    }

    func changeGivenUp() {
        let isWaiting = tree.lock.withLock { try? tree.database.read { try Int64.fetchOne($0, sql: "SELECT 1 FROM deferred LIMIT 1") } }
        if isWaiting != nil { DispatchQueue.global().async { self.applyDeferred() } }
    }

    /// Takes the rows that waited for an answer to our own changes.
    func applyDeferred() {
        do {
            try took(try tree.lock.withLock { () throws(FileSystemError) in try tree.applyDeferred() })
        } catch { note("Changes of others could not be applied (\(error)); they are tried again.") }
    }
}

extension Synchronizer {
    /// Tells of rows that waited and were taken.
    func took(_ events: [KernelEvent]) throws(FileSystemError) {
        guard !events.isEmpty else { return }
        notify(events, shown: try tree.lock.withLock { () throws(FileSystemError) in try tree.remoteChanges(events) })
        hydrateSignal.raise()
    }
}

extension Tree {
    /// The events that a watcher is shown, in their order: entries that went, entries that appeared, with their content if they have some, and new content.
    func remoteChanges(_ events: [KernelEvent]) throws(FileSystemError) -> [RemoteChange] {
        var changes: [RemoteChange] = []
        for event in events.prefix(RemoteChange.maximumWaiting) {
            switch event {
            case .entry(let name, let parent):
                let number = try database.read { database in
                    try Int64.fetchOne(
                        database.cachedStatement(sql: "SELECT inode FROM entries WHERE parent = ? AND name = ?"), arguments: [Int64(parent.rawValue), name])
                }
                // Gone again within the same page.
                guard let number, let directory = try path(of: parent) else { continue }
                let inode = try inode(InodeNumber(rawValue: UInt64(number)))
                let path = directory.isEmpty ? name : "\(directory)/\(name)"
                changes.append(RemoteChange(path: path, kind: .created(name: name, in: parent, mode: inode.mode)))
                if inode.mode & S_IFMT == S_IFREG, inode.size > 0 { changes.append(RemoteChange(path: path, kind: .modified)) }
                releaseIfUnused(inode)
            case .inode(let number, data: true):
                if let path = try path(of: number), !path.isEmpty { changes.append(RemoteChange(path: path, kind: .modified)) }
            case .deleted(let name, let child, let parent):
                let isThereAgain = try database.read { database in
                    try Int64.fetchOne(
                        database.cachedStatement(sql: "SELECT 1 FROM entries WHERE parent = ? AND name = ?"), arguments: [Int64(parent.rawValue), name]) != nil
                }
                guard !isThereAgain, let directory = try path(of: parent) else { continue }
                let isDirectory = (try? inode(child))?.isDirectory ?? false
                changes.append(RemoteChange(
                    path: directory.isEmpty ? name : "\(directory)/\(name)", kind: .removed(name: name, in: parent, isDirectory: isDirectory)))
            case .inode: continue
            }
        }
        return changes
    }
}
