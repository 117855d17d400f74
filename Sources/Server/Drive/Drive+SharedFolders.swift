import Shared

// A folder of a home becomes a namespace of its own, in place: nodes keep their identity, numbers and history, and in the home a junction
// stands under the folder's name.
extension Drive {
    /// Makes the folder at a path a shared one; nothing changes when it is one.
    func share(_ session: Session, _ namespace: NamespaceID, _ path: String) async throws(DriveError) -> Share {
        try await share(session) { sql, touched in
            try Self.require(.owner, sql, session, namespace)
            guard namespace == session.home else {
                throw DriveError.badRequest("A folder inside a shared folder cannot be shared by itself: share the whole folder, or move this one out of it.")
            }
            let split = NamespaceSplit(try Committer(sql, session, namespace, Self.nothing(session), self.now()), path)
            let (shared, sequence) = try split.run()
            touched.append((namespace, sequence))
            return try Self.share(sql, session, shared)
        }
    }

    /// A request that the server makes up to change something itself.
    static func nothing(_ session: Session) -> CommitRequest {
        CommitRequest(commit: .make(), upload: nil, device: session.deviceName, operations: [])
    }

    /// Runs `body` in one transaction; those who follow the namespaces that it adds to its list are told afterwards.
    func share<T: Sendable>(
        _ session: Session, _ body: @escaping @Sendable (any SQLConnection, inout [(NamespaceID, Int64)]) throws -> T
    ) async throws(DriveError) -> T {
        let (value, touched) = try await write { sql -> (T, [(NamespaceID, Int64)]) in
            var touched: [(NamespaceID, Int64)] = []
            return (try body(sql, &touched), touched)
        }
        for (namespace, sequence) in touched { onCommit(namespace, sequence) }
        return value
    }
}

/// The rows of one subtree on their way to a namespace of their own, within a transaction.
private struct NamespaceSplit {
    private let committer: Committer, path: String
    private let namespace = NamespaceID.make()
    private var sql: any SQLConnection { committer.sql }

    init(_ committer: Committer, _ path: String) { (self.committer, self.path) = (committer, path) }

    /// - Returns: the folder's namespace, and the home's number afterwards.
    func run() throws -> (NamespaceID, Int64) {
        let folder = try folder()
        if let known = folder.shared { return (known, committer.sequence) }
        try collect(folder.id)
        try checkLinks(folder.id)
        committer.step()
        try sql.execute("""
            INSERT INTO namespaces (id, root, sequence, quota, used, nodes, settings)
            SELECT $1, $2, $3, NULL, 0, 0, settings FROM namespaces WHERE id = $4
            """, [.id(namespace), .id(folder.id), .integer(committer.sequence), .id(committer.namespace)])
        try sql.execute(
            "INSERT INTO members (namespace, account, role) VALUES ($1, $2, $3)",
            [.id(namespace), .id(committer.session.account), .text(Role.owner.rawValue)])
        try putJunction(folder)
        try moveTree()
        try moveHistory()
        try sql.execute("DELETE FROM moving", [])
        try committer.finish()
        for place in [committer.namespace, namespace] {
            try Drive.audit(
                sql, committer.time, committer.session.account, device: committer.session.deviceName, address: committer.session.address, "shared",
                place, node: folder.id, path: place == namespace ? "" : path)
        }
        return (namespace, committer.sequence)
    }

    private func folder() throws -> NodeRow {
        let names = TreePath.names(path)
        guard !names.isEmpty else { throw DriveError.badRequest("The whole tree cannot be shared: share a folder in it.") }
        var at = committer.root
        for (index, name) in names.enumerated() {
            guard let entry = try committer.entry(at, name), let row = try committer.node(entry.node) else { throw DriveError.notFound("There is no folder \(path).") }
            at = row.id
            if index == names.count - 1 {
                guard row.isDirectory else { throw DriveError.badRequest("Only folders are shared; of a file, make a link: boxfs link create.") }
                if row.shared == nil, let inner = try committer.sharedFolder(below: row.id) {
                    throw DriveError.badRequest("\(path) holds the shared folder \(try TreePath.path(sql, of: inner)): move that out of it first.")
                }
                return row
            }
            guard row.shared == nil else {
                let outer = names.prefix(index + 1).joined(separator: "/")
                throw DriveError.badRequest("\(path) lies in the shared folder \(outer): share the whole of that, or move this one out of it.")
            }
        }
        throw DriveError.notFound("There is no folder \(path).")
    }

    /// The folder, what lies below it, and what was there last before it was removed.
    private func collect(_ folder: NodeID) throws {
        try sql.execute("DELETE FROM moving", [])
        try sql.execute("""
            INSERT INTO moving (node) WITH RECURSIVE below (id) AS (
                SELECT id FROM nodes WHERE id = $1 UNION
                SELECT e.node FROM below b JOIN entries e ON e.parent = b.id AND e.namespace = $2 JOIN nodes n ON n.id = e.node AND n.namespace = $2
                WHERE e.deleted_at IS NULL OR n.deleted_at IS NOT NULL AND NOT EXISTS (
                    SELECT 1 FROM entries l WHERE l.node = e.node AND l.namespace = $2 AND (l.deleted_at > e.deleted_at OR l.deleted_at = e.deleted_at
                    AND (l.sequence > e.sequence OR l.sequence = e.sequence AND l.id > e.id))))
            SELECT id FROM below
            """, [.id(folder), .id(committer.namespace)])
    }

    /// A file has one namespace: hard links to it cannot stand in two.
    private func checkLinks(_ folder: NodeID) throws {
        guard let outside = try sql.first("""
            SELECT e.parent, e.name, e.node FROM moving m JOIN entries e ON e.node = m.node WHERE e.deleted_at IS NULL AND e.node <> $1
            AND NOT EXISTS (SELECT 1 FROM moving p WHERE p.node = e.parent) LIMIT 1
            """, [.id(folder)]) else { return }
        var paths = LastPaths(sql, committer.root)
        throw DriveError.badRequest("""
            \(try paths.path(of: try outside.id(0), outside.text(1) ?? "")) is a hard link to a file in \(path): remove one of the two, or copy it, and share \
            the folder then.
            """)
    }

    /// The entry stays and leads to the junction from now on: nothing in the home's feed says that the folder was removed.
    private func putJunction(_ folder: NodeRow) throws {
        var junction = folder
        junction.id = .make()
        (junction.shared, junction.links, junction.arrived) = (namespace, 1, committer.time)
        (junction.xattrs, junction.version) = ([:], nil)
        committer.putNew(junction)
        try sql.execute(
            "UPDATE entries SET node = $1, sequence = $2 WHERE node = $3 AND namespace = $4 AND deleted_at IS NULL",
            [.id(junction.id), .integer(committer.sequence), .id(folder.id), .id(committer.namespace)])
    }

    private func moveTree() throws {
        let home = SQLValue.id(committer.namespace), new = SQLValue.id(namespace)
        let living = try sql.first("SELECT count(*) FROM moving m JOIN nodes n ON n.id = m.node WHERE n.deleted_at IS NULL", [])?.int(0) ?? 0
        committer.letGo(living)
        let ledger = ChunkLedger(sql, namespace)
        for row in try sql.query("SELECT v.id FROM moving m JOIN versions v ON v.node = m.node", []) {
            try committer.ledger.move(try row.id(0), to: ledger)
        }
        try sql.execute("UPDATE namespaces SET used = $1, nodes = $2 WHERE id = $3", [.integer(try ledger.settle()), .integer(living), new])
        try sql.execute("UPDATE nodes SET namespace = $1 WHERE id IN (SELECT node FROM moving)", [new])
        try sql.execute("UPDATE entries SET namespace = $1 WHERE namespace = $2 AND parent IN (SELECT node FROM moving)", [new, home])
        try sql.execute("UPDATE links SET namespace = $1 WHERE namespace = $2 AND node IN (SELECT node FROM moving)", [new, home])
    }

    private func moveHistory() throws {
        let home = SQLValue.id(committer.namespace), new = SQLValue.id(namespace)
        // Who took over whose versions is told within a namespace only.
        try sql.execute("""
            UPDATE nodes SET successor = NULL WHERE successor IS NOT NULL AND id IN (SELECT node FROM moving) AND successor NOT IN (SELECT node FROM moving)
            """, [])
        try sql.execute("UPDATE nodes SET successor = NULL WHERE namespace = $1 AND successor IN (SELECT node FROM moving)", [home])
        try sql.execute("UPDATE recent_changes SET namespace = $1 WHERE namespace = $2 AND node IN (SELECT node FROM moving)", [new, home])
        try sql.execute("""
            UPDATE conflicts SET namespace = $1 WHERE namespace = $2 AND node IN (SELECT node FROM moving) AND copy IN (SELECT node FROM moving)
            """, [new, home])
        try sql.execute("""
            UPDATE conflicts SET resolved_at = $1 WHERE namespace = $2 AND resolved_at IS NULL
            AND (node IN (SELECT node FROM moving) OR copy IN (SELECT node FROM moving))
            """, [.time(committer.time), home])
        for row in try sql.query("""
            SELECT DISTINCT e.id, e.folder, CASE WHEN f.node IS NULL THEN 0 ELSE 1 END FROM events e JOIN event_changes c ON c.event = e.id
            JOIN moving m ON m.node = c.node LEFT JOIN moving f ON f.node = e.folder WHERE e.namespace = $1
            """, [home]) {
            // A mass change that reached beyond the folder becomes two, each of which can be taken back.
            let isInside = row.int(2) == 1
            let event: EventID = isInside ? try row.id(0) : .make()
            let folder: NodeID = isInside ? try row.id(1) : try sql.first("SELECT root FROM namespaces WHERE id = $1", [new])!.id(0)
            if !isInside {
                try sql.execute("""
                    INSERT INTO events (id, namespace, account, device, device_name, folder, path, started, last, undone_at)
                    SELECT $1, $2, account, device, device_name, $3, '', started, last, undone_at FROM events WHERE id = $4
                    """, [.id(event), new, .id(folder), row.values[0]])
                try sql.execute(
                    "UPDATE event_changes SET event = $1 WHERE event = $2 AND node IN (SELECT node FROM moving)", [.id(event), row.values[0]])
            }
            try sql.execute(
                "UPDATE events SET namespace = $1, path = $2 WHERE id = $3", [new, .text(try TreePath.path(sql, of: folder)), .id(event)])
        }
    }
}
