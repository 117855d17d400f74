import Foundation
import GRDB
import Shared

// Entries of a directory that is being listed. A tree of a million files comes here once, so what is new takes a short way: rows are
// written at once, and no inode is made in memory.
extension FeedApplier {
    /// Entries of one directory, with their nodes.
    mutating func list(_ directory: InodeNumber, entries: [Entry], nodes rows: [Node]) throws(FileSystemError) {
        // A change of ours that waits may be about any of them.
        let waits = try tree.database.read { try Int64.fetchOne($0.cachedStatement(sql: "SELECT 1 FROM log LIMIT 1")) != nil }
        guard !waits else { return try apply(entries: entries, nodes: rows) }
        let entries = entries.filter { !namespace.isOutOfDate($0) }
        let known = try knownNodes(rows), taken = try takenNames(entries, in: directory)
        var new: [NodeID: Node] = [:]
        for node in rows where !node.deleted && node.shared == nil && FileType(mode: node.mode) != nil && !known.contains(node.id) { new[node.id] = node }
        var others: [Entry] = [], names: [String] = []
        try tree.change { rows in
            for entry in entries {
                guard !entry.deleted, !taken.contains(entry.name), let node = new.removeValue(forKey: entry.node) else {
                    others.append(entry)    // known here, or a further name of a file
                    continue
                }
                let inode = try tree.insert(node, in: namespace.number, rows)
                try MountedFileSystem.insertEntry(rows, directory, entry.name, inode, sequence: entry.sequence)
                names.append(entry.name)
            }
        }
        tree.inodes[directory]?.directoryVersion += 1
        // The kernel remembers names only of a directory that it was told of.
        if directory == .root || tree.lookups[directory] != nil { events += names.map { .entry($0, in: directory) } }
        if !others.isEmpty { try apply(entries: others, nodes: rows.filter { node in
            others.contains { $0.node == node.id } || rows.contains { $0.shared?.root == node.id }
        }) }
    }

    private func takenNames(_ entries: [Entry], in directory: InodeNumber) throws(FileSystemError) -> Set<String> {
        guard try !tree.isEmpty(directory) else { return [] }
        return try tree.database.read { database in
            let statement = try database.cachedStatement(sql: "SELECT 1 FROM entries WHERE parent = ? AND name = ?")
            return Set(try entries.lazy.map(\.name).filter { try Int64.fetchOne(statement, arguments: [Int64(directory.rawValue), $0]) != nil })
        }
    }

    private func knownNodes(_ rows: [Node]) throws(FileSystemError) -> Set<NodeID> {
        var known = Set(tree.dirty.lazy.map(\.id))
        try tree.database.read { database in
            let statement = try database.cachedStatement(sql: "SELECT 1 FROM nodes WHERE id = ?")
            for node in rows where try Int64.fetchOne(statement, arguments: [node.id.data]) != nil { known.insert(node.id) }
        }
        return known
    }
}

extension Tree {
    /// Writes the rows of a node that is new here. Within a `change`.
    fileprivate func insert(_ node: Node, in namespace: Int64, _ rows: RowChanges) throws -> InodeNumber {
        let inode = makeInode(for: node, in: namespace)
        if let version = node.version, let content = node.content {
            (inode.version, inode.size) = (version, content.size)
            if let packed = content.inline {
                guard SlotTable(try Manifest.unpack(packed)) != nil else { throw FileSystemError.notSupported }
                if !packed.isEmpty {
                    try rows.execute(
                        sql: "INSERT INTO manifests (inode, page, packed) VALUES (?, 0, ?)", arguments: [Int64(inode.number.rawValue), packed])
                }
            } else {
                inode.pages = content.pages ?? []
            }
        }
        try inode.saveWhole(rows)
        return inode.number
    }
}
