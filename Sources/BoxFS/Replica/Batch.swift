import ChunkCache
import Foundation
import GRDB
import Shared

/// The changes of one commit, cut from the log: all that was answered up to `lastLog`.
///
/// The cut freezes the segments of every file that it speaks of, so that the server goes from one state that this tree was in
/// to a later one in a single commit, whatever is written meanwhile.
struct Batch: Sendable {
    struct File: Sendable {
        let inode: Inode
        let node: NodeID
        let content: FileContent
        let size: UInt64
        var slots: SlotTable
        let base: VersionID?
        let modified: Timestamp
        let changed: Timestamp
    }

    let lastLog: Int64
    let namespace: Int64
    /// All but contents.
    var operations: [NumberedOperation]
    var files: [File]
    /// More records wait behind the cut.
    let isPartial: Bool
}

extension Batch {
    /// Records in one batch: with the contents, at most the server's 5,000 operations.
    static let maximumRecords = 4000

    /// Cuts what the log holds of a namespace; nil when that is nothing. Under `Tree.lock`.
    static func cut(_ tree: Tree, _ namespace: Int64) throws(FileSystemError) -> Batch? {
        try tree.commit()
        let records = try tree.database.read { try LogRecord.fetch($0, namespace, limit: maximumRecords) }
        guard let last = records.last else { return nil }
        let kept = withoutTemporaries(records)
        let created = Set(kept.lazy.filter { $0.kind == .create }.map(\.node))
        var batch = Batch(lastLog: last.id, namespace: namespace, operations: [], files: [], isPartial: records.count == maximumRecords)
        var masks: [NodeID: AttributeMask] = [:]
        var attributeRecords: [LogRecord] = []
        var xattrs: Set<String> = []
        var contents: Set<NodeID> = []
        var isCut = false
        defer {
            if !isCut {
                batch.takeBack(tree)
                batch.release(tree)
            }
        }
        for record in kept {
            switch record.kind {
            case .create:
                let node = Node(try tree.inode(record.inode))
                batch.add(record, .create(node: node, parent: record.parent!, name: record.name!))
            // A folder's times are said once more after its entries: making them moved the times on the server.
            case .setattr where !created.contains(record.node) || (try? tree.inode(record.inode).isDirectory) ?? false:
                if masks.updateValue((masks[record.node] ?? []).union(record.mask), forKey: record.node) == nil { attributeRecords.append(record) }
            case .xattr where !created.contains(record.node):
                if xattrs.insert("\(record.node)\(record.attribute!)").inserted { attributeRecords.append(record) }
            case .content:
                if contents.insert(record.node).inserted { try batch.freeze(record, tree) }
            case .setattr, .xattr: break
            default: if let operation = record.entryOperation { batch.add(record, operation) }
            }
        }
        for record in attributeRecords {
            guard let inode = try? tree.inode(record.inode), inode.links > 0 else { continue }
            batch.add(record, record.attributeOperation(inode, masks[record.node] ?? []))
        }
        tree.lastCut = max(tree.lastCut, last.id)
        isCut = true
        return batch
    }

    private mutating func add(_ record: LogRecord, _ operation: Shared.Operation) {
        operations.append(NumberedOperation(id: record.id, operation: operation))
    }

    private mutating func freeze(_ record: LogRecord, _ tree: Tree) throws(FileSystemError) {
        guard let inode = try? tree.inode(record.inode), inode.links > 0 else { return }
        let content = try tree.content(of: inode)
        inode.uses += 1
        let (size, slots) = content.freeze()
        files.append(File(
            inode: inode, node: record.node, content: content, size: size, slots: slots, base: inode.version, modified: inode.modified, changed: inode.changed))
    }

    /// Without the nodes that were made and removed again under one name: editors' swap files, SQLite's journals, git's locks. A folder
    /// through which something went that stays is none of them.
    static func withoutTemporaries(_ records: [LogRecord]) -> [LogRecord] {
        var structure: [NodeID: [Int]] = [:]
        for (index, record) in records.enumerated() where record.kind.rawValue <= LogKind.remove.rawValue {
            structure[record.node, default: []].append(index)
            if let other = record.otherNode { structure[other, default: []].append(index) }
        }
        var dropped: Set<NodeID> = []
        for (node, indices) in structure where indices.count == 2 {
            let (first, last) = (records[indices[0]], records[indices[1]])
            if first.kind == .create, last.kind == .remove, first.parent == last.parent, first.name == last.name { dropped.insert(node) }
        }
        var isSettled = dropped.isEmpty
        while !isSettled {
            isSettled = true
            for record in records where !dropped.contains(record.node) {
                for folder in [record.parent, record.otherParent] {
                    if let folder, dropped.remove(folder) != nil { isSettled = false }
                }
            }
        }
        return dropped.isEmpty ? records : records.filter { !dropped.contains($0.node) }
    }

    /// The contents go with a later batch. Under `Tree.lock`.
    func takeBack(_ tree: Tree) {
        for file in files {
            file.content.takeBack(file.slots)
            tree.markContentDirty(file.inode)
        }
    }

    /// Forgets the pins of a batch that was given up or answered. Under `Tree.lock`.
    func release(_ tree: Tree) {
        for file in files {
            file.inode.uses -= 1
            tree.shrink(file.inode)
        }
    }
}

extension LogRecord {
    /// The operation on the wire, for what speaks of entries.
    fileprivate var entryOperation: Shared.Operation? {
        guard let parent, let name else { return nil }
        switch kind {
        case .link: return .link(node: node, parent: parent, name: name, time: time)
        case .remove: return .remove(node: node, parent: parent, name: name, version: version, time: time)
        case .rename:
            guard let otherParent, let otherName else { return nil }
            return .rename(
                node: node, parent: parent, name: name, toParent: otherParent, toName: otherName, replaced: otherNode, replacedVersion: version,
                time: time)
        case .exchange:
            guard let otherNode, let otherParent, let otherName else { return nil }
            return .exchange(
                node: node, parent: parent, name: name, otherNode: otherNode, otherParent: otherParent, otherName: otherName, time: time)
        case .create, .setattr, .xattr, .content: return nil
        }
    }

    fileprivate func attributeOperation(_ inode: Inode, _ mask: AttributeMask) -> Shared.Operation {
        if let attribute { return .xattr(node: node, name: attribute, value: inode.xattrs[attribute], changed: inode.changed) }
        return .setattr(
            node: node, mode: mask.contains(.mode) ? inode.mode & 0o7777 : nil, uid: mask.contains(.uid) ? inode.uid : nil,
            gid: mask.contains(.gid) ? inode.gid : nil, accessed: mask.contains(.accessed) ? inode.accessed : nil,
            modified: mask.contains(.modified) ? inode.modified : nil, changed: inode.changed)
    }
}

extension Node {
    /// What a `create` operation says.
    init(_ inode: Inode) {
        self.init(
            id: inode.id, sequence: 0, mode: inode.mode, uid: inode.uid, gid: inode.gid, device: inode.device, accessed: inode.accessed,
            modified: inode.modified, changed: inode.changed, created: inode.created, links: 1, target: inode.target, xattrs: inode.xattrs)
    }
}
