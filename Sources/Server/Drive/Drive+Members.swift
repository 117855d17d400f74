import Foundation
import Shared

/// Why somebody is to be a member: by name, or as one of a group.
struct Grant {
    let namespace: NamespaceID
    let account: AccountID
    /// A group's identifier; the namespace's for who was invited by name.
    let source: SQLValue
}

// Who is in a shared folder: grants are what was said, `members` is what holds, and a junction stands in each member's home.
extension Drive {
    /// What the rules of one transaction need.
    struct Sharing {
        let sql: any SQLConnection
        let session: Session
        let time: Timestamp
        /// Homes whose readers are to hear of it.
        var touched: [(NamespaceID, Int64)] = []
    }

    func sharing<T: Sendable>(_ session: Session, _ body: @escaping @Sendable (inout Sharing) throws -> T) async throws(DriveError) -> T {
        let time = now()
        return try await share(session) { sql, touched in
            var sharing = Sharing(sql: sql, session: session, time: time)
            defer { touched = sharing.touched }
            return try body(&sharing)
        }
    }

    // MARK: Seeing

    /// The shared folders that the caller is in, and those that wait to be accepted.
    func shares(_ session: Session) async throws(DriveError) -> [Share] {
        try await read { sql in
            try sql.query("""
                SELECT namespace FROM members WHERE account = $1 AND namespace <> $2 UNION SELECT namespace FROM grants WHERE account = $1
                """, [.id(session.account), .id(session.home)]).map { try Self.share(sql, session, try $0.id(0)) }.sorted { ($0.path ?? "", $0.name) < ($1.path ?? "", $1.name) }
        }
    }

    /// - Throws: `.notFound` for who is neither a member nor invited.
    static func share(_ sql: any SQLConnection, _ session: Session, _ namespace: NamespaceID) throws -> Share {
        let grants = try sql.query("SELECT g.role, a.name FROM grants g JOIN accounts a ON a.id = g.granted_by WHERE g.namespace = $1 AND g.account = $2",
            [.id(namespace), .id(session.account)])
        let invited = grants.compactMap { row in row.text(0).flatMap(Role.init).map { (role: $0, by: row.text(1)) } }.max { $0.role < $1.role }
        guard let role = try role(sql, session.account, namespace) ?? invited?.role,
              let owner = try sql.first("SELECT a.id, a.name, a.home FROM members m JOIN accounts a ON a.id = m.account WHERE m.namespace = $1 AND m.role = 'owner'", [.id(namespace)])
        else { throw DriveError.notFound("There is no such shared folder.") }
        let path = try junction(sql, to: namespace, in: session.home).map { try TreePath.path(sql, of: $0.id) }
        let name = try junction(sql, to: namespace, in: owner.id(2)).flatMap { try TreePath.lastPlace(sql, of: $0.id)?.name } ?? "shared"
        return Share(
            namespace: namespace, name: name, owner: owner.text(1) ?? "", role: role, path: path, invitedBy: role == .owner ? nil : invited?.by)
    }

    static func junction(_ sql: any SQLConnection, to namespace: NamespaceID, in home: NamespaceID) throws -> NodeRow? {
        try sql.first("SELECT \(NodeRow.columns) FROM nodes WHERE shared = $1 AND namespace = $2 AND deleted_at IS NULL", [.id(namespace), .id(home)])
            .map { try NodeRow($0) }
    }

    /// Members see each other; whom one of them invited is for managers to see.
    func members(_ session: Session, _ namespace: NamespaceID) async throws(DriveError) -> [Member] {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            var members = try sql.query("SELECT a.name, m.role FROM members m JOIN accounts a ON a.id = m.account WHERE m.namespace = $1", [.id(namespace)]).map {
                Member(account: $0.text(0) ?? "", role: $0.text(1).flatMap(Role.init) ?? .viewer, invited: false)
            }
            guard try Self.role(sql, session.account, namespace)! >= .manager else { return members.sorted { $0.account < $1.account } }
            for row in try sql.query("""
                SELECT a.name, g.role, u.name FROM grants g JOIN accounts a ON a.id = g.account LEFT JOIN groups u ON u.id = g.source AND u.owner = $1
                WHERE g.namespace = $2
                """, [.id(session.account), .id(namespace)]) {
                let name = row.text(0) ?? "", role = row.text(1).flatMap(Role.init) ?? .viewer
                if !members.contains(where: { $0.account == name }) { members.append(Member(account: name, role: role, invited: true)) }
                let index = members.firstIndex { $0.account == name }!
                if members[index].invited { members[index].role = max(members[index].role, role) }
                if let group = row.text(2) { members[index].groups.append(group) }
            }
            return members.sorted { $0.account < $1.account }
        }
    }

    // MARK: Changing

    /// Invites somebody by name, or gives another role.
    func setMember(_ session: Session, _ namespace: NamespaceID, _ name: String, _ role: Role) async throws(DriveError) {
        try await sharing(session) { sharing in
            try sharing.requireManager(of: namespace, for: role)
            let account = try sharing.account(name)
            guard account != session.account else { throw DriveError.badRequest("Nobody changes the own role.") }
            try sharing.requireChangeable(account, in: namespace)
            try sharing.grant(Grant(namespace: namespace, account: account, source: .id(namespace)), role)
        }
    }

    /// Takes the rights of a member or invited person away; one's own is leaving.
    func removeMember(_ session: Session, _ namespace: NamespaceID, _ name: String) async throws(DriveError) {
        try await sharing(session) { sharing in
            let account = try name == session.accountName ? session.account : sharing.account(name)
            if account == session.account {
                let role = try Self.role(sharing.sql, account, namespace)
                if role == .owner { throw DriveError.forbidden("The owner cannot leave: give the folder to somebody first (boxfs share transfer).") }
            } else {
                try sharing.requireManager(of: namespace, for: .viewer)
                try sharing.requireChangeable(account, in: namespace)
            }
            guard try sharing.sql.execute("DELETE FROM grants WHERE namespace = $1 AND account = $2", [.id(namespace), .id(account)]) > 0 else {
                throw DriveError.notFound("\(name) is not in this shared folder.")
            }
            try sharing.settle(namespace, account)
        }
    }

    /// - Parameter path: of the junction in the caller's home; nil: in its root, under the owner's name for it.
    func accept(_ session: Session, _ namespace: NamespaceID, at path: String?) async throws(DriveError) -> Share {
        try await sharing(session) { sharing in
            guard try Self.role(sharing.sql, session.account, namespace) == nil else { throw DriveError.badRequest("You are in this shared folder already.") }
            guard let role = try sharing.grantedRole(namespace, session.account) else { throw DriveError.notFound("There is no such invitation.") }
            try sharing.join(namespace, session.account, role, at: path)
            return try Self.share(sharing.sql, session, namespace)
        }
    }

    func decline(_ session: Session, _ namespace: NamespaceID) async throws(DriveError) {
        try await sharing(session) { sharing in
            guard try Self.role(sharing.sql, session.account, namespace) == nil, try sharing.grantedRole(namespace, session.account) != nil else {
                throw DriveError.notFound("There is no such invitation.")
            }
            try sharing.sql.execute("DELETE FROM grants WHERE namespace = $1 AND account = $2", [.id(namespace), .id(session.account)])
            try sharing.audit("share-declined", namespace)
        }
    }

    /// Gives the folder to another member, whose quota it counts for from now on; the owner until now stays as a manager.
    func transfer(_ session: Session, _ namespace: NamespaceID, to name: String) async throws(DriveError) {
        try await sharing(session) { sharing in
            let sql = sharing.sql
            try Self.require(.owner, sql, session, namespace)
            guard namespace != session.home else { throw DriveError.badRequest("One's own tree is not to be given away.") }
            let account = try sharing.account(name)
            guard account != session.account, try Self.role(sql, account, namespace) != nil else {
                throw DriveError.badRequest("\(name) is not in this shared folder: only a member can become its owner.")
            }
            try sql.execute("DELETE FROM grants WHERE namespace = $1 AND account = $2", [.id(namespace), .id(account)])
            try sql.execute("UPDATE members SET role = 'manager' WHERE namespace = $1 AND account = $2", [.id(namespace), .id(session.account)])
            try sql.execute("UPDATE members SET role = 'owner' WHERE namespace = $1 AND account = $2", [.id(namespace), .id(account)])
            let space = try Self.space(sql, ownedWith: namespace)
            if let quota = space.quota, space.used > quota { throw DriveError.quotaExceeded(quota: quota, used: space.used) }
            let grant = Grant(namespace: namespace, account: session.account, source: .id(namespace))
            try sharing.write(grant, .manager, by: account)
            try sharing.audit("share-transferred", namespace, "to \(name)")
            for member in [account, session.account] { try sharing.tellJunction(namespace, member) }
        }
    }

    func sharingSettings(_ session: Session) async throws(DriveError) -> SharingSettings {
        try await read { sql in
            SharingSettings(acceptsAutomatically: try Self.acceptsAutomatically(sql, session.account))
        }
    }

    func setSharingSettings(_ session: Session, _ settings: SharingSettings) async throws(DriveError) {
        try await sharing(session) { sharing in
            try sharing.sql.execute(
                "UPDATE accounts SET asks_before_sharing = $1 WHERE id = $2", [.integer(settings.acceptsAutomatically ? 0 : 1), .id(session.account)])
            try sharing.audit("sharing-settings", session.home, settings.acceptsAutomatically ? "accepts automatically" : "asks")
        }
    }
}
