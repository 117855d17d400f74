import Foundation
import GRDB
import Shared

/// Applies rows of the change feed, and of listings, to the tree. Under `Tree.lock` from first to last.
///
/// A row says what is, not what happened, so applying one twice, or an old one late, does no harm: entries keep the
/// number of their last change and older rows are passed over. A row about something that we changed ourselves waits in the table
/// `deferred` until the server answered our change: what a program wrote here must not jump back.
struct FeedApplier {
    let tree: Tree
    /// Whose rows these are: what belongs to another namespace by now is passed over.
    let namespace: Namespace
    var events: [KernelEvent] = []
    var nodes: [NodeID: Node] = [:]

    init(tree: Tree, namespace: Namespace) { (self.tree, self.namespace) = (tree, namespace) }

    mutating func apply(entries: [Entry], nodes rows: [Node]) throws(FileSystemError) {
        for node in rows { nodes[node.id] = node }
        for node in rows where !node.deleted {
            if let shared = node.shared {
                try junction(node, shared)
            } else if let inode = try tree.inode(of: node.id), inode.namespace == namespace.number {
                try update(inode, node)
            }
        }
        for entry in entries.sorted(by: { $0.sequence < $1.sequence }) { try apply(entry) }
        for node in rows where node.deleted {
            if let inode = try tree.inode(of: node.id), inode.namespace == namespace.number { try delete(inode, node) }
        }
        if namespace.isHome { try noticeLoss() }
    }

    // MARK: Nodes

    private mutating func update(_ inode: Inode, _ node: Node) throws(FileSystemError) {
        guard node.sequence >= inode.sequence else { return }
        if try tree.isPending(inode) { return try wait(node) }
        let isNew = node.content != nil && node.version != inode.version
        // The content of what was removed here may be forgotten already.
        let dataChanged = inode.isRegular && (isNew || inode.links == 0)
        let before = inode.attributes
        inode.assign(node)
        inode.links = node.links
        if dataChanged { try replaceContent(inode, node.version, node.content ?? .empty) }
        tree.markDirty(inode)
        if dataChanged || inode.attributes != before { events.append(.inode(inode.number, data: dataChanged)) }
        tree.releaseIfUnused(inode)
    }

    private func replaceContent(_ inode: Inode, _ version: VersionID?, _ content: Content) throws(FileSystemError) {
        inode.version = version
        inode.size = content.size
        inode.pagesValid = false
        if let packed = content.inline {
            guard let chunks = try? Manifest.unpack(packed), let slots = FileContent.slots(of: chunks) else { throw .notSupported }
            inode.pages = nil
            let file = inode.file ?? FileContent(size: content.size, slots: [], cache: tree.cache, store: tree.segments)
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
            try tree.change { database in
                for table in ["manifests", "segments"] {
                    try database.cachedStatement(sql: "DELETE FROM \(table) WHERE inode = ?").execute(arguments: [Int64(inode.number.rawValue)])
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
            guard let current, let inode = try tree.inode(of: entry.node), inode.number == current.inode else { return }
            // The folder itself was removed as a part of the home, before it became a shared one: that is over.
            if tree.isJunction(inode), namespace.isHome, inode.id == entry.node { return }
            return try removeEntry(parent.number, entry.name, current.inode)
        }
        guard let inode = try inode(for: entry.node) else { return comesBack(entry, in: parent.number) }
        defer { tree.releaseIfUnused(inode) }
        if current?.inode == inode.number {
            try tree.change {
                try $0.cachedStatement(sql: "UPDATE entries SET sequence = ? WHERE parent = ? AND name = ?")
                    .execute(arguments: [entry.sequence, Int64(parent.number.rawValue), entry.name])
            }
            return
        }
        if inode.namespace != namespace.number, !tree.isJunction(inode) {
            // Moved here, or out of there, by a change that the server did not take.
            try tree.move(inode, to: namespace.number)
            inode.sequence = 0
            if let node = nodes[entry.node] { try update(inode, node) }
        }
        if let current { try removeEntry(parent.number, entry.name, current.inode) }
        // A directory stands in one place: where it was before is gone, even if that row comes later.
        if inode.isDirectory, let (old, name) = try tree.place(of: inode.number) { try removeEntry(old, name, inode.number) }
        try tree.change { try MountedFileSystem.insertEntry($0, parent.number, entry.name, inode.number, sequence: entry.sequence) }
        if inode.links == 0 { try revive(inode) }
        parent.directoryVersion += 1
        events.append(.entry(entry.name, in: parent.number))
    }

    /// What was removed here stands on the server all the same: an edit elsewhere won. Its rows may be gone by now, those of its content too,
    /// and its node's row may have to wait; but what an entry names is there.
    private mutating func revive(_ inode: Inode) throws(FileSystemError) {
        inode.links = 1
        inode.wasRemovedElsewhere = false
        if inode.isRegular, let node = nodes[inode.id] { try replaceContent(inode, node.version, node.content ?? .empty) }
        tree.markDirty(inode)
        events.append(.inode(inode.number, data: true))
    }

    mutating func removeEntry(_ parent: InodeNumber, _ name: String, _ child: InodeNumber) throws(FileSystemError) {
        if tree.namespaces.count > 1, let shared = tree.namespaces.values.first(where: { $0.root == child }) { shared.name = name }
        try tree.change { try MountedFileSystem.deleteEntry($0, parent, name) }
        if let directory = tree.inodes[parent] { directory.directoryVersion += 1 }
        events.append(.deleted(name, of: child, in: parent))
    }

    /// The inode of a node that an entry names; made from the page's row if it is new here.
    private mutating func inode(for id: NodeID) throws(FileSystemError) -> Inode? {
        if let inode = try tree.inode(of: id) { return inode }
        guard let node = nodes[id], !node.deleted, FileType(mode: node.mode) != nil else { return nil }
        if let shared = node.shared { return try root(of: shared, junction: id) }
        let inode = tree.makeInode(for: node, in: namespace.number)
        tree.register(inode)
        if let version = node.version, let content = node.content { try replaceContent(inode, version, content) }
        return inode
    }

    // MARK: Waiting for our own answers

    private enum Kind: Int64 { case node = 1, entry = 2 }

    private func wait(_ node: Node) throws(FileSystemError) { try wait(.node, node.id.data, node.sequence, node) }

    private func wait(_ entry: Entry) throws(FileSystemError) {
        try wait(.entry, entry.parent.data + Data(entry.name.utf8), entry.sequence, entry)
        if !entry.deleted, let node = nodes[entry.node] { try wait(node) }
    }

    private func wait(_ kind: Kind, _ key: Data, _ sequence: Int64, _ row: some Encodable) throws(FileSystemError) {
        try tree.change { database in
            let packed = try JSONEncoder().encode(row)
            try database.cachedStatement(sql: """
                INSERT INTO deferred (namespace, kind, key, sequence, row) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (kind, key) DO UPDATE SET namespace = excluded.namespace, sequence = excluded.sequence, row = excluded.row
                WHERE excluded.sequence >= sequence OR excluded.namespace <> namespace
                """).execute(arguments: [namespace.number, kind.rawValue, key, sequence, packed])
        }
    }

    /// Tries all rows that wait; those whose reason to wait still stands wait on.
    mutating func applyDeferred() throws(FileSystemError) {
        let rows = try tree.database.read { database in
            try Row.fetchAll(database, sql: "SELECT kind, row FROM deferred WHERE namespace = ?", arguments: [namespace.number]).map { (kind: $0[0] as Int64, row: $0[1] as Data) }
        }
        guard !rows.isEmpty else { return }
        try tree.change { try $0.execute(sql: "DELETE FROM deferred WHERE namespace = ?", arguments: [namespace.number]) }
        let decoder = JSONDecoder()
        try apply(
            entries: rows.filter { $0.kind == Kind.entry.rawValue }.compactMap { try? decoder.decode(Entry.self, from: $0.row) },
            nodes: rows.filter { $0.kind == Kind.node.rawValue }.compactMap { try? decoder.decode(Node.self, from: $0.row) })
    }
}

extension Tree {
    /// What the rows hold of a content that takes a loaded one's place, so that saving it finds the differences.
    func loadSavedState(_ file: FileContent, _ inode: Inode) throws(FileSystemError) {
        let number = Int64(inode.number.rawValue)
        let (pages, segments) = try database.read { database in
            (try Int.fetchOne(database.cachedStatement(sql: "SELECT count(*) FROM manifests WHERE inode = ?"), arguments: [number]) ?? 0,
             try Row.fetchAll(database.cachedStatement(sql: "SELECT slot, file, length FROM segments WHERE inode = ?"), arguments: [number])
                .map { (Int($0[0] as Int64), FileContent.SavedSegment(file: $0[1], length: Int($0[2] as Int64))) })
        }
        file.savedPages = [Int](repeating: 0, count: pages)
        file.savedSegments = Dictionary(uniqueKeysWithValues: segments)
        filesToRemove += segments.map(\.1.file)
    }
}
