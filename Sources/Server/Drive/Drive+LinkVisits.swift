import Shared

/// How a visitor shows that a link's password is known.
enum LinkProof: Sendable, Hashable {
    case none, password(String)
    /// `LinkRow.proof`, from an earlier visit.
    case cookie(String)
}

/// A visitor who may be here: acts with the rights of who made the link, within what it leads to.
struct LinkVisit: Sendable {
    let link: LinkRow
    /// The link's maker.
    let session: Session
    let node: NodeRow
    /// Of what the link leads to.
    let name: String
}

// What visitors of links do. The order of the checks is the promise: a link that has ended says so before anything else, so that it
// tells nobody whether the file is still there.
extension Drive {
    static let linkDeviceName = "link"
    /// Seconds for which a download that was counted may go on.
    private static let ticketSeconds: Int64 = 86_400

    /// - Parameter endsExhausted: false to let in who may hold a ticket of an earlier download.
    /// - Throws: `.notFound`, `.linkEnded`, `.linkPassword`.
    func visit(_ token: String, _ proof: LinkProof, endsExhausted: Bool = true) async throws(DriveError) -> LinkVisit {
        let time = now(), hash = Self.tokenHash(token)
        let (link, session) = try await read { sql -> (LinkRow, Session) in
            guard let row = try sql.first("SELECT \(LinkRow.columns) FROM links WHERE token = $1", [.hash(hash)]) else {
                throw DriveError.notFound("There is no such link.")
            }
            let link = try LinkRow(row)
            let state = link.state(at: time)
            guard state == .active || state == .exhausted && !endsExhausted else { throw DriveError.linkEnded(state) }
            // Who lost the right to make the link lost the link.
            guard let maker = try sql.first("SELECT name, home FROM accounts WHERE id = $1 AND disabled = 0", [.id(link.account)]),
                  let role = try Self.role(sql, link.account, link.namespace), role >= .manager else { throw DriveError.linkEnded(.revoked) }
            let session = Session(
                account: link.account, accountName: maker.text(0) ?? "", device: DeviceID(high: 0, low: 0), deviceName: Self.linkDeviceName,
                home: try maker.id(1))
            return (link, session)
        }
        try await prove(link, proof)
        return try await read { sql in
            let root = try Self.namespaceInformation(sql, link.namespace).root
            guard let node = try NodeRow.fetch(sql, TreePath.successor(sql, of: link.node)), node.namespace == link.namespace, node.deletedAt == nil,
                  let path = try Self.path(sql, of: node.id, root: root) else {
                throw DriveError.notFound("What this link led to is not there any more.")
            }
            return LinkVisit(link: link, session: session, node: node, name: path.split(separator: "/").last.map(String.init) ?? "files")
        }
    }

    private func prove(_ link: LinkRow, _ proof: LinkProof) async throws(DriveError) {
        guard let expected = link.password, let salt = link.salt else { return }
        switch proof {
        case .none: throw .linkPassword(isWrong: false)
        case .cookie(let text):
            guard let right = link.proof, Secret.equal(Array(text.utf8), Array(right.utf8)) else { throw .linkPassword(isWrong: false) }
        case .password(let text):
            guard text.utf8.count <= 1024, Secret.equal(try await Self.linkKey(text, salt), expected) else { throw .linkPassword(isWrong: true) }
        }
    }

    func countOpen(_ visit: LinkVisit, address: String) async throws(DriveError) {
        try await note(visit, "link-opened", address, "opens = opens + 1")
    }

    func countView(_ visit: LinkVisit, _ path: String, address: String) async throws(DriveError) {
        try await note(visit, "link-viewed", address, "opens = opens", path: path)
    }

    private func note(_ visit: LinkVisit, _ action: String, _ address: String, _ change: String, path: String = "") async throws(DriveError) {
        let time = now()
        try await write(.ordered) { sql in
            try sql.execute("UPDATE links SET \(change), used = $1 WHERE id = $2", [.time(time), .id(visit.link.id)])
            try Self.auditVisit(sql, time, visit, action, address, path)
        }
    }

    /// Takes one of the link's downloads, in one statement: however many ask at once, no more are given than the link has. Who shows the
    /// ticket of a download that was counted goes on for nothing.
    ///
    /// - Parameters:
    ///   - ticket: of an earlier answer; for a part of the same version that is not its beginning.
    ///   - path: of the file within the link, for the audit.
    /// - Returns: the ticket of a download that was counted now.
    /// - Throws: `.linkEnded` when another was faster.
    func countDownload(_ visit: LinkVisit, _ version: VersionID?, ticket: String?, path: String, address: String) async throws(DriveError) -> String? {
        let time = now(), link = visit.link, fresh = Hexadecimal.encode(Secret.random(count: 16))
        return try await write { sql in
            if let ticket, let version, try sql.first(
                "SELECT 1 FROM link_tickets WHERE ticket = $1 AND link = $2 AND version = $3 AND expires > $4",
                [.hash(Self.tokenHash(ticket)), .id(link.id), .id(version), .time(time)]) != nil { return nil }
            let taken = try sql.execute("""
                UPDATE links SET downloads = downloads + 1, used = $1
                WHERE id = $2 AND revoked IS NULL AND (expires IS NULL OR expires > $1) AND (maximum_downloads IS NULL OR downloads < maximum_downloads)
                """, [.time(time), .id(link.id)])
            guard taken == 1 else {
                let row = try sql.first("SELECT \(LinkRow.columns) FROM links WHERE id = $1", [.id(link.id)])
                throw DriveError.linkEnded(try row.map { try LinkRow($0).state(at: time) } ?? .revoked)
            }
            try sql.execute("DELETE FROM link_tickets WHERE expires <= $1", [.time(time)])
            try sql.execute(
                "INSERT INTO link_tickets (ticket, link, version, expires) VALUES ($1, $2, $3, $4)",
                [.hash(Self.tokenHash(fresh)), .id(link.id), .id(version), .integer(time.nanoseconds + Self.ticketSeconds * 1_000_000_000)])
            try Self.auditVisit(sql, time, visit, "link-downloaded", address, path)
            return fresh
        }
    }

    static func auditVisit(
        _ sql: any SQLConnection, _ time: Timestamp, _ visit: LinkVisit, _ action: String, _ address: String, _ path: String
    ) throws {
        let root = try namespaceInformation(sql, visit.link.namespace).root
        let place = try self.path(sql, of: visit.node.id, root: root)
        let whole = [place ?? "", path].filter { !$0.isEmpty }.joined(separator: "/")
        try audit(
            sql, time, nil, device: linkDeviceName, address: address, action, visit.link.namespace, detail: visit.link.id.description,
            node: visit.node.id, path: whole)
    }

    // MARK: Within a link

    /// What lies at a path within the link.
    func node(_ visit: LinkVisit, at path: String) async throws(DriveError) -> NodeRow {
        try await read { sql in
            guard let row = try Self.node(sql, at: path, below: visit.node.id) else { throw DriveError.notFound("There is no such file.") }
            return row
        }
    }

    struct LinkedEntry: Sendable {
        /// From the folder that was asked for; without a slash at the end.
        var path: String
        var node: NodeRow
        /// Bytes of a file or of a symbolic link's target.
        var size: UInt64
    }

    /// Live entries below a directory on one snapshot, in order of name, a directory before what it holds.
    ///
    /// - Throws: `.tooLarge` past `limit` entries.
    func entries(_ visit: LinkVisit, below directory: NodeRow, isDeep: Bool, limit: Int) async throws(DriveError) -> [LinkedEntry] {
        try await read { sql in
            try Self.require(.viewer, sql, visit.session, visit.link.namespace)
            var found: [LinkedEntry] = []
            var open: [(NodeID, String)] = [(directory.id, "")]
            while let (id, prefix) = open.popLast() {
                let rows = try sql.query("SELECT name, node FROM entries WHERE parent = $1 AND deleted_at IS NULL ORDER BY name", [.id(id)])
                for row in rows {
                    guard let node = try NodeRow.fetch(sql, try row.id(1)) else { continue }
                    guard found.count < limit else { throw DriveError.tooLarge("The folder holds more than \(limit) files; ask for a part of it.") }
                    let path = prefix + (row.text(0) ?? "")
                    let size = try node.version.flatMap { try sql.first("SELECT size FROM versions WHERE id = $1", [.id($0)])?.int(0) } ?? 0
                    found.append(LinkedEntry(path: path, node: node, size: node.target.map { UInt64($0.utf8.count) } ?? UInt64(size)))
                    if isDeep, node.isDirectory { open.append((node.id, path + "/")) }
                }
            }
            return found
        }
    }
}
