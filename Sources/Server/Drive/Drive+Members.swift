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
            let asks = try sql.first("SELECT asks_before_sharing FROM accounts WHERE id = $1", [.id(session.account)])?.int(0) ?? 0
            return SharingSettings(acceptsAutomatically: asks == 0)
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

extension Drive.Sharing {
    func audit(_ action: String, _ namespace: NamespaceID?, _ detail: String? = nil) throws {
        try Drive.audit(sql, time, session.account, device: session.deviceName, address: session.address, action, namespace, detail: detail)
    }

    func account(_ name: String) throws -> AccountID {
        guard let row = try sql.first("SELECT id FROM accounts WHERE name = $1 AND disabled = 0", [.text(name)]) else {
            throw DriveError.notFound("There is no account \(name).")
        }
        return try row.id(0)
    }

    private func name(_ account: AccountID) throws -> String { try sql.first("SELECT name FROM accounts WHERE id = $1", [.id(account)])?.text(0) ?? "" }

    // MARK: Rights

    /// Managers invite; managers are made by the owner alone.
    func requireManager(of namespace: NamespaceID, for role: Role) throws {
        guard role < .owner else { throw DriveError.badRequest("There is one owner: the folder is given away by boxfs share transfer.") }
        try Drive.require(role == .manager ? .owner : .manager, sql, session, namespace)
        guard try sql.first("SELECT 1 FROM accounts WHERE home = $1", [.id(namespace)]) == nil else {
            throw DriveError.badRequest("The whole tree cannot be shared: share a folder in it.")
        }
    }

    func requireChangeable(_ account: AccountID, in namespace: NamespaceID) throws {
        switch try Drive.role(sql, account, namespace) ?? grantedRole(namespace, account) {
        case .owner: throw DriveError.forbidden("The owner's role is given away by boxfs share transfer only.")
        case .manager: try Drive.require(.owner, sql, session, namespace)
        default: break
        }
    }

    func grantedRole(_ namespace: NamespaceID, _ account: AccountID) throws -> Role? {
        try sql.query("SELECT role FROM grants WHERE namespace = $1 AND account = $2", [.id(namespace), .id(account)]).compactMap { $0.text(0).flatMap(Role.init) }.max()
    }

    mutating func grant(_ grant: Grant, _ role: Role) throws {
        try write(grant, role, by: session.account)
        try settle(grant.namespace, grant.account)
    }

    func write(_ grant: Grant, _ role: Role, by account: AccountID) throws {
        try sql.execute("""
            INSERT INTO grants (namespace, account, source, role, granted_by, created) VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (namespace, account, source) DO UPDATE SET role = excluded.role, granted_by = excluded.granted_by
            """, [.id(grant.namespace), .id(grant.account), grant.source, .text(role.rawValue), .id(account), .time(time)])
    }

    /// Makes `members` and the account's home say what the grants say.
    mutating func settle(_ namespace: NamespaceID, _ account: AccountID) throws {
        let current = try Drive.role(sql, account, namespace), wanted = try grantedRole(namespace, account)
        guard current != .owner, current != wanted else { return }
        let name = try name(account)
        guard let wanted else {
            try sql.execute("DELETE FROM members WHERE namespace = $1 AND account = $2", [.id(namespace), .id(account)])
            try removeJunction(namespace, account)
            return try audit(account == session.account ? "member-left" : "member-removed", namespace, name)
        }
        if current != nil {
            try sql.execute(
                "UPDATE members SET role = $1 WHERE namespace = $2 AND account = $3", [.text(wanted.rawValue), .id(namespace), .id(account)])
            try tellJunction(namespace, account)
            return try audit("member-role", namespace, "\(name): \(wanted.rawValue)")
        }
        try audit("member-invited", namespace, "\(name): \(wanted.rawValue)")
        let asks = try sql.first("SELECT asks_before_sharing FROM accounts WHERE id = $1", [.id(account)])?.int(0) ?? 0
        if asks == 0 { try join(namespace, account, wanted, at: nil) }
    }

    // MARK: Homes

    private mutating func edit<T>(homeOf account: AccountID, _ body: (Committer) throws -> T) throws -> T {
        guard let row = try sql.first("SELECT home FROM accounts WHERE id = $1", [.id(account)]) else { throw DriveError.notFound("There is no such account.") }
        let committer = try Committer(sql, session, try row.id(0), Drive.nothing(session), time)
        committer.step()
        let value = try body(committer)
        try committer.finish()
        touched.append((committer.namespace, committer.sequence))
        return value
    }

    mutating func join(_ namespace: NamespaceID, _ account: AccountID, _ role: Role, at path: String?) throws {
        try sql.execute(
            "INSERT INTO members (namespace, account, role) VALUES ($1, $2, $3)", [.id(namespace), .id(account), .text(role.rawValue)])
        let member = Session(account: account, accountName: "", device: session.device, deviceName: "", home: try Drive.home(sql, account))
        let name = try Drive.share(sql, member, namespace).name
        let time = time
        try edit(homeOf: account) { committer in
            var parent = committer.root, place = name
            if let path {
                var names = TreePath.names(path)
                guard let last = names.popLast() else { throw DriveError.badRequest("The folder needs a name.") }
                if let problem = EntryName.problem(with: last) { throw DriveError.invalidName(problem) }
                let above = names.joined(separator: "/")
                guard let found = try TreePath.live(committer.sql, above, from: committer.root), let directory = try committer.liveDirectory(found) else {
                    throw DriveError.notFound("There is no folder \(above) of your own.")
                }
                guard try committer.entry(directory.id, last) == nil else { throw DriveError.nameTaken(path) }
                (parent, place) = (directory.id, last)
            } else {
                var number = 1
                while try committer.entry(parent, place) != nil {
                    place = ConflictedCopy.name(of: name, mark: number == 1 ? " (shared)" : " (shared \(number))")
                    number += 1
                }
            }
            var junction = NodeRow(root: .make(), namespace: committer.namespace, time: time)
            junction.shared = namespace
            committer.putNew(junction)
            try committer.insertEntry(parent, place, junction.id)
            try committer.touch(parent, time)
        }
        try audit("member-added", namespace, "\(try self.name(account)): \(role.rawValue)")
    }

    private mutating func removeJunction(_ namespace: NamespaceID, _ account: AccountID) throws {
        guard var row = try Drive.junction(sql, to: namespace, in: try Drive.home(sql, account)) else { return }
        let time = time
        try edit(homeOf: account) { committer in
            row.shared = nil
            committer.put(row)
            for entry in try committer.entries(of: row.id) {
                try committer.unlink(entry, row, time)
                try committer.touch(entry.parent, time)
            }
        }
        // Nothing that anybody could restore.
        try sql.execute("UPDATE nodes SET purged_at = $1 WHERE id = $2", [.time(time), .id(row.id)])
    }

    /// The feed of the member's home tells the junction again, with the role as it is now.
    mutating func tellJunction(_ namespace: NamespaceID, _ account: AccountID) throws {
        guard let row = try Drive.junction(sql, to: namespace, in: try Drive.home(sql, account)) else { return }
        try edit(homeOf: account) { $0.put(row) }
    }
}

extension Drive {
    static func home(_ sql: any SQLConnection, _ account: AccountID) throws -> NamespaceID {
        guard let row = try sql.first("SELECT home FROM accounts WHERE id = $1", [.id(account)]) else { throw DriveError.notFound("There is no such account.") }
        return try row.id(0)
    }
}
