import GRDB
import Shared

// Rows of the home's feed that speak of shared folders.
extension FeedApplier {
    private func known(_ id: NamespaceID) -> Namespace? { tree.namespaces.values.first { $0.id == id } }

    func isNew(_ shared: SharedFolder) -> Bool { known(shared.namespace) == nil }

    /// A living junction: its role may be another, or a folder that stands here became a shared one, in place.
    mutating func junction(_ node: Node, _ shared: SharedFolder) throws(FileSystemError) {
        if let known = known(shared.namespace) {
            guard !known.isLost, known.role != shared.role else { return }
            known.role = shared.role
            try tree.save(known)
            if known.isReadOnly, try tree.hasUnsent(known) { try giveUp(known) }
            return
        }
        guard namespace.isHome, let root = try tree.inode(of: shared.root), root.namespace == namespace.number else { return }
        // Its rows keep their numbers in the new namespace. What the home's feed told to the end had them still; after that they may
        // have been on the other side already.
        let fresh = Namespace(
            number: try tree.nextNamespace(), id: shared.namespace, root: root.number, junction: node.id, role: shared.role, cursor: namespace.caughtUp)
        try tree.save(fresh)
        try tree.move(root, to: fresh.number)
        // It changed hands while this mount was away: what was changed here meanwhile cannot stay in it.
        if fresh.isReadOnly { try giveUp(fresh) }
    }

    /// The root of a shared folder that is new here.
    mutating func root(of shared: SharedFolder, junction: NodeID) throws(FileSystemError) -> Inode? {
        // One that is being left is listed again when that is done.
        guard namespace.isHome, isNew(shared), let node = nodes[shared.root] else { return nil }
        let number = try tree.nextNamespace()
        let inode = tree.makeInode(for: node, in: number)
        tree.register(inode)
        try tree.save(Namespace(
            number: number, id: shared.namespace, root: inode.number, junction: junction, role: shared.role, cursor: shared.sequence))
        return inode
    }

    /// The right was taken and given again before this mount had left the folder: it is listed again when that is done.
    func comesBack(_ entry: Entry, in parent: InodeNumber) throws(FileSystemError) {
        if let shared = nodes[entry.node]?.shared, let known = known(shared.namespace) { try comesBack(known, entry, in: parent) }
    }

    func comesBack(_ lost: Namespace, _ entry: Entry, in parent: InodeNumber) throws(FileSystemError) {
        lost.comesBack = Namespace.Return(directory: parent, junction: entry.node, isGivenAgain: lost.comesBack?.isGivenAgain ?? true)
        try tree.save(lost)
    }

    /// What was to come back was taken away before this mount had left the folder.
    func staysAway(_ entry: Entry) throws(FileSystemError) {
        guard tree.namespaces.count > 1, let known = tree.namespaces.values.first(where: { $0.comesBack?.junction == entry.node }) else { return }
        known.comesBack = nil
        try tree.save(known)
    }

    /// Unsent changes of a folder that may only be read cannot stay in it: it is left, and comes anew.
    private mutating func giveUp(_ shared: Namespace) throws(FileSystemError) {
        shared.isLost = true
        guard let (parent, name) = try tree.place(of: shared.root), let junction = shared.junction else { return try tree.save(shared) }
        shared.name = name
        shared.comesBack = Namespace.Return(directory: parent, junction: junction, isGivenAgain: false)
        try tree.save(shared)
        try removeEntry(parent, name, shared.root)
    }

    /// A shared folder whose junction is gone is no longer to be read.
    func noticeLoss() throws(FileSystemError) {
        for shared in tree.namespaces.values where !shared.isHome && !shared.isLost {
            guard try tree.place(of: shared.root) == nil else { continue }
            shared.isLost = true
            try tree.save(shared)
        }
    }
}

extension Tree {
    /// Numbers are never given twice: what still speaks of a namespace that was left must not mean another.
    func nextNamespace() throws(FileSystemError) -> Int64 {
        try database.read { try Int64.fetchOne($0, sql: "SELECT seq FROM sqlite_sequence WHERE name = 'namespaces'") ?? Namespace.home } + 1
    }

    func hasUnsent(_ namespace: Namespace) throws(FileSystemError) -> Bool {
        if inodes.values.contains(where: { $0.namespace == namespace.number && $0.hasUnloggedWrites }) { return true }
        return try database.read { try Int64.fetchOne($0, sql: "SELECT 1 FROM log WHERE namespace = ? LIMIT 1", arguments: [namespace.number]) } != nil
    }
}
