import Shared

/// A row of `links`.
struct LinkRow: Sendable {
    let id: LinkID
    let namespace: NamespaceID
    let node: NodeID
    let account: AccountID
    let kind: LinkKind
    let isViewOnly: Bool
    let salt: [UInt8]?
    /// The scrypt key of its password.
    let password: [UInt8]?
    let created: Timestamp
    let expires: Timestamp?
    let revoked: Timestamp?
    let maximumDownloads: Int64?
    let downloads: Int64
    let opens: Int64
    let maximumBytes: UInt64?
    let received: UInt64
    let used: Timestamp?

    static let columns = """
        id, namespace, node, account, kind, view_only, salt, password, created, expires, revoked, maximum_downloads, downloads, opens, \
        maximum_bytes, received, used
        """

    init(_ row: SQLRow) throws {
        id = try row.id(0)
        namespace = try row.id(1)
        node = try row.id(2)
        account = try row.id(3)
        guard let kind = row.text(4).flatMap(LinkKind.init) else { throw StoreError(description: "a link of an unknown kind") }
        self.kind = kind
        isViewOnly = row.int(5) != 0
        (salt, password) = (row.blob(6), row.blob(7))
        created = row.time(8)
        func time(_ column: Int) -> Timestamp? { row.isNull(column) ? nil : row.time(column) }
        (expires, revoked) = (time(9), time(10))
        maximumDownloads = row.isNull(11) ? nil : row.int(11)
        (downloads, opens) = (row.int(12), row.int(13))
        maximumBytes = row.isNull(14) ? nil : UInt64(row.int(14))
        received = UInt64(row.int(15))
        used = time(16)
    }

    func state(at time: Timestamp) -> LinkState {
        if revoked != nil { return .revoked }
        if let expires, expires <= time { return .expired }
        if let maximumDownloads, downloads >= maximumDownloads { return .exhausted }
        if let maximumBytes, received >= maximumBytes { return .exhausted }
        return .active
    }

    /// What a browser keeps once the password was given: known only to who knew the password, void when the link is.
    var proof: String? {
        password.map { SHA256.hash(Array("boxfs link proof".utf8) + id.bytes + $0).description }
    }
}
