import Shared

/// Between paths and nodes, also of what is gone. A path's names are separated by `/`; the root's is empty.
enum TreePath {
    /// The names of a path.
    static func names(_ path: String) -> [String] { path.split(separator: "/").map(String.init) }

    /// Where a node is, or was last; nil for the root.
    static func lastPlace(_ sql: any SQLConnection, of node: NodeID) throws -> (parent: NodeID, name: String)? {
        // Where it was before it became part of another namespace does not count. (As a join, SQLite would go through the namespace's entries.)
        try sql.first("""
            SELECT e.parent, e.name FROM entries e
            WHERE e.node = $1 AND EXISTS (SELECT 1 FROM nodes n WHERE n.id = e.node AND n.namespace = e.namespace)
            ORDER BY CASE WHEN e.deleted_at IS NULL THEN 0 ELSE 1 END, e.deleted_at DESC, e.sequence DESC, e.id DESC LIMIT 1
            """, [.id(node)]).map { (try $0.id(0), $0.text(1) ?? "") }
    }

    static func path(_ sql: any SQLConnection, of node: NodeID) throws -> String {
        try above(sql, node).compactMap(\.name).reversed().joined(separator: "/")
    }

    /// The node and the folders above it, each with its name where it is or was last; the root has none. What is gone may have lain within
    /// each other at different times: the way up ends where it would repeat itself.
    static func above(_ sql: any SQLConnection, _ node: NodeID) throws -> [(node: NodeID, name: String?)] {
        var way: [(node: NodeID, name: String?)] = [], seen: Set<NodeID> = [], at = node
        while seen.insert(at).inserted {
            let place = try lastPlace(sql, of: at)
            way.append((at, place?.name))
            guard let place else { break }
            at = place.parent
        }
        return way
    }

    /// What lies at a path now; nil if nothing does.
    static func live(_ sql: any SQLConnection, _ path: String, from root: NodeID) throws -> NodeID? {
        var at = root
        for name in names(path) {
            guard let row = try sql.first(
                "SELECT node FROM entries WHERE parent = $1 AND name = $2 AND deleted_at IS NULL", [.id(at), .text(name)]) else { return nil }
            at = try row.id(0)
        }
        return at
    }

    /// What lies at a path now, otherwise what was removed there last, in a folder that may be gone too.
    static func latest(_ sql: any SQLConnection, _ path: String, from root: NodeID) throws -> NodeID? {
        var at = root
        for name in names(path) {
            let key: [SQLValue] = [.id(at), .text(name)]
            guard let row = try sql.first("SELECT node FROM entries WHERE parent = $1 AND name = $2 AND deleted_at IS NULL", key) ?? sql.first("""
                SELECT node FROM entries WHERE parent = $1 AND name = $2 AND deleted_at IS NOT NULL ORDER BY deleted_at DESC, sequence DESC LIMIT 1
                """, key) else { return nil }
            at = try row.id(0)
        }
        return at
    }

    /// What lay at a path at a time.
    static func past(_ sql: any SQLConnection, _ path: String, from root: NodeID, at time: Timestamp) throws -> NodeID? {
        var node = root
        for name in names(path) {
            guard let next = try children(sql, of: node, at: time).first(where: { $0.name == name }) else { return nil }
            node = next.node
        }
        return node
    }

    /// A folder's entries at a time.
    static func children(_ sql: any SQLConnection, of folder: NodeID, at time: Timestamp) throws -> [(name: String, node: NodeID)] {
        // The indexes hold living rows and dead ones apart.
        try sql.query("""
            SELECT name, node FROM entries WHERE parent = $1 AND created_at <= $2 AND deleted_at IS NULL
            UNION ALL SELECT name, node FROM entries WHERE parent = $1 AND created_at <= $2 AND deleted_at IS NOT NULL AND deleted_at > $2
            """, [.id(folder), .time(time)]).map { ($0.text(0) ?? "", try successor(sql, of: $0.id(1))) }
    }

    /// The node that took over the history of this one, and so on; the node itself where none did.
    static func successor(_ sql: any SQLConnection, of node: NodeID) throws -> NodeID {
        var at = node, seen: Set<NodeID> = []
        while seen.insert(at).inserted, let row = try sql.first("SELECT successor FROM nodes WHERE id = $1", [.id(at)]), !row.isNull(0) {
            at = try row.id(0)
        }
        return at
    }
}
