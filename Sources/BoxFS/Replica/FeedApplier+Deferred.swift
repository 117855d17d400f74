import Foundation
import GRDB
import Shared

// Rows of the feed about what we changed ourselves wait, in the table `deferred`, until the server answered.
//
// Invariants: of an entry (parent, name, node) and of a node the newest row waits, no other; a row waits no longer than its reason, and is
// taken under the lock under which the reason went, or dropped there if the answered commit spoke of the same: then the feed tells it anew.
extension FeedApplier {
    fileprivate enum Kind: Int64 { case node = 1, entry = 2 }

    func wait(_ node: Node) throws(FileSystemError) { try wait(.node, node.id.data, node.sequence, node) }

    func wait(_ entry: Entry) throws(FileSystemError) {
        try wait(.entry, entry.parent.data + Data(entry.name.utf8) + entry.node.data, entry.sequence, entry)
        guard !entry.deleted, let node = named(entry.node) else { return }
        try wait(node)
        // A junction is nothing without the root of what it stands for.
        if let shared = node.shared, isNew(shared), let root = nodes[shared.root] { try wait(root) }
    }

    /// A node that is not here may wait with the entry that names it: the newer row takes the older one's place.
    func renew(_ node: Node) throws(FileSystemError) {
        let isWaiting = try tree.database.read { database in
            try Int64.fetchOne(
                database.cachedStatement(sql: "SELECT 1 FROM deferred WHERE kind = ? AND key = ?"), arguments: [Kind.node.rawValue, node.id.data]) != nil
        }
        if isWaiting { try wait(node) }
    }

    private func wait(_ kind: Kind, _ key: Data, _ sequence: Int64, _ row: some Encodable) throws(FileSystemError) {
        try tree.change { rows in
            let packed = try JSONEncoder().encode(row)
            try rows.execute(sql: """
                INSERT INTO deferred (namespace, kind, key, sequence, row) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (kind, key) DO UPDATE SET namespace = excluded.namespace, sequence = excluded.sequence, row = excluded.row
                WHERE excluded.sequence >= sequence OR excluded.namespace <> namespace
                """, arguments: [namespace.number, kind.rawValue, key, sequence, packed])
        }
    }

    /// Tries all rows that wait; those whose reason to wait still stands wait on.
    mutating func applyDeferred() throws(FileSystemError) {
        let rows = try tree.deferred(of: namespace.number)
        guard !rows.isEmpty else { return }
        try tree.change { try $0.execute(sql: "DELETE FROM deferred WHERE namespace = ?", arguments: [namespace.number]) }
        try apply(entries: rows.compactMap(\.entry), nodes: rows.compactMap(\.node))
    }
}

/// What the operations of a commit spoke of: the feed tells all of it again under the commit's numbers.
struct SpokenOf: Sendable {
    private let parents: [String: Set<NodeID>]
    private let nodes: Set<NodeID>

    init(_ operations: [Shared.Operation]) {
        let spokenOf = operations.map(\.spokenOf)
        parents = Dictionary(grouping: spokenOf.flatMap(\.names), by: \.name).mapValues { Set($0.map(\.parent)) }
        nodes = Set(spokenOf.flatMap(\.nodes))
    }

    func contains(_ entry: Entry) -> Bool { parents[entry.name]?.contains(entry.parent) ?? false }
    func contains(_ node: Node) -> Bool { nodes.contains(node.id) }
}

/// A row that waits: one of both.
struct DeferredRow {
    let namespace: Int64, kind: Int64, key: Data, sequence: Int64
    let entry: Entry?, node: Node?

    var about: NodeID? { entry?.node ?? node?.id }
}

extension Tree {
    fileprivate func deferred(of namespace: Int64? = nil) throws(FileSystemError) -> [DeferredRow] {
        let decoder = JSONDecoder()
        return try database.read { database in
            try Row.fetchAll(database.cachedStatement(
                sql: "SELECT namespace, kind, key, sequence, row FROM deferred WHERE ?1 IS NULL OR namespace = ?1"), arguments: [namespace]
            ).map { row in
                let isEntry = row[1] == FeedApplier.Kind.entry.rawValue
                return DeferredRow(
                    namespace: row[0], kind: row[1], key: row[2], sequence: row[3],
                    entry: isEntry ? try? decoder.decode(Entry.self, from: row[4] as Data) : nil,
                    node: isEntry ? nil : try? decoder.decode(Node.self, from: row[4] as Data))
            }
        }
    }

    private func drop(_ rows: [DeferredRow]) throws(FileSystemError) {
        for row in rows {
            try change { try $0.execute(sql: "DELETE FROM deferred WHERE kind = ? AND key = ?", arguments: [row.kind, row.key]) }
        }
    }

    /// Nodes are gone: older rows that wait and say where they stand are out of date, and the feed may say no more of those places.
    func dropDeferred(naming removed: [Node]) throws(FileSystemError) {
        guard !removed.isEmpty else { return }
        let sequences = Dictionary(removed.map { ($0.id, $0.sequence) }, uniquingKeysWith: max)
        try drop(try deferred().filter { row in row.about.flatMap { sequences[$0] }.map { row.sequence < $0 } ?? false })
    }

    /// Drops the rows that wait and that an answered commit spoke of, if they are old enough.
    func dropDeferred(_ spokenOf: SpokenOf, where isOld: (DeferredRow) -> Bool) throws(FileSystemError) {
        try drop(try deferred().filter { row in isOld(row) && (row.entry.map(spokenOf.contains) ?? row.node.map(spokenOf.contains) ?? true) })
    }

    /// Takes the rows of all namespaces whose reason to wait is gone.
    func applyDeferred() throws(FileSystemError) -> [KernelEvent] {
        var events: [KernelEvent] = []
        for namespace in namespacesHomeFirst {
            var applier = FeedApplier(tree: self, namespace: namespace)
            try applier.applyDeferred()
            events += applier.events
        }
        return willTell(events)
    }
}
