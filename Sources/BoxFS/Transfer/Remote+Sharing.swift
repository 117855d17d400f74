import Shared

// Shared folders and groups (docs/openapi.yaml).
extension Remote {
    func shares() async throws(RemoteError) -> [Share] { try await get("/v1/shares", seconds: 15) }

    /// The mass changes of a home and of the shared folders in it in which the account has at least this role, newest first; their paths are the
    /// home's. A folder whose server's answer is late is left out.
    func massChanges(home: NamespaceID, role: Role, seconds: Double = 30) async throws(RemoteError) -> [(namespace: NamespaceID, event: MassChange)] {
        var found = try await massChanges(home, seconds: seconds).map { (namespace: home, event: $0) }
        for share in try await shares() where share.role >= role {
            guard let path = share.path, let events = try? await massChanges(share.namespace, seconds: seconds) else { continue }
            for var event in events {
                event.path = event.path.isEmpty ? path : path + "/" + event.path
                found.append((share.namespace, event))
            }
        }
        return found.sorted { $0.event.last > $1.event.last }
    }

    /// The open conflicts of a home and of the shared folders in it; their paths are the home's.
    func conflicts(home: NamespaceID) async throws(RemoteError) -> [Conflict] {
        var found = try await conflicts(home)
        for share in try await shares() {
            guard let path = share.path else { continue }
            found += try await conflicts(share.namespace).map { conflict in
                var conflict = conflict
                (conflict.path, conflict.copy) = ("\(path)/\(conflict.path)", "\(path)/\(conflict.copy)")
                return conflict
            }
        }
        return found.sorted { $0.created > $1.created }
    }

    func share(_ namespace: NamespaceID, _ path: String) async throws(RemoteError) -> Share {
        try await post("/v1/namespaces/\(namespace)/shares", ShareRequest(path: path))
    }

    func members(_ namespace: NamespaceID) async throws(RemoteError) -> [Member] { try await get("/v1/namespaces/\(namespace)/members") }

    func setMember(_ namespace: NamespaceID, _ name: String, _ role: Role) async throws(RemoteError) {
        try await send("PUT", "/v1/namespaces/\(namespace)/members/\(Self.escaped(name))", RoleRequest(role: role))
    }

    func removeMember(_ namespace: NamespaceID, _ name: String) async throws(RemoteError) {
        try await send("DELETE", "/v1/namespaces/\(namespace)/members/\(Self.escaped(name))")
    }

    func accept(_ namespace: NamespaceID, at path: String?) async throws(RemoteError) -> Share {
        try await post("/v1/namespaces/\(namespace)/accept", AcceptRequest(path: path))
    }

    func decline(_ namespace: NamespaceID) async throws(RemoteError) {
        try await send("POST", "/v1/namespaces/\(namespace)/decline")
    }

    func transfer(_ namespace: NamespaceID, to name: String) async throws(RemoteError) {
        try await send("POST", "/v1/namespaces/\(namespace)/transfer", TransferRequest(account: name))
    }

    func sharingSettings() async throws(RemoteError) -> SharingSettings { try await get("/v1/account/sharing") }

    func setSharingSettings(_ settings: SharingSettings) async throws(RemoteError) { try await send("PUT", "/v1/account/sharing", settings) }

    // MARK: Groups

    func groups() async throws(RemoteError) -> [Group] { try await get("/v1/groups") }

    func addGroup(_ name: String) async throws(RemoteError) { try await send("PUT", "/v1/groups/\(Self.escaped(name))", [String: String]()) }

    func removeGroup(_ name: String) async throws(RemoteError) { try await send("DELETE", "/v1/groups/\(Self.escaped(name))") }

    func addToGroup(_ name: String, _ member: String) async throws(RemoteError) {
        try await send("PUT", "/v1/groups/\(Self.escaped(name))/members/\(Self.escaped(member))", [String: String]())
    }

    func removeFromGroup(_ name: String, _ member: String) async throws(RemoteError) {
        try await send("DELETE", "/v1/groups/\(Self.escaped(name))/members/\(Self.escaped(member))")
    }

    func setGroup(_ namespace: NamespaceID, _ name: String, _ role: Role) async throws(RemoteError) {
        try await send("PUT", "/v1/namespaces/\(namespace)/groups/\(Self.escaped(name))", RoleRequest(role: role))
    }

    func removeGroup(_ name: String, from namespace: NamespaceID) async throws(RemoteError) {
        try await send("DELETE", "/v1/namespaces/\(namespace)/groups/\(Self.escaped(name))")
    }
}
