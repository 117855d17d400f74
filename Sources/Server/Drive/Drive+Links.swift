import Dispatch
import Shared

// Links as their makers see them. What visitors do is in Drive+LinkVisits.swift.
extension Drive {
    static let maximumLinkSeconds: Int64 = 100 * 366 * 86_400

    func createLink(_ session: Session, _ namespace: NamespaceID, _ request: LinkRequest) async throws(DriveError) -> LinkAnswer {
        try Self.check(request)
        var salt: [UInt8]?, key: [UInt8]?
        if let password = request.password {
            let fresh = Secret.random(count: 16)
            (salt, key) = (fresh, try await Self.linkKey(password, fresh))
        }
        let token = Self.base64URL(Secret.random(count: 32)), time = now()
        let stored = (salt: salt, key: key)
        return try await write { sql in
            try Self.require(.manager, sql, session, namespace)
            let root = try Self.namespaceInformation(sql, namespace).root
            guard let node = try Self.node(sql, at: request.path, below: root), node.namespace == namespace, node.isDirectory || node.isRegular else {
                throw DriveError.notFound("There is no file or folder at \(request.path).")
            }
            guard node.shared == nil else { throw DriveError.badRequest("\(request.path) is a shared folder: links to it are made in its own namespace.") }
            guard request.kind == .download || node.isDirectory else { throw DriveError.badRequest("Files are sent into a folder; this is none.") }
            let id = LinkID.make()
            let expires = request.lifetimeSeconds.map { Timestamp(nanoseconds: time.nanoseconds + $0 * 1_000_000_000) }
            try sql.execute("""
                INSERT INTO links (\(LinkRow.columns), token) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULL, $11, 0, 0, $12, 0, NULL, $13)
                """, [
                    .id(id), .id(namespace), .id(node.id), .id(session.account), .text(request.kind.rawValue), .integer(request.viewOnly ? 1 : 0),
                    stored.salt.map { .blob($0) } ?? .null, stored.key.map { .blob($0) } ?? .null, .time(time), .time(expires),
                    request.maximumDownloads.map { .integer($0) } ?? .null, request.maximumBytes.map { .int($0) } ?? .null,
                    .hash(Self.tokenHash(token)),
                ])
            try Self.audit(
                sql, time, session.account, device: session.deviceName, address: session.address, "link-created", namespace, detail: id.description, node: node.id,
                path: request.path)
            return LinkAnswer(link: try Self.information(sql, try Self.link(sql, session, id), time), address: "/l/" + token)
        }
    }

    private static func check(_ request: LinkRequest) throws(DriveError) {
        if let password = request.password, !(1...1024).contains(password.utf8.count) { throw .badRequest("A link's password has 1 to 1024 bytes.") }
        if let seconds = request.lifetimeSeconds, !(1...maximumLinkSeconds).contains(seconds) { throw .badRequest("A link lives for a second at least and a century at most.") }
        if let count = request.maximumDownloads, count < 1 { throw .badRequest("A link gives one download at least.") }
        if let bytes = request.maximumBytes, bytes < 1 || bytes > UInt64(Int64.max) { throw .badRequest("An upload link takes one byte at least.") }
        switch request.kind {
        case .download: if request.maximumBytes != nil { throw .badRequest("Only upload links have a size limit.") }
        case .upload: if request.maximumDownloads != nil || request.viewOnly { throw .badRequest("An upload link gives no downloads and shows nothing.") }
        }
        if request.viewOnly, request.maximumDownloads != nil { throw .badRequest("A link that only shows gives no downloads to count.") }
    }

    /// The links that the caller made, and all of the namespaces that the caller manages; newest first.
    func links(_ session: Session) async throws(DriveError) -> [LinkInformation] {
        let time = now()
        return try await read { sql in
            let columns = LinkRow.columns.split(separator: ", ").map { "l." + $0 }.joined(separator: ", ")
            return try sql.query("""
                SELECT \(columns) FROM links l JOIN members m ON m.namespace = l.namespace AND m.account = $1
                WHERE l.account = $1 OR m.role IN ('manager', 'owner') ORDER BY l.id DESC LIMIT 10000
                """, [.id(session.account)]).map { try Self.information(sql, try LinkRow($0), time) }
        }
    }

    /// - Parameter name: the link's identifier or its token.
    func link(_ session: Session, named name: String) async throws(DriveError) -> LinkInformation {
        let time = now()
        return try await read { sql in try Self.information(sql, try Self.link(sql, session, named: name), time) }
    }

    /// Ends a link at once. Its row stays, so that visitors hear that it was revoked.
    func revokeLink(_ session: Session, named name: String) async throws(DriveError) {
        let time = now()
        try await write { sql in
            let link = try Self.link(sql, session, named: name)
            try sql.execute("UPDATE links SET revoked = $1 WHERE id = $2 AND revoked IS NULL", [.time(time), .id(link.id)])
            try sql.execute("DELETE FROM link_tickets WHERE link = $1", [.id(link.id)])
            try Self.audit(
                sql, time, session.account, device: session.deviceName, address: session.address, "link-revoked", link.namespace, detail: link.id.description,
                node: link.node)
        }
    }

    private static func link(_ sql: any SQLConnection, _ session: Session, named name: String) throws -> LinkRow {
        if let id = LinkID(name) { return try link(sql, session, id) }
        guard let row = try sql.first("SELECT id FROM links WHERE token = $1", [.hash(tokenHash(name))]) else { throw DriveError.notFound("There is no such link.") }
        return try link(sql, session, try row.id(0))
    }

    /// Throws `.notFound` for links that the caller may not know of.
    private static func link(_ sql: any SQLConnection, _ session: Session, _ id: LinkID) throws -> LinkRow {
        guard let row = try sql.first("SELECT \(LinkRow.columns) FROM links WHERE id = $1", [.id(id)]) else { throw DriveError.notFound("There is no such link.") }
        let link = try LinkRow(row)
        guard let role = try role(sql, session.account, link.namespace), link.account == session.account || role >= .manager else {
            throw DriveError.notFound("There is no such link.")
        }
        return link
    }

    private static func information(_ sql: any SQLConnection, _ link: LinkRow, _ time: Timestamp) throws -> LinkInformation {
        let root = try namespaceInformation(sql, link.namespace).root
        return LinkInformation(
            id: link.id, namespace: link.namespace, node: link.node, path: try path(sql, of: TreePath.successor(sql, of: link.node), root: root), kind: link.kind,
            state: link.state(at: time), creator: try sql.first("SELECT name FROM accounts WHERE id = $1", [.id(link.account)])?.text(0) ?? "",
            hasPassword: link.password != nil, viewOnly: link.isViewOnly, created: link.created, expires: link.expires, revoked: link.revoked,
            maximumDownloads: link.maximumDownloads, downloads: link.downloads, opens: link.opens, maximumBytes: link.maximumBytes,
            receivedBytes: link.received, lastUsed: link.used)
    }

    /// Off the cooperative threads: scrypt is slow on purpose.
    static func linkKey(_ password: String, _ salt: [UInt8]) async throws(DriveError) -> [UInt8] {
        let key = await withCheckedContinuation { continuation in
            DispatchQueue.global().async { continuation.resume(returning: Scrypt.derive(password: Array(password.utf8), salt: salt)) }
        }
        guard let key else { throw .internalError("scrypt failed") }
        return key
    }

    /// RFC 4648, section 5, without padding.
    private static func base64URL(_ bytes: [UInt8]) -> String {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        var text = "", bits: UInt32 = 0, count = 0
        for byte in bytes {
            (bits, count) = (bits << 8 | UInt32(byte), count + 8)
            while count >= 6 {
                count -= 6
                text.append(alphabet[Int(bits >> UInt32(count) & 63)])
            }
        }
        if count > 0 { text.append(alphabet[Int(bits << UInt32(6 - count) & 63)]) }
        return text
    }
}
