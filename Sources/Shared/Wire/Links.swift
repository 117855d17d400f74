// Links: addresses that give people without an account a file, a folder, or a place to send files to.

public enum LinkTag {}
/// A link as its creator knows it; the address itself is a secret that the server keeps hashed.
public typealias LinkID = Identifier<LinkTag>

public enum LinkKind: String, Codable, Hashable, Sendable {
    /// Shows and gives a file, or a folder with all that is in it.
    case download
    /// Takes files into a folder and shows nothing of it.
    case upload
}

/// What a visitor meets.
public enum LinkState: String, Codable, Hashable, Sendable { case active, expired, exhausted, revoked }

/// `POST /v1/namespaces/{namespace}/links`
public struct LinkRequest: Codable, Hashable, Sendable {
    /// From the namespace's root, names separated by `/`; empty for the root itself.
    public var path: String
    public var kind: LinkKind
    public var password: String?
    /// Seconds from now; nil for ever.
    public var lifetimeSeconds: Int64?
    /// Downloads that are given; nil for any number.
    public var maximumDownloads: Int64?
    /// The page shows files and gives none away.
    public var viewOnly: Bool
    /// Bytes that all uploads through the link may have together; nil: as much as the quota allows.
    public var maximumBytes: UInt64?
    public init(
        path: String, kind: LinkKind = .download, password: String? = nil, lifetimeSeconds: Int64? = nil, maximumDownloads: Int64? = nil,
        viewOnly: Bool = false, maximumBytes: UInt64? = nil
    ) {
        (self.path, self.kind, self.password, self.lifetimeSeconds) = (path, kind, password, lifetimeSeconds)
        (self.maximumDownloads, self.viewOnly, self.maximumBytes) = (maximumDownloads, viewOnly, maximumBytes)
    }
}

/// `GET /v1/links/{link}`, and one of the list of `GET /v1/links`
public struct LinkInformation: Codable, Hashable, Sendable {
    public var id: LinkID
    public var namespace: NamespaceID
    public var node: NodeID
    /// Where the node lies now; nil when it is not there any more.
    public var path: String?
    public var kind: LinkKind
    public var state: LinkState
    /// The account that made it.
    public var creator: String
    public var hasPassword: Bool
    public var viewOnly: Bool
    public var created: Timestamp
    public var expires: Timestamp?
    public var revoked: Timestamp?
    public var maximumDownloads: Int64?
    public var downloads: Int64
    /// How often the page was shown.
    public var opens: Int64
    public var maximumBytes: UInt64?
    /// Bytes that came through an upload link.
    public var receivedBytes: UInt64
    public var lastUsed: Timestamp?
    public init(
        id: LinkID, namespace: NamespaceID, node: NodeID, path: String?, kind: LinkKind, state: LinkState, creator: String, hasPassword: Bool,
        viewOnly: Bool, created: Timestamp, expires: Timestamp?, revoked: Timestamp?, maximumDownloads: Int64?, downloads: Int64, opens: Int64,
        maximumBytes: UInt64?, receivedBytes: UInt64, lastUsed: Timestamp?
    ) {
        (self.id, self.namespace, self.node, self.path, self.kind, self.state, self.creator) = (id, namespace, node, path, kind, state, creator)
        (self.hasPassword, self.viewOnly, self.created, self.expires, self.revoked) = (hasPassword, viewOnly, created, expires, revoked)
        (self.maximumDownloads, self.downloads, self.opens, self.maximumBytes) = (maximumDownloads, downloads, opens, maximumBytes)
        (self.receivedBytes, self.lastUsed) = (receivedBytes, lastUsed)
    }
}

/// The answer to a `LinkRequest`: the only time that the address is told.
public struct LinkAnswer: Codable, Hashable, Sendable {
    public var link: LinkInformation
    /// The address below the server's own: `/l/TOKEN`.
    public var address: String
    public init(link: LinkInformation, address: String) { (self.link, self.address) = (link, address) }
}
