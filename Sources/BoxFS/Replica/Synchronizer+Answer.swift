import Foundation
import GRDB
import Shared

// What the answer to a commit means here.
extension Synchronizer {
    func answered(_ outgoing: Outgoing, _ namespace: Namespace, _ answer: CommitAnswer) async throws {
        let results = Dictionary(answer.results.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        // Every operation took a number of its own, and the server tells all rows that it spoke of again under these numbers: what
        // the feed said of them before is out of date, whether it waits in `deferred` or is still on its way.
        let plain = NamespaceSequence(namespace: namespace.id, sequence: answer.sequence - Int64(outgoing.request.operations.count))
        let before = Dictionary((answer.before ?? [plain]).map { ($0.namespace, $0.sequence) }, uniquingKeysWith: { first, _ in first })
        // Of what the server did not take, the bytes are kept beside the tree, while their claims still hold them.
        let refused = outgoing.request.operations.compactMap { numbered -> NodeID? in
            guard case .content(let node, _, _, _, _, _) = numbered.operation, results[numbered.id]?.outcome == .refused else { return nil }
            return node
        }
        if !refused.isEmpty { await rescue(refused) }
        let (acknowledged, events) = try tree.lock.withLock { () throws(FileSystemError) in
            let numbers = Dictionary(tree.namespaces.values.map { ($0.id, $0.number) }, uniquingKeysWith: { first, _ in first })
            try tree.change { rows in
                try rows.execute(sql: "DELETE FROM log WHERE id <= ? AND namespace = ?", arguments: [outgoing.lastLog, namespace.number])
                try rows.execute(sql: "DELETE FROM outbox WHERE namespace = ?", arguments: [namespace.number])
                try namespace.saveTold(answer.sequence, rows)
            }
            let spokenOf = SpokenOf(outgoing.request.operations.map(\.operation))
            try tree.dropDeferred(spokenOf) { row in before.contains { numbers[$0] == row.namespace && row.sequence <= $1 } }
            for (id, sequence) in before { numbers[id].flatMap { tree.namespaces[$0] }?.noteAnswered(spokenOf, before: sequence) }
            for numbered in outgoing.request.operations {
                guard let result = results[numbered.id] else { continue }
                try take(result, of: numbered.operation, before[result.namespace ?? namespace.id] ?? 0)
            }
            try tree.releaseMerged()
            // Under the same lock: a later row of the feed must not be applied before these.
            let events = try tree.applyDeferred()
            try tree.forgetUnlinked()
            try tree.commit()
            return (try tree.acknowledgedLog(), events)
        }
        try took(events)
        tree.cache.markSent(outgoing.claims.map(\.hash))
        if namespace.isHome { state.withLock { $0.isOverQuota = false } }
        acknowledge(upTo: acknowledged)
    }

    /// No log record up to here waits any more: nor does whoever waited for it.
    func acknowledge(upTo log: Int64) {
        let waiters = state.withLock { state in
            state.acknowledged = max(state.acknowledged, log)
            defer { state.uploadWaiters.removeAll { $0.log <= log } }
            return state.uploadWaiters.filter { $0.log <= log }
        }
        for waiter in waiters { waiter.done(true) }
    }

    /// What one operation's answer means here. The feed brings the rows themselves. Under `Tree.lock`.
    private func take(_ result: OperationResult, of operation: Shared.Operation, _ before: Int64) throws(FileSystemError) {
        switch (operation, result.outcome) {
        case (.content(let node, _, let version, let content, _, _), .applied), (.content(let node, _, let version, let content, _, _), .merged):
            guard let inode = try tree.inode(of: node) else { return }
            if try tree.goesOn(from: content, inode) { inode.version = version }
            inode.sequence = max(inode.sequence, before)
            inode.file?.uploaded()
            tree.markDirty(inode)
        case (.create(let node, let parent, let name), .merged):
            guard let existing = result.detail.flatMap(NodeID.init), existing != node.id else { return }
            try adopt(existing, for: node.id, parent, name)
        case (.setattr(let node, _, _, _, _, _, _), .applied), (.xattr(let node, _, _, _), .applied):
            guard let inode = try tree.inode(of: node) else { return }
            inode.sequence = max(inode.sequence, before)
            tree.markDirty(inode)
        case (_, .conflicted), (_, .refused):
            if result.outcome == .refused { try takeBack(operation) }
            note("\(operation.summary): \(result.outcome.rawValue)\(result.code.map { ", \($0)" } ?? "")\(result.detail.map { ": \($0)" } ?? "")")
        default: break
        }
    }

    /// Takes back the entries that an operation made here and the server does not have: the feed tells what is there. Under `Tree.lock`.
    private func takeBack(_ operation: Shared.Operation) throws(FileSystemError) {
        for (parent, name, believed) in operation.spokenOf.names {
            guard let believed, let inode = try takeBack(believed, parent, name) else { continue }
            if case .create = operation {       // the server knows nothing of it
                inode.links = 0
                tree.markDirty(inode)
            }
        }
    }

    private func takeBack(_ node: NodeID, _ parent: NodeID, _ name: String) throws(FileSystemError) -> Inode? {
        guard let directory = try tree.inode(of: parent), let inode = try tree.inode(of: node), try tree.entry(directory.number, name) == inode.number,
              try !tree.isPending(entry: name, in: parent) else { return nil }
        try tree.change { try MountedFileSystem.deleteEntry($0, directory.number, name) }
        directory.directoryVersion += 1
        notify(tree.willTell([.entry(name, in: directory.number)]))
        return inode
    }

    /// What was made here and what was made elsewhere became one: ours takes the other's identity, or gives way to it if it is here.
    private func adopt(_ existing: NodeID, for ours: NodeID, _ parent: NodeID, _ name: String) throws(FileSystemError) {
        guard let inode = try tree.inode(of: ours) else { return }
        if let other = try tree.inode(of: existing) {
            _ = try takeBack(ours, parent, name)
            return notify(tree.willTell(try tree.merge(inode, into: other)))
        }
        inode.id = existing
        if inode.isDirectory {
            inode.hydration = .arriving     // whatever the feed tells of it from here on counts
            hydrateSignal.raise()
        }
        tree.markDirty(inode)
        try tree.rename(ours, existing, inLog: ["node", "parent", "other_node", "other_parent"])
    }
}

extension Shared.Operation {
    /// For people: what was tried.
    fileprivate var summary: String {
        switch self {
        case .create(_, _, let name): "Creating \(name)"
        case .link(_, _, let name, _): "Linking \(name)"
        case .rename(_, _, let name, _, let toName, _, _, _): "Renaming \(name) to \(toName)"
        case .exchange(_, _, let name, _, _, let otherName, _): "Exchanging \(name) and \(otherName)"
        case .remove(_, _, let name, _, _): "Removing \(name)"
        case .setattr: "Changing attributes"
        case .xattr(_, let name, _, _): "Changing attribute \(name)"
        case .content: "Changing content"
        }
    }
}

extension Tree {
    /// Whether the content here is the one that was sent, or was written on top of it. What was removed here meanwhile and came back by the feed
    /// (`FeedApplier.bringBack`) has bytes of another version: it takes those that were sent when the feed tells of theirs.
    fileprivate func goesOn(from sent: Content, _ inode: Inode) throws(FileSystemError) -> Bool {
        if inode.links == 0 || inode.hasUnloggedContent { return true }
        let isWritten = try database.read { database in
            try Int64.fetchOne(
                database.cachedStatement(sql: "SELECT 1 FROM log WHERE node = ? AND kind = ? LIMIT 1"), arguments: [inode.id.data, LogKind.content.rawValue]) != nil
        }
        if isWritten { return true }
        if let pages = inode.pages { return pages == sent.pages }
        let file = if let loaded = inode.file { loaded } else { try FileContent.load(inode, self, cache: cache, store: segments) }
        return Content(FileContent.manifest(size: file.byteCount, slots: file.lock.withLock { file.slots }) { _ in [] }) == sent
    }

    /// Lets go of unlinked nodes that only the log still needed, in memory or not.
    func forgetUnlinked() throws(FileSystemError) {
        let unlinked = try database.read {
            try Int64.fetchAll($0.cachedStatement(sql: "SELECT inode FROM nodes WHERE links = 0 AND NOT EXISTS (SELECT 1 FROM log WHERE log.node = nodes.id)"))
        }
        for number in unlinked {
            if let inode = inodes[InodeNumber(rawValue: UInt64(number))] { releaseIfUnused(inode) } else { try change { try Self.dropUnlinked(number, $0) } }
        }
    }
}
