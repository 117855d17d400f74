// Bodies of API v1 about shared folders. Field names are the JSON names.

/// What a member may do in a namespace; each may do what those before it may.
public enum Role: String, Codable, Comparable, CaseIterable, Sendable {
    /// Reads.
    case viewer
    /// Changes files and folders.
    case editor
    /// Makes links and invites people.
    case manager
    /// Sees the audit, names managers and may give the namespace away. There is one.
    case owner

    public static func < (a: Role, b: Role) -> Bool { allCases.firstIndex(of: a)! < allCases.firstIndex(of: b)! }
}

/// What a junction leads to: the directory of a home that stands for a shared folder. With a junction, the row of the shared folder's
/// root comes in `nodes` as well.
public struct SharedFolder: Codable, Hashable, Sendable {
    public var namespace: NamespaceID
    public var root: NodeID
    /// The reader's role there. A change of it tells the junction again.
    public var role: Role
    /// The shared namespace's number when this was read: its feed may be followed from here.
    public var sequence: Int64
    public init(namespace: NamespaceID, root: NodeID, role: Role, sequence: Int64) {
        (self.namespace, self.root, self.role, self.sequence) = (namespace, root, role, sequence)
    }
}

/// `POST /v1/namespaces/{namespace}/shares`: makes a folder of the caller's home a shared one, in place.
public struct ShareRequest: Codable, Hashable, Sendable {
    /// From the root of the namespace, names separated by `/`.
    public var path: String
    public init(path: String) { self.path = path }
}

/// One of `GET /v1/shares`: a shared folder that the caller is in or invited to.
public struct Share: Codable, Hashable, Sendable {
    public var namespace: NamespaceID
    /// What the owner calls it.
    public var name: String
    public var owner: String
    public var role: Role
    /// Where it stands in the caller's home; nil for an invitation that was not accepted.
    public var path: String?
    /// Who invited the caller; nil for its owner.
    public var invitedBy: String?
    public init(namespace: NamespaceID, name: String, owner: String, role: Role, path: String?, invitedBy: String?) {
        (self.namespace, self.name, self.owner, self.role, self.path, self.invitedBy) = (namespace, name, owner, role, path, invitedBy)
    }
}

/// One of `GET /v1/namespaces/{namespace}/members`.
public struct Member: Codable, Hashable, Sendable {
    public var account: String
    public var role: Role
    /// Invited, and not there yet.
    public var invited: Bool
    /// Groups of the reader's through which the right comes.
    public var groups: [String]
    public init(account: String, role: Role, invited: Bool, groups: [String] = []) {
        (self.account, self.role, self.invited, self.groups) = (account, role, invited, groups)
    }
}

/// `PUT /v1/namespaces/{namespace}/members/{name}` and `PUT /v1/namespaces/{namespace}/groups/{name}`
public struct RoleRequest: Codable, Hashable, Sendable {
    public var role: Role
    public init(role: Role) { self.role = role }
}

/// `POST /v1/namespaces/{namespace}/accept`
public struct AcceptRequest: Codable, Hashable, Sendable {
    /// Where it is to stand in the caller's home; nil: in the root, under its owner's name for it.
    public var path: String?
    public init(path: String?) { self.path = path }
}

/// `POST /v1/namespaces/{namespace}/transfer`
public struct TransferRequest: Codable, Hashable, Sendable {
    public var account: String
    public init(account: String) { self.account = account }
}

/// `GET` and `PUT /v1/account/sharing`
public struct SharingSettings: Codable, Hashable, Sendable {
    /// Shared folders appear in the root of the home without being accepted one by one.
    public var acceptsAutomatically: Bool
    public init(acceptsAutomatically: Bool = true) { self.acceptsAutomatically = acceptsAutomatically }
}

/// One of `GET /v1/groups`: people whom the caller invites together.
public struct Group: Codable, Hashable, Sendable {
    public var name: String
    public var members: [String]
    public init(name: String, members: [String]) { (self.name, self.members) = (name, members) }
}

/// `POST /v1/changes`: the feeds of several namespaces in one call; waits until one of them has something to tell.
public struct FollowRequest: Codable, Hashable, Sendable {
    public struct Cursor: Codable, Hashable, Sendable {
        public var namespace: NamespaceID
        public var after: Int64
        public init(namespace: NamespaceID, after: Int64) { (self.namespace, self.after) = (namespace, after) }
    }
    /// At most 1,000.
    public var cursors: [Cursor]
    /// Rows in each page.
    public var limit: Int
    /// Seconds; at most 60.
    public var wait: Int
    public init(cursors: [Cursor], limit: Int, wait: Int) { (self.cursors, self.limit, self.wait) = (cursors, limit, wait) }
}

public struct FollowAnswer: Codable, Hashable, Sendable {
    public struct Page: Codable, Hashable, Sendable {
        public var namespace: NamespaceID
        public var page: ChangePage
        public init(namespace: NamespaceID, page: ChangePage) { (self.namespace, self.page) = (namespace, page) }
    }
    /// Of the namespaces that the caller may read, in the order of the request; those without news are left out, but for the first.
    public var pages: [Page]
    public init(pages: [Page]) { self.pages = pages }
}
