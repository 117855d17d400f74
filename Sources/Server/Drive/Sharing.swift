import Shared

// The rules of sharing, within one transaction.
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
        if try Drive.acceptsAutomatically(sql, account) { try join(namespace, account, wanted, at: nil) }
    }

    // MARK: Homes

    private mutating func edit<T>(homeOf account: AccountID, _ body: (Committer) throws -> T) throws -> T {
        let committer = try Committer(sql, session, try Drive.home(sql, account), Drive.nothing(session), time)
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
    static func acceptsAutomatically(_ sql: any SQLConnection, _ account: AccountID) throws -> Bool {
        try sql.first("SELECT asks_before_sharing FROM accounts WHERE id = $1", [.id(account)])?.int(0) ?? 0 == 0
    }

    static func home(_ sql: any SQLConnection, _ account: AccountID) throws -> NamespaceID {
        guard let row = try sql.first("SELECT home FROM accounts WHERE id = $1", [.id(account)]) else { throw DriveError.notFound("There is no such account.") }
        return try row.id(0)
    }
}
