import Foundation
import Shared

// Settings of accounts and namespaces, as JSON; what is not set has its default.
extension Drive {
    static func namespaceSettings(_ sql: any SQLConnection, _ namespace: NamespaceID) throws -> NamespaceSettings {
        try decoded(try sql.first("SELECT settings FROM namespaces WHERE id = $1", [.id(namespace)])?.text(0)) ?? NamespaceSettings()
    }

    /// Of the account that owns the namespace.
    static func retention(_ sql: any SQLConnection, _ namespace: NamespaceID) throws -> RetentionSettings {
        try decoded(try sql.first("""
            SELECT a.settings FROM members m JOIN accounts a ON a.id = m.account WHERE m.namespace = $1 AND m.role = 'owner'
            """, [.id(namespace)])?.text(0)) ?? RetentionSettings()
    }

    private static func decoded<T: Decodable>(_ text: String?) throws -> T? { try text.map { try JSONDecoder().decode(T.self, from: Data($0.utf8)) } }

    private static func encoded(_ value: some Encodable) throws -> SQLValue { .text(String(decoding: try JSONEncoder().encode(value), as: UTF8.self)) }

    func namespaceSettings(_ session: Session, _ namespace: NamespaceID) async throws(DriveError) -> NamespaceSettings {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            return try Self.namespaceSettings(sql, namespace)
        }
    }

    func setNamespaceSettings(_ session: Session, _ namespace: NamespaceID, _ settings: NamespaceSettings) async throws(DriveError) {
        guard (0...86_400).contains(settings.versionSeconds), (0...1_000_000).contains(settings.guardFiles), (0...100).contains(settings.guardPercent),
              (1...86_400).contains(settings.guardSeconds) else { throw .badRequest("A setting is out of its range.") }
        let time = now()
        try await write { sql in
            try Self.require(.manager, sql, session, namespace)
            try sql.execute("UPDATE namespaces SET settings = $1 WHERE id = $2", [try Self.encoded(settings), .id(namespace)])
            try Self.audit(sql, time, session.account, device: session.deviceName, address: nil, "settings-set", namespace)
        }
    }

    func retention(_ session: Session) async throws(DriveError) -> RetentionSettings {
        try await read { sql in
            try Self.decoded(try sql.first("SELECT settings FROM accounts WHERE id = $1", [.id(session.account)])?.text(0)) ?? RetentionSettings()
        }
    }

    func setRetention(_ session: Session, _ settings: RetentionSettings) async throws(DriveError) {
        let century: Int64 = 100 * 366 * 86_400
        guard [settings.allSeconds, settings.hourlySeconds, settings.dailySeconds, settings.trashSeconds].allSatisfy({ (0...century).contains($0) }) else {
            throw .badRequest("A time is out of its range.")
        }
        let time = now()
        try await write { sql in
            try sql.execute("UPDATE accounts SET settings = $1 WHERE id = $2", [try Self.encoded(settings), .id(session.account)])
            try Self.audit(sql, time, session.account, device: session.deviceName, address: nil, "retention-set")
        }
    }
}
