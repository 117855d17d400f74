import Foundation
import GRDB
import Shared

// Following the change feed.
extension Synchronizer {
    private static let waitSeconds = 50, pageLimit = 1000

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
                try? await Task.sleep(for: .milliseconds(min(10_000, 100 << min(failures, 7))))
            }
        }
    }

    func pullOnce(waitSeconds: Int) async throws {
        let cursor = state.withLock(\.cursor)
        let page = try await remote.changes(namespace, after: cursor, wait: waitSeconds, limit: Self.pageLimit)
        let wasConnected = state.withLock(\.isConnected)
        connected(nil)
        guard try isKnownServer(page) else { return }
        state.withLock { $0.quota = (page.quota, page.used) }
        if page.cursor > cursor || !page.entries.isEmpty || !page.nodes.isEmpty {
            let events = try tree.lock.withLock { () throws(FileSystemError) in
                var applier = FeedApplier(tree: tree)
                try applier.apply(entries: page.entries, nodes: page.nodes)
                try tree.setMeta("cursor", String(page.cursor))
                return applier.events
            }
            state.withLock { $0.cursor = page.cursor }
            notify(events)
        }
        if !wasConnected { pushSignal.raise() }
    }

    /// Absence is never a deletion: another server, or this one as it was some time ago, must not undo what is here.
    private func isKnownServer(_ page: ChangePage) throws(FileSystemError) -> Bool {
        let known = try tree.lock.withLock { () throws(FileSystemError) in (try tree.meta("server"), try tree.meta("epoch")) }
        let here = (page.identity.description, String(page.epoch))
        if known.0 == here.0, known.1 == here.1, page.cursor >= state.withLock(\.cursor) { return true }
        if known.0 == nil {
            try tree.lock.withLock { () throws(FileSystemError) in
                try tree.setMeta("server", here.0)
                try tree.setMeta("epoch", here.1)
            }
            return true
        }
        stopForGood(known.0 != here.0
            ? "This is not the server that the folder came from. Nothing is sent or taken; all that is here stays. Log in to the right server, or mount with a new --cache-dir."
            : "The server was restored from a backup or lost changes that were seen here. Nothing is sent or taken; all that is here stays. Unsent changes are in this mount; mount with a new --cache-dir to see the server's state.")
        return false
    }

    /// Takes the rows that waited for an answer to our own changes.
    func applyDeferred() {
        do {
            let events = try tree.lock.withLock { () throws(FileSystemError) in
                var applier = FeedApplier(tree: tree)
                try applier.applyDeferred()
                return applier.events
            }
            notify(events)
        } catch { note("Changes of others could not be applied (\(error)); they are tried again.") }
    }
}
