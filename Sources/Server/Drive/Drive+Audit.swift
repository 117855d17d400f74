import Shared

/// A device that reads a namespace.
struct AuditedRead: Hashable, Sendable {
    let device: DeviceID
    let namespace: NamespaceID
    let address: String?
}

/// Which lines of the audit are wanted; nil: any.
struct AuditFilter: Sendable {
    var namespace: NamespaceID?
    /// A file or folder, with all below it, by its path now or then; in `namespace`.
    var path: String?
    var account: String?
    var action: String?
    var since: Timestamp?
    var until: Timestamp?
    /// Older than this line.
    var before: Identifier<AuditTag>?
    var limit = 1000
}

// The audit: read by owners for their namespaces, by administrators whole.
extension Drive {
    static let maximumAuditPage = 10_000
    private static let readSeconds: Int64 = 3600, maximumReads = 100_000

    /// For the owner of the namespace that the filter names.
    func audit(_ session: Session, _ namespace: NamespaceID, _ filter: AuditFilter) async throws(DriveError) -> AuditPage {
        var filter = filter
        filter.namespace = namespace
        let wanted = filter
        return try await read { sql in
            try Self.require(.owner, sql, session, namespace)
            return try Self.records(sql, wanted)
        }
    }

    /// Everybody's, for administrators.
    func audit(_ filter: AuditFilter) async throws(DriveError) -> AuditPage {
        try await read { sql in
            if let name = filter.account, try sql.first("SELECT 1 FROM accounts WHERE name = $1", [.text(name)]) == nil {
                throw DriveError.notFound("There is no account \(name).")
            }
            return try Self.records(sql, filter)
        }
    }

    private static func records(_ sql: any SQLConnection, _ filter: AuditFilter) throws -> AuditPage {
        var conditions: [String] = [], arguments: [SQLValue] = []
        func require(_ condition: String, _ values: SQLValue...) {
            var text = condition
            for (index, value) in values.enumerated() {
                arguments.append(value)
                text = text.replacing("?\(index + 1)", with: "$\(arguments.count)")
            }
            conditions.append(text)
        }
        if let namespace = filter.namespace { require("u.namespace = ?1", .id(namespace)) }
        if let account = filter.account { require("a.name = ?1", .text(account)) }
        if let action = filter.action { require("u.action = ?1", .text(action)) }
        if let since = filter.since { require("u.time >= ?1", .time(since)) }
        if let until = filter.until { require("u.time < ?1", .time(until)) }
        if let before = filter.before { require("u.id < ?1", .id(before)) }
        if let path = filter.path.map({ $0.split(separator: "/").joined(separator: "/") }), !path.isEmpty, let namespace = filter.namespace {
            // "0" follows "/": a range that an index may serve, and no pattern to escape.
            let node = try Self.node(sql, at: path, below: namespaceInformation(sql, namespace).root)?.id
            require("(u.node = ?1 OR u.path = ?2 OR u.path >= ?3 AND u.path < ?4)", .id(node), .text(path), .text(path + "/"), .text(path + "0"))
        }
        let limit = min(max(filter.limit, 1), maximumAuditPage)
        arguments.append(.int(limit))
        let rows = try sql.query("""
            SELECT u.id, u.time, u.action, a.name, u.device, u.address, u.namespace, u.node, u.path, u.detail
            FROM audit u LEFT JOIN accounts a ON a.id = u.account \(conditions.isEmpty ? "" : "WHERE " + conditions.joined(separator: " AND "))
            ORDER BY u.id DESC LIMIT $\(arguments.count)
            """, arguments)
        let records = try rows.map { row in
            AuditRecord(
                id: try row.id(0), time: row.time(1), action: row.text(2) ?? "", account: row.text(3), device: row.text(4), address: row.text(5),
                namespace: try row.isNull(6) ? nil : row.id(6), node: try row.isNull(7) ? nil : row.id(7), path: row.text(8), detail: row.text(9))
        }
        return AuditPage(records: records, next: records.count == limit ? records.last?.id : nil)
    }

    /// Notes that a device read a namespace: once an hour for each address, as a mount asks all the time and answers reads from its cache.
    func auditRead(_ session: Session, _ namespace: NamespaceID) async throws(DriveError) {
        let time = now(), uptime = uptime(), key = AuditedRead(device: session.device, namespace: namespace, address: session.address)
        let isDue = auditedReads.withLock { reads in
            if let until = reads[key], until > uptime { return false }
            if reads.count >= Self.maximumReads { reads = reads.filter { $0.value > uptime } }
            if reads.count >= Self.maximumReads { reads = [:] }
            reads[key] = uptime.adding(seconds: Self.readSeconds)
            return true
        }
        guard isDue else { return }
        try await write(.ordered) { sql in
            guard try Self.role(sql, session.account, namespace) != nil else { return }
            try Self.audit(sql, time, session.account, device: session.deviceName, address: session.address, "opened", namespace)
        }
    }
}
