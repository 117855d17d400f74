import Foundation

/// A node as the server tells it: the current row, with the sequence of its last change.
public struct Node: Codable, Hashable, Sendable {
    public var id: NodeID
    /// The namespace's number of this row's last change.
    public var sequence: Int64
    /// `st_mode` of inode(7): file type and permission bits, of which the type never changes.
    public var mode: UInt32
    public var uid: UInt32
    public var gid: UInt32
    /// `st_rdev` of a device node, otherwise 0.
    public var device: UInt64
    public var accessed: Timestamp
    public var modified: Timestamp
    public var changed: Timestamp
    public var created: Timestamp
    /// Number of live entries that name it; a directory's is 1.
    public var links: UInt32
    /// A regular file's current version; nil until its first content, when it is empty.
    public var version: VersionID?
    /// What that version holds; nil for anything but a regular file with a version.
    public var content: Content?
    /// A symlink's target, 1 to 4095 bytes.
    public var target: String?
    /// Extended attributes (xattr(7)) by name. Values are at most 64 KiB, all together at most 128 KiB.
    public var xattrs: [String: Data]
    /// No entry names it any more.
    public var deleted: Bool
    /// A junction's: the shared folder that it stands for. It has no entries of its own.
    public var shared: SharedFolder?

    public init(
        id: NodeID, sequence: Int64, mode: UInt32, uid: UInt32, gid: UInt32, device: UInt64 = 0, accessed: Timestamp,
        modified: Timestamp, changed: Timestamp, created: Timestamp, links: UInt32, version: VersionID? = nil,
        content: Content? = nil, target: String? = nil, xattrs: [String: Data] = [:], deleted: Bool = false,
        shared: SharedFolder? = nil
    ) {
        self.id = id
        self.sequence = sequence
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.device = device
        self.accessed = accessed
        self.modified = modified
        self.changed = changed
        self.created = created
        self.links = links
        self.version = version
        self.content = content
        self.target = target
        self.xattrs = xattrs
        self.deleted = deleted
        self.shared = shared
    }
}

/// File type bits of `st_mode` (inode(7)).
public enum FileType: UInt32, Sendable {
    case fifo = 0o010000
    case characterDevice = 0o020000
    case directory = 0o040000
    case blockDevice = 0o060000
    case regular = 0o100000
    case symlink = 0o120000
    case socket = 0o140000

    /// nil when the type bits name no type.
    public init?(mode: UInt32) { self.init(rawValue: mode & 0o170000) }
}

/// (parent, name) → node, as the server tells it.
public struct Entry: Codable, Hashable, Sendable {
    public var parent: NodeID
    public var name: String
    public var node: NodeID
    public var sequence: Int64
    public var deleted: Bool

    public init(parent: NodeID, name: String, node: NodeID, sequence: Int64, deleted: Bool = false) {
        self.parent = parent
        self.name = name
        self.node = node
        self.sequence = sequence
        self.deleted = deleted
    }
}
