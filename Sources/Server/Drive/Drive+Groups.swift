import Shared

enum GroupTag {}
typealias GroupID = Identifier<GroupTag>

// Groups: people whom one account invites together. They are its owner's alone to see and use.
extension Drive {
    func groups(_ session: Session) async throws(DriveError) -> [Group] {
        try await read { sql in
            try sql.query("SELECT id, name FROM groups WHERE owner = $1 ORDER BY name", [.id(session.account)]).map { row in
                let members = try sql.query("""
                    SELECT a.name FROM group_members m JOIN accounts a ON a.id = m.account WHERE m.group_id = $1 ORDER BY a.name
                    """, [row.values[0]]).map { $0.text(0) ?? "" }
                return Group(name: row.text(1) ?? "", members: members)
            }
        }
    }

    func addGroup(_ session: Session, _ name: String) async throws(DriveError) {
        if let problem = EntryName.problem(with: name) { throw .invalidName(problem) }
        try await sharing(session) { sharing in
            guard try sharing.group(name) == nil else { throw DriveError.nameTaken(name) }
            try sharing.sql.execute("INSERT INTO groups (id, owner, name) VALUES ($1, $2, $3)", [.id(GroupID.make()), .id(session.account), .text(name)])
            try sharing.audit("group-added", session.home, name)
        }
    }

    /// Who is in a folder through the group alone leaves it.
    func removeGroup(_ session: Session, _ name: String) async throws(DriveError) {
        try await sharing(session) { sharing in
            let group = try sharing.requireGroup(name)
            try sharing.withdraw("source = $1", [.id(group)])
            for table in ["group_members", "group_shares"] { try sharing.sql.execute("DELETE FROM \(table) WHERE group_id = $1", [.id(group)]) }
            try sharing.sql.execute("DELETE FROM groups WHERE id = $1", [.id(group)])
            try sharing.audit("group-removed", session.home, name)
        }
    }

    func addToGroup(_ session: Session, _ name: String, _ member: String) async throws(DriveError) {
        try await sharing(session) { sharing in
            let group = try sharing.requireGroup(name), account = try sharing.account(member)
            try sharing.sql.execute(
                "INSERT INTO group_members (group_id, account) VALUES ($1, $2) ON CONFLICT (group_id, account) DO NOTHING", [.id(group), .id(account)])
            try sharing.audit("group-changed", session.home, "\(name): \(member) added")
            for share in try sharing.sql.query("SELECT namespace, role FROM group_shares WHERE group_id = $1", [.id(group)]) {
                let namespace: NamespaceID = try share.id(0)
                // The group's owner may have lost the right to invite.
                guard let role = share.text(1).flatMap(Role.init), let own = try Self.role(sharing.sql, session.account, namespace),
                      own >= (role == .manager ? .owner : .manager), account != session.account else { continue }
                try sharing.grant(Grant(namespace: namespace, account: account, source: .id(group)), role)
            }
        }
    }

    func removeFromGroup(_ session: Session, _ name: String, _ member: String) async throws(DriveError) {
        try await sharing(session) { sharing in
            let group = try sharing.requireGroup(name)
            guard let row = try sharing.sql.first("SELECT id FROM accounts WHERE name = $1", [.text(member)]),
                  try sharing.sql.execute("DELETE FROM group_members WHERE group_id = $1 AND account = $2", [.id(group), row.values[0]]) == 1 else {
                throw DriveError.notFound("\(member) is not in the group \(name).")
            }
            try sharing.audit("group-changed", session.home, "\(name): \(member) removed")
            try sharing.withdraw("source = $1 AND account = $2", [.id(group), row.values[0]])
        }
    }

    /// Invites all of a group, and whoever comes into it later.
    func setGroup(_ session: Session, _ namespace: NamespaceID, _ name: String, _ role: Role) async throws(DriveError) {
        try await sharing(session) { sharing in
            try sharing.requireManager(of: namespace, for: role)
            let group = try sharing.requireGroup(name)
            try sharing.sql.execute("""
                INSERT INTO group_shares (group_id, namespace, role) VALUES ($1, $2, $3) ON CONFLICT (group_id, namespace) DO UPDATE SET role = excluded.role
                """, [.id(group), .id(namespace), .text(role.rawValue)])
            try sharing.audit("group-invited", namespace, "\(name): \(role.rawValue)")
            for row in try sharing.sql.query("SELECT account FROM group_members WHERE group_id = $1 AND account <> $2", [.id(group), .id(session.account)]) {
                let account: AccountID = try row.id(0)
                guard try Self.role(sharing.sql, account, namespace) != .owner else { continue }
                try sharing.grant(Grant(namespace: namespace, account: account, source: .id(group)), role)
            }
        }
    }

    func removeGroup(_ session: Session, _ name: String, from namespace: NamespaceID) async throws(DriveError) {
        try await sharing(session) { sharing in
            try sharing.requireManager(of: namespace, for: .viewer)
            let group = try sharing.requireGroup(name)
            guard try sharing.sql.execute("DELETE FROM group_shares WHERE group_id = $1 AND namespace = $2", [.id(group), .id(namespace)]) == 1 else {
                throw DriveError.notFound("The group \(name) is not in this shared folder.")
            }
            try sharing.audit("group-withdrawn", namespace, name)
            try sharing.withdraw("source = $1 AND namespace = $2", [.id(group), .id(namespace)])
        }
    }
}

extension Drive.Sharing {
    func group(_ name: String) throws -> GroupID? {
        try sql.first("SELECT id FROM groups WHERE owner = $1 AND name = $2", [.id(session.account), .text(name)]).map { try $0.id(0) }
    }

    func requireGroup(_ name: String) throws -> GroupID {
        guard let group = try group(name) else { throw DriveError.notFound("You have no group \(name).") }
        return group
    }

    /// Takes grants back, with what they alone gave.
    mutating func withdraw(_ condition: String, _ arguments: [SQLValue]) throws {
        let grants = try sql.query("SELECT namespace, account FROM grants WHERE \(condition)", arguments)
        try sql.execute("DELETE FROM grants WHERE \(condition)", arguments)
        for row in grants { try settle(try row.id(0), try row.id(1)) }
    }
}
