import Dispatch
import Foundation
import Shared

/// One line of `boxfs-server user list`.
struct AccountSummary: Codable, Sendable {
    var name: String
    var disabled: Bool
    var quota: UInt64?
    var used: UInt64
    var devices: Int64
}

extension Drive {
    /// Seconds for which a token that was looked up is believed.
    private static let sessionSeconds: Int64 = 5

    // MARK: Administration

    func addAccount(_ name: String, password: String, quota: UInt64?) async throws(DriveError) {
        if let problem = EntryName.problem(with: name) { throw .invalidName(problem) }
        guard !password.isEmpty else { throw .badRequest("An empty password is not accepted.") }
        let salt = Secret.random(count: 16)
        try await addAccount(name, salt: salt, key: try await Self.derive(password, salt), quota: quota)
    }

    /// - Parameter key: what `Scrypt` makes of the password and the salt.
    func addAccount(_ name: String, salt: [UInt8], key: [UInt8], quota: UInt64?) async throws(DriveError) {
        let time = now()
        try await write { sql in
            guard try sql.first("SELECT 1 FROM accounts WHERE name = $1", [.text(name)]) == nil else { throw DriveError.nameTaken(name) }
            let account = AccountID.make(), namespace = NamespaceID.make(), root = NodeID.make()
            try sql.execute(
                "INSERT INTO namespaces (id, root, sequence, quota, used, nodes) VALUES ($1, $2, 1, $3, 0, 1)",
                [.id(namespace), .id(root), quota.map { .int($0) } ?? .null])
            try NodeRow(root: root, namespace: namespace, time: time).save(sql)
            try sql.execute(
                "INSERT INTO accounts (id, name, salt, password, disabled, home, created) VALUES ($1, $2, $3, $4, 0, $5, $6)",
                [.id(account), .text(name), .blob(salt), .blob(key), .id(namespace), .time(time)])
            try sql.execute(
                "INSERT INTO members (namespace, account, role) VALUES ($1, $2, $3)", [.id(namespace), .id(account), .text("owner")])
            try Self.audit(sql, time, account, device: nil, address: nil, "account-added", namespace, detail: name)
        }
    }

    func accounts() async throws(DriveError) -> [AccountSummary] {
        try await read { sql in
            try sql.query("""
                SELECT a.name, a.disabled, n.quota, (SELECT sum(s.used) FROM members m JOIN namespaces s ON s.id = m.namespace
                WHERE m.account = a.id AND m.role = 'owner'), (SELECT count(*) FROM devices d WHERE d.account = a.id)
                FROM accounts a JOIN namespaces n ON n.id = a.home ORDER BY a.name
                """, []).map { row in
                AccountSummary(
                    name: row.text(0) ?? "", disabled: row.int(1) != 0, quota: row.isNull(2) ? nil : UInt64(row.int(2)), used: UInt64(row.int(3)),
                    devices: row.int(4))
            }
        }
    }

    func setDisabled(_ name: String, _ disabled: Bool) async throws(DriveError) {
        try await change(name, disabled ? "account-disabled" : "account-enabled") { sql, account in
            try sql.execute("UPDATE accounts SET disabled = $1 WHERE id = $2", [.integer(disabled ? 1 : 0), .id(account)])
        }
    }

    /// Also ends every session: who forgot a password may have lost a device.
    func setPassword(_ name: String, _ password: String) async throws(DriveError) {
        guard !password.isEmpty else { throw .badRequest("An empty password is not accepted.") }
        let salt = Secret.random(count: 16)
        let key = try await Self.derive(password, salt)
        try await change(name, "password-set") { sql, account in
            try sql.execute("UPDATE accounts SET salt = $1, password = $2 WHERE id = $3", [.blob(salt), .blob(key), .id(account)])
            try sql.execute("DELETE FROM devices WHERE account = $1", [.id(account)])
        }
    }

    func setQuota(_ name: String, _ quota: UInt64?) async throws(DriveError) {
        try await change(name, "quota-set") { sql, account in
            try sql.execute(
                "UPDATE namespaces SET quota = $1 WHERE id = (SELECT home FROM accounts WHERE id = $2)",
                [quota.map { .int($0) } ?? .null, .id(account)])
        }
    }

    private func change(_ name: String, _ action: String, _ body: @escaping @Sendable (any SQLConnection, AccountID) throws -> Void) async throws(DriveError) {
        let time = now()
        try await write { sql in
            guard let row = try sql.first("SELECT id FROM accounts WHERE name = $1", [.text(name)]) else {
                throw DriveError.notFound("There is no account \(name).")
            }
            let account: AccountID = try row.id(0)
            try body(sql, account)
            try Self.audit(sql, time, account, device: nil, address: nil, action)
        }
        sessions.withLock { $0 = [:] }
    }

    // MARK: Sessions

    func login(_ request: LoginRequest, address: String) async throws(DriveError) -> LoginAnswer {
        let found = try await read { sql in
            try sql.first("SELECT id, salt, password, disabled, home FROM accounts WHERE name = $1", [.text(request.user)])
        }
        // An unknown name takes as long as a wrong password.
        let key = try await Self.derive(request.password, found?.blob(1) ?? [UInt8](repeating: 0, count: 16))
        guard let found, let expected = found.blob(2), Secret.equal(key, expected), found.int(3) == 0 else { throw .unauthorized }
        let token = Hexadecimal.encode(Secret.random(count: 32))
        let device = DeviceID.make(), time = now()
        let account: AccountID, home: NamespaceID
        do { (account, home) = (try found.id(0), try found.id(4)) } catch { throw Self.translated(error) }
        let name = String(request.device.prefix(100))
        try await write { sql in
            try sql.execute(
                "INSERT INTO devices (id, account, name, token, created) VALUES ($1, $2, $3, $4, $5)",
                [.id(device), .id(account), .text(name), .hash(Self.tokenHash(token)), .time(time)])
            try Self.audit(sql, time, account, device: name, address: address, "login")
        }
        let session = Session(account: account, accountName: request.user, device: device, deviceName: name, home: home)
        return LoginAnswer(token: token, device: device, account: try await accountInformation(session))
    }

    func authenticate(_ token: String) async throws(DriveError) -> Session {
        let hash = Self.tokenHash(token), time = uptime()
        if let known = sessions.withLock({ $0[hash] }), known.until > time { return known.session }
        let session = try await read { sql -> Session? in
            try sql.first("""
                SELECT a.id, a.name, d.id, d.name, a.home FROM devices d JOIN accounts a ON a.id = d.account
                WHERE d.token = $1 AND a.disabled = 0
                """, [.hash(hash)]).map { row in
                Session(
                    account: try row.id(0), accountName: row.text(1) ?? "", device: try row.id(2), deviceName: row.text(3) ?? "", home: try row.id(4))
            }
        }
        guard let session else { throw .unauthorized }
        sessions.withLock { sessions in
            if sessions.count > 10_000 { sessions = [:] }
            sessions[hash] = (session, time.adding(seconds: Self.sessionSeconds))
        }
        return session
    }

    static func tokenHash(_ token: String) -> ChunkHash { SHA256.hash(Array(token.utf8)) }

    /// Off the cooperative threads: scrypt is slow on purpose.
    private static func derive(_ password: String, _ salt: [UInt8]) async throws(DriveError) -> [UInt8] {
        let key = await withCheckedContinuation { continuation in
            DispatchQueue.global().async { continuation.resume(returning: Scrypt.derive(password: Array(password.utf8), salt: salt)) }
        }
        guard let key else { throw .internalError("scrypt failed") }
        return key
    }

    func tokens(_ session: Session) async throws(DriveError) -> [DeviceInformation] {
        try await read { sql in
            try sql.query("SELECT id, name, created, used FROM devices WHERE account = $1 ORDER BY created", [.id(session.account)]).map { row in
                let id: DeviceID = try row.id(0)
                return DeviceInformation(
                    id: id, name: row.text(1) ?? "", created: row.time(2), lastUsed: row.isNull(3) ? nil : row.time(3), current: id == session.device)
            }
        }
    }

    func revokeToken(_ session: Session, _ device: DeviceID) async throws(DriveError) {
        let time = now()
        try await write { sql in
            guard try sql.execute("DELETE FROM devices WHERE id = $1 AND account = $2", [.id(device), .id(session.account)]) == 1 else {
                throw DriveError.notFound("There is no such token.")
            }
            try Self.audit(sql, time, session.account, device: session.deviceName, address: nil, "token-revoked", detail: device.description)
        }
        sessions.withLock { $0 = [:] }
    }

    // MARK: What an account sees of itself

    func accountInformation(_ session: Session) async throws(DriveError) -> AccountInformation {
        try await read { sql in
            let namespaces = try sql.query("SELECT namespace FROM members WHERE account = $1", [.id(session.account)]).map { row in
                try Self.namespaceInformation(sql, try row.id(0), for: session)
            }
            return AccountInformation(id: session.account, name: session.accountName, home: session.home, namespaces: namespaces)
        }
    }

    func namespaceInformation(_ session: Session, _ namespace: NamespaceID) async throws(DriveError) -> NamespaceInformation {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            return try Self.namespaceInformation(sql, namespace, for: session)
        }
    }

    static func namespaceInformation(_ sql: any SQLConnection, _ namespace: NamespaceID) throws -> NamespaceInformation {
        guard let row = try sql.first("SELECT root, sequence, quota, used, nodes FROM namespaces WHERE id = $1", [.id(namespace)]) else {
            throw DriveError.notFound("There is no such namespace.")
        }
        return NamespaceInformation(
            id: namespace, root: try row.id(0), sequence: row.int(1), quota: row.isNull(2) ? nil : UInt64(row.int(2)), used: UInt64(row.int(3)),
            nodes: row.int(4))
    }
}

// What the administrator sees and ends of others' devices.
extension Drive {
    private static func account(_ sql: any SQLConnection, _ name: String) throws -> AccountID {
        guard let row = try sql.first("SELECT id FROM accounts WHERE name = $1", [.text(name)]) else {
            throw DriveError.notFound("There is no account \(name).")
        }
        return try row.id(0)
    }

    func devices(of name: String) async throws(DriveError) -> [DeviceInformation] {
        try await read { sql in
            try sql.query("SELECT id, name, created, used FROM devices WHERE account = $1 ORDER BY created", [.id(try Self.account(sql, name))]).map { row in
                DeviceInformation(
                    id: try row.id(0), name: row.text(1) ?? "", created: row.time(2), lastUsed: row.isNull(3) ? nil : row.time(3), current: false)
            }
        }
    }

    func revokeDevice(of name: String, _ device: DeviceID) async throws(DriveError) {
        try await write { sql in
            guard try sql.execute("DELETE FROM devices WHERE id = $1 AND account = $2", [.id(device), .id(try Self.account(sql, name))]) == 1 else {
                throw DriveError.notFound("\(name) has no such device.")
            }
        }
    }
}
