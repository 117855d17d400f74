import Foundation
import GRDB
import Shared

/// Applies rows of the change feed, and of listings, to the tree. Under `Tree.lock` from first to last.
///
/// A row says what is, not what happened, so applying one twice, or an old one late, does no harm: entries keep the
/// number of their last change and older rows are passed over; of what is gone here no number is kept, so rows that were read before an answer
/// to our own change are known by that (`Namespace.isOutOfDate`). A row about something that we changed ourselves waits until the server
/// answered our change (`FeedApplier+Deferred.swift`): what a program wrote here must not jump back.
struct FeedApplier {
    let tree: Tree
    /// Whose rows these are: what belongs to another namespace by now is passed over.
    let namespace: Namespace
    var events: [KernelEvent] = []
    var nodes: [NodeID: Node] = [:]
    /// Rows that were read before an answer to a change of ours, which said that they are told again: until then, they do for what an entry names and
    /// is not here.
    private var outdated: [NodeID: Node] = [:]
    /// Where known files appeared.
    private var appeared: [InodeNumber: [Place]] = [:]

    private struct Place: Equatable { let parent: InodeNumber, name: String }

    init(tree: Tree, namespace: Namespace) { (self.tree, self.namespace) = (tree, namespace) }

    mutating func apply(entries: [Entry], nodes rows: [Node]) throws(FileSystemError) {
        let entries = entries.filter { !namespace.isOutOfDate($0) }
        let rows = rows.filter { node in
            let isCurrent = !namespace.isOutOfDate(node)
            if isCurrent { nodes[node.id] = node } else { outdated[node.id] = node }
            return isCurrent
        }
        for node in rows where !node.deleted {
            if let shared = node.shared {
                try junction(node, shared)
            } else if let inode = try tree.inode(of: node.id) {
                if inode.namespace == namespace.number { try update(inode, node) }
            } else {
                try renew(node)
            }
        }
        for entry in entries.sorted(by: { $0.sequence < $1.sequence }) { try apply(entry) }
        try removeStalePlaces()
        let removed = rows.filter(\.deleted)
        try tree.dropDeferred(naming: removed)
        for node in removed {
            if let inode = try tree.inode(of: node.id), inode.namespace == namespace.number { try delete(inode, node) }
        }
        if namespace.isHome { try noticeLoss() }
    }

    // MARK: Nodes

    private mutating func update(_ inode: Inode, _ node: Node) throws(FileSystemError) {
        guard node.sequence >= inode.sequence else { return }
        if try tree.isPending(inode) { return try wait(node) }
        if inode.isRegular, inode.links == 0 {      // its entry brings it back
            try tree.disown(inode)
            return try renew(node)
        }
        let content = node.version == inode.version ? nil : node.content
        let before = inode.attributes
        inode.assign(node)
        // Our changes of a folder's entries move its times, and the server does not know those yet that wait.
        if inode.isDirectory, try tree.isPending(entriesOf: inode.id) { (inode.modified, inode.changed) = (before.modified, before.changed) }
        inode.links = node.links
        inode.wasRemovedElsewhere = false
        if let content { try replaceContent(inode, node.version, content) }
        tree.markDirty(inode)
        if content != nil || inode.attributes != before { events.append(.inode(inode.number, data: content != nil)) }
        tree.releaseIfUnused(inode)
    }

    private func replaceContent(_ inode: Inode, _ version: VersionID?, _ content: Content) throws(FileSystemError) {
        inode.version = version
        inode.size = content.size
        inode.pagesValid = false
        if let packed = content.inline {
            guard let chunks = try? Manifest.unpack(packed), let slots = SlotTable(chunks) else { throw .notSupported }
            inode.pages = nil
            let file = inode.file ?? FileContent(size: content.size, slots: SlotTable(), cache: tree.cache, store: tree.segments)
            file.replace(size: content.size, slots: slots)
            if inode.file == nil { try tree.loadSavedState(file, inode) }
            inode.file = file
            tree.markContentDirty(inode)
        } else {
            inode.pages = content.pages ?? []
            if let file = inode.file {
                file.retire()
                tree.filesToRemove += file.takeAbandoned()
            }
            inode.file = nil
            tree.dirtyContents.removeAll { $0 === inode }
            try tree.change { rows in
                for table in ["manifests", "segments"] {
                    try rows.execute(sql: "DELETE FROM \(table) WHERE inode = ?", arguments: [Int64(inode.number.rawValue)])
                }
            }
        }
    }

    private mutating func delete(_ inode: Inode, _ node: Node) throws(FileSystemError) {
        if try tree.isPending(inode) { return try wait(node) }
        if inode.links > 0 { inode.wasRemovedElsewhere = true }
        inode.links = 0
        inode.sequence = node.sequence
        tree.markDirty(inode)
        while let (parent, name) = try tree.place(of: inode.number) { try removeEntry(parent, name, inode.number) }
        tree.releaseIfUnused(inode)
    }

    // MARK: Entries

    private mutating func apply(_ entry: Entry) throws(FileSystemError) {
        guard let parent = try tree.inode(of: entry.parent), parent.isDirectory, parent.hydration != .unknown, parent.namespace == namespace.number else { return }
        defer { tree.releaseIfUnused(parent) }
        if try tree.isPending(entry: entry.name, in: entry.parent) { return try wait(entry) }
        let current = try tree.database.read { database in
            try Row.fetchOne(
                database.cachedStatement(sql: "SELECT inode, sequence FROM entries WHERE parent = ? AND name = ?"),
                arguments: [Int64(parent.number.rawValue), entry.name]
            ).map { (inode: InodeNumber(rawValue: UInt64($0[0] as Int64)), sequence: $0[1] as Int64) }
        }
        if let current, current.sequence > entry.sequence { return }
        if entry.deleted {
            try staysAway(entry)
            guard let current, let inode = try tree.inode(of: entry.node), inode.number == current.inode else { return }
            // The folder itself was removed as a part of the home, before it became a shared one: that is over.
            if tree.isJunction(inode), namespace.isHome, inode.id == entry.node { return }
            return try removeEntry(parent.number, entry.name, current.inode)
        }
        var known = try tree.inode(of: entry.node)
        if let gone = known, gone.links == 0 { known = try bringBack(gone) }
        if let known, tree.isJunction(known), let lost = tree.namespaces[known.namespace], lost.isLost { return try comesBack(lost, entry, in: parent.number) }
        guard let inode = known == nil ? try newInode(for: entry.node) : known else { return try comesBack(entry, in: parent.number) }
        defer { tree.releaseIfUnused(inode) }
        if current?.inode == inode.number {
            try tree.change {
                try $0.execute(
                    sql: "UPDATE entries SET sequence = ? WHERE parent = ? AND name = ?", arguments: [entry.sequence, Int64(parent.number.rawValue), entry.name])
            }
            return
        }
        if inode.namespace != namespace.number, !tree.isJunction(inode) {
            // Moved here, or out of there, by a change that the server did not take.
            try tree.move(inode, to: namespace.number)
            inode.sequence = 0
            tree.markDirty(inode)
            if let node = nodes[entry.node] { try update(inode, node) }
        }
        if let current { try removeEntry(parent.number, entry.name, current.inode) }
        // A directory stands in one place: where it was before is gone, even if that row comes later.
        if inode.isDirectory, let (old, name) = try tree.place(of: inode.number) { try removeEntry(old, name, inode.number) }
        try tree.change { try MountedFileSystem.insertEntry($0, parent.number, entry.name, inode.number, sequence: entry.sequence) }
        if known != nil, !inode.isDirectory { appeared[inode.number, default: []].append(Place(parent: parent.number, name: entry.name)) }
        parent.directoryVersion += 1
        events.append(.entry(entry.name, in: parent.number))
    }

    /// What has no name here any more stands on the server all the same: an edit elsewhere won.
    ///
    /// A file is another inode from here on: whoever holds the old one open keeps what it has, as of any file that was unlinked, and what was
    /// written to it is sent to nobody. Only what was removed elsewhere and is being written here stays what it is: it meets the other edit on
    /// the server.
    /// - Returns: the node's inode; nil: it is to be made from the node's row.
    private mutating func bringBack(_ gone: Inode) throws(FileSystemError) -> Inode? {
        if gone.isRegular {
            let id = gone.id, row = nodes[id]
            guard gone.wasRemovedElsewhere, try tree.isPending(gone) else {
                try tree.disown(gone)
                guard row == nil else { return nil }
                // Its row comes later, and may have to wait; but what an entry names is there.
                let empty = tree.makeInode(id: id, in: gone.namespace, mode: gone.mode, uid: gone.uid, gid: gone.gid, time: gone.modified)
                tree.register(empty)
                return empty
            }
            if let row { try wait(row) }
        }
        gone.links = 1
        gone.wasRemovedElsewhere = false
        tree.markDirty(gone)
        events.append(.inode(gone.number, data: false))
        return gone
    }

    /// A file stands in as many places as the server counts, and in those that were told just now: the feed says no more of a place where a
    /// node stood that was removed and came back elsewhere.
    private mutating func removeStalePlaces() throws(FileSystemError) {
        for (number, told) in appeared {
            guard let inode = tree.inodes[number], let count = nodes[inode.id]?.links else { continue }
            let places = try tree.database.read { database in
                try Row.fetchAll(
                    database.cachedStatement(sql: "SELECT parent, name FROM entries WHERE inode = ? ORDER BY sequence"), arguments: [Int64(number.rawValue)]
                ).map { Place(parent: InodeNumber(rawValue: UInt64($0[0] as Int64)), name: $0[1]) }
            }
            guard places.count > count else { continue }
            // The server may not count those yet whose change is on its way.
            var settled: [Place] = []
            for place in places {
                if let parent = try? tree.inode(place.parent), try tree.isPending(entry: place.name, in: parent.id) { continue }
                settled.append(place)
            }
            for place in settled.filter({ !told.contains($0) }).prefix(max(0, settled.count - Int(count))) { try removeEntry(place.parent, place.name, number) }
        }
        appeared = [:]
    }

    mutating func removeEntry(_ parent: InodeNumber, _ name: String, _ child: InodeNumber) throws(FileSystemError) {
        if tree.namespaces.count > 1, let shared = tree.namespaces.values.first(where: { $0.root == child }) { shared.name = name }
        try tree.change { try MountedFileSystem.deleteEntry($0, parent, name) }
        if let directory = tree.inodes[parent] { directory.directoryVersion += 1 }
        events.append(.deleted(name, of: child, in: parent))
    }

    /// What an entry names, as the page tells it.
    func named(_ id: NodeID) -> Node? { nodes[id] ?? outdated[id] }

    /// The inode of a node that an entry names and that is new here, from the page's row.
    private mutating func newInode(for id: NodeID) throws(FileSystemError) -> Inode? {
        guard let node = named(id), !node.deleted, FileType(mode: node.mode) != nil else { return nil }
        if let shared = node.shared { return try root(of: shared, junction: id) }
        let inode = tree.makeInode(for: node, in: namespace.number)
        tree.register(inode)
        if let version = node.version, let content = node.content { try replaceContent(inode, version, content) }
        return inode
    }
}

extension Tree {
    /// Makes an unlinked file one that only those know who hold it open. Of what was changed here and is not on its way only the names still count.
    fileprivate func disown(_ inode: Inode) throws(FileSystemError) {
        let id = inode.id
        inode.id = .make()
        inode.wasRemovedElsewhere = false
        markDirty(inode)
        try change { rows in
            try rows.execute(sql: "UPDATE nodes SET id = ? WHERE inode = ?", arguments: [inode.id.data, Int64(inode.number.rawValue)])
            try rows.execute(
                sql: "DELETE FROM log WHERE node = ? AND kind IN (?, ?, ?) AND id > ?",
                arguments: [id.data, LogKind.setattr.rawValue, LogKind.xattr.rawValue, LogKind.content.rawValue, lastCut])
        }
    }

    /// What the rows hold of a content that takes a loaded one's place, so that saving it finds the differences.
    func loadSavedState(_ file: FileContent, _ inode: Inode) throws(FileSystemError) {
        let number = Int64(inode.number.rawValue)
        let (pages, segments) = try database.read { database in
            (try Int.fetchOne(database.cachedStatement(sql: "SELECT count(*) FROM manifests WHERE inode = ?"), arguments: [number]) ?? 0,
             try SegmentRow.fetchAll(database, inode: number))
        }
        file.savedPages = [Int](repeating: 0, count: pages)
        file.savedSegments = Dictionary(uniqueKeysWithValues: segments.map { ($0.start, $0.saved) })
        filesToRemove += segments.flatMap(\.files)
    }
}
