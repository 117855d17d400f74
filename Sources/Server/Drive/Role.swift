import Shared

extension Drive {
    /// The caller's role, nil for who is no member.
    static func role(_ sql: any SQLConnection, _ account: AccountID, _ namespace: NamespaceID) throws -> Role? {
        try sql.first("SELECT role FROM members WHERE namespace = $1 AND account = $2", [.id(namespace), .id(account)])?.text(0).flatMap(Role.init)
    }

    /// Throws `.notFound` for who is no member (whether the namespace exists is not told), `.forbidden` for who may not do as much.
    static func require(_ role: Role, _ sql: any SQLConnection, _ session: Session, _ namespace: NamespaceID) throws {
        guard let found = try Self.role(sql, session.account, namespace) else { throw DriveError.notFound("There is no such namespace.") }
        guard found >= role else { throw DriveError.forbidden("This needs the role \(role.rawValue); yours is \(found.rawValue).") }
    }
}
