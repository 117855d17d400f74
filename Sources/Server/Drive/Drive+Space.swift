import Shared

// Quotas: an account's holds for all namespaces that it owns together.
extension Drive {
    /// What the owner of a namespace may store, and stores in all namespaces of the same owner.
    static func space(_ sql: any SQLConnection, ownedWith namespace: NamespaceID) throws -> (quota: UInt64?, used: UInt64) {
        guard let row = try sql.first("""
            SELECT h.quota, (SELECT sum(s.used) FROM members o JOIN namespaces s ON s.id = o.namespace WHERE o.account = m.account AND o.role = 'owner')
            FROM members m JOIN accounts a ON a.id = m.account JOIN namespaces h ON h.id = a.home WHERE m.namespace = $1 AND m.role = 'owner'
            """, [.id(namespace)]) else { throw DriveError.internalError("namespace \(namespace) has no owner") }
        return (row.isNull(0) ? nil : UInt64(row.int(0)), UInt64(row.int(1)))
    }

    /// With the space as a member may know it: only the owner learns what the owner has elsewhere.
    static func namespaceInformation(_ sql: any SQLConnection, _ namespace: NamespaceID, for session: Session) throws -> NamespaceInformation {
        var information = try namespaceInformation(sql, namespace)
        let isOwner = try role(sql, session.account, namespace) == .owner
        (information.quota, information.used) = isOwner ? try space(sql, ownedWith: namespace) : (nil, information.used)
        return information
    }
}
