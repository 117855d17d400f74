import Foundation
import Shared

// Reading the tree and its changes.
extension Drive {
    static let maximumPage = 2000

    func node(_ session: Session, _ namespace: NamespaceID, _ id: NodeID) async throws(DriveError) -> Node {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            guard let row = try NodeRow.fetch(sql, id), row.namespace == namespace else { throw DriveError.notFound("There is no such node.") }
            return try Self.told(sql, row, to: session)
        }
    }

    /// A row as it travels: a junction says to what it leads.
    private static func told(_ sql: any SQLConnection, _ row: NodeRow, to session: Session) throws -> Node {
        var node = row.node(try NodeRow.content(sql, row.version))
        if let namespace = row.shared, row.deletedAt == nil, let role = try role(sql, session.account, namespace) {
            let shared = try sql.first("SELECT root, sequence FROM namespaces WHERE id = $1", [.id(namespace)])
            node.shared = try shared.map { SharedFolder(namespace: namespace, root: try $0.id(0), role: role, sequence: $0.int(1)) }
        }
        return node
    }

    /// The roots to which the junctions among the nodes lead.
    private static func roots(_ sql: any SQLConnection, of nodes: [Node]) throws -> [Node] {
        try nodes.compactMap { node in
            try node.shared.flatMap { try NodeRow.fetch(sql, $0.root) }.map { $0.node(nil) }
        }
    }

    func children(_ session: Session, _ namespace: NamespaceID, _ id: NodeID, after: String?, limit: Int) async throws(DriveError) -> TreePage {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            guard let row = try NodeRow.fetch(sql, id), row.namespace == namespace, row.isDirectory else { throw DriveError.notFound("There is no such directory.") }
            let count = min(max(limit, 1), Self.maximumPage)
            var page = TreePage(sequence: try Self.namespaceInformation(sql, namespace).sequence, entries: [], nodes: [], next: nil)
            if try Self.add(id, after: after ?? "", limit: count, to: &page, sql, session) == count { page.next = page.entries.last?.name }
            return page
        }
    }

    /// The children of as many of the directories, in their order, as fit a page: each of them whole.
    func children(_ session: Session, _ namespace: NamespaceID, of directories: [NodeID]) async throws(DriveError) -> ChildrenPage {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            var page = TreePage(sequence: try Self.namespaceInformation(sql, namespace).sequence, entries: [], nodes: [], next: nil)
            var listed: [NodeID] = []
            for id in directories {
                guard let row = try NodeRow.fetch(sql, id), row.namespace == namespace, row.isDirectory else { continue }
                let before = (page.entries.count, page.nodes.count), room = Self.maximumPage - before.0
                guard try Self.add(id, after: "", limit: room + 1, to: &page, sql, session) <= room else {
                    page.entries.removeSubrange(before.0...)
                    page.nodes.removeSubrange(before.1...)
                    break
                }
                listed.append(id)
            }
            return ChildrenPage(sequence: page.sequence, listed: listed, entries: page.entries, nodes: page.nodes)
        }
    }

    /// Adds a directory's live entries behind a name, with their nodes, each once in a page.
    /// - Returns: how many entries; `limit` of them when there may be more.
    private static func add(
        _ directory: NodeID, after: String, limit: Int, to page: inout TreePage, _ sql: any SQLConnection, _ session: Session
    ) throws -> Int {
        let rows = try sql.query(childrenQuery, [.id(directory), .text(after), .int(limit)])
        var hardLinks = Set<NodeID>()
        for row in rows {
            page.entries.append(try entry(row, deleted: false))
            let node = try NodeRow(SQLRow(values: Array(row.values[4..<4 + NodeRow.columnCount])))
            if node.shared != nil {
                let junction = try told(sql, node, to: session)
                page.nodes += try [junction] + roots(sql, of: [junction])
                continue
            }
            if node.links > 1, !hardLinks.insert(node.id).inserted || page.nodes.contains(where: { $0.id == node.id }) { continue }
            page.nodes.append(node.node(node.version == nil || row.isNull(4 + NodeRow.columnCount) ? nil : try NodeRow.content(row.values[(4 + NodeRow.columnCount)...])))
        }
        return rows.count
    }

    private static let childrenQuery = """
        SELECT entries.parent, entries.name, entries.node, entries.sequence, \(NodeRow.columns(of: "nodes")), versions.size, versions.inline, versions.pages
        FROM entries JOIN nodes ON nodes.id = entries.node LEFT JOIN versions ON versions.id = nodes.version
        WHERE entries.parent = $1 AND entries.name > $2 AND entries.deleted_at IS NULL ORDER BY entries.name LIMIT $3
        """

    /// The whole namespace, in the order of the entries' identifiers.
    func tree(_ session: Session, _ namespace: NamespaceID, after: String?, limit: Int) async throws(DriveError) -> TreePage {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            let count = min(max(limit, 1), Self.maximumPage)
            let start: Int64 = try after.map { text -> Int64 in
                guard let number = Int64(text) else { throw DriveError.badRequest("after is no cursor of this call.") }
                return number
            } ?? 0
            // By sequence: a page never repeats what an earlier one showed unless it changed since, which the feed would tell as well.
            let rows = try sql.query("""
                SELECT parent, name, node, sequence FROM entries WHERE namespace = $1 AND sequence > $2 AND deleted_at IS NULL ORDER BY sequence LIMIT $3
                """, [.id(namespace), .integer(start), .int(count + 16)])
            var entries = try rows.map { try Self.entry($0, deleted: false) }
            var next: String?
            if rows.count == count + 16, let last = entries.last?.sequence {
                entries.removeAll { $0.sequence == last }
                if entries.isEmpty {    // one operation changed more rows than fit a page
                    entries = try sql.query("""
                        SELECT parent, name, node, sequence FROM entries WHERE namespace = $1 AND sequence = $2 AND deleted_at IS NULL
                        """, [.id(namespace), .integer(last)]).map { try Self.entry($0, deleted: false) }
                }
                next = entries.last.map { String($0.sequence) }
            }
            return try Self.page(sql, session, namespace, entries, next: next)
        }
    }

    private static func entry(_ row: SQLRow, deleted: Bool) throws -> Entry {
        Entry(parent: try row.id(0), name: row.text(1) ?? "", node: try row.id(2), sequence: row.int(3), deleted: deleted)
    }

    private static func page(
        _ sql: any SQLConnection, _ session: Session, _ namespace: NamespaceID, _ entries: [Entry], next: String?
    ) throws -> TreePage {
        let nodes = try nodes(sql, session, of: entries, besides: [])
        return TreePage(
            sequence: try namespaceInformation(sql, namespace).sequence, entries: entries, nodes: nodes + (try roots(sql, of: nodes)), next: next)
    }

    /// The nodes that live entries name, each once.
    private static func nodes(_ sql: any SQLConnection, _ session: Session, of entries: [Entry], besides known: Set<NodeID>) throws -> [Node] {
        var seen = known
        return try entries.compactMap { entry in
            guard !entry.deleted, seen.insert(entry.node).inserted, let row = try NodeRow.fetch(sql, entry.node) else { return nil }
            return try told(sql, row, to: session)
        }
    }

    /// One page for each namespace that the caller may read and that has news; the first is told anyway, as it says which server this is.
    func follow(_ session: Session, _ request: FollowRequest) async throws(DriveError) -> FollowAnswer {
        var pages: [FollowAnswer.Page] = []
        for cursor in request.cursors {
            do throws(DriveError) {
                let page = try await changes(session, cursor.namespace, after: cursor.after, limit: request.limit)
                if pages.isEmpty || page.cursor != cursor.after || !page.entries.isEmpty || !page.nodes.isEmpty {
                    pages.append(FollowAnswer.Page(namespace: cursor.namespace, page: page))
                }
            } catch {
                guard case .notFound = error else { throw error }
            }
        }
        return FollowAnswer(pages: pages)
    }

    func changes(_ session: Session, _ namespace: NamespaceID, after: Int64, limit: Int) async throws(DriveError) -> ChangePage {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            let information = try Self.namespaceInformation(sql, namespace, for: session)
            let (identity, epoch) = try Self.identity(sql)
            let count = min(max(limit, 100), Self.maximumPage)
            var entryRows = try sql.query("""
                SELECT parent, name, node, sequence, deleted_at FROM entries WHERE namespace = $1 AND sequence > $2 ORDER BY sequence LIMIT $3
                """, [.id(namespace), .integer(after), .int(count)])
            var nodeRows = try sql.query(
                "SELECT \(NodeRow.columns) FROM nodes WHERE namespace = $1 AND sequence > $2 ORDER BY sequence LIMIT $3",
                [.id(namespace), .integer(after), .int(count)])
            // Rows of one operation share its number: a page ends before a number that it may not show whole.
            var end = Int64.max
            if entryRows.count == count, let last = entryRows.last { end = min(end, last.int(3)) }
            if nodeRows.count == count, let last = nodeRows.last { end = min(end, last.int(2)) }
            // One number may have more rows than fit a page: then all of it, and nothing else.
            let first = min(entryRows.first?.int(3) ?? .max, nodeRows.first?.int(2) ?? .max)
            if first == end, end != .max {
                let key: [SQLValue] = [.id(namespace), .integer(first)]
                entryRows = try sql.query("SELECT parent, name, node, sequence, deleted_at FROM entries WHERE namespace = $1 AND sequence = $2", key)
                nodeRows = try sql.query("SELECT \(NodeRow.columns) FROM nodes WHERE namespace = $1 AND sequence = $2", key)
                end = first + 1
            }
            let entries = try entryRows.filter { $0.int(3) < end }.map { try Self.entry($0, deleted: !$0.isNull(4)) }
            var nodes = try nodeRows.filter { $0.int(2) < end }.map { row in
                try Self.told(sql, try NodeRow(row), to: session)
            }
            nodes += try Self.nodes(sql, session, of: entries, besides: Set(nodes.map(\.id)))
            nodes += try Self.roots(sql, of: nodes)
            return ChangePage(
                identity: identity, epoch: epoch, cursor: end == .max ? information.sequence : end - 1, more: end != .max, entries: entries,
                nodes: nodes, quota: information.quota, used: information.used)
        }
    }
}
