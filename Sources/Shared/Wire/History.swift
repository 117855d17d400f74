import Foundation

// Bodies of API v1 about what was: versions, trash, mass changes, conflicts. Field names are the JSON names.

/// One version of a file, as `GET …/versions` lists it.
public struct VersionInformation: Codable, Hashable, Sendable {
    public enum Kind: String, Codable, Sendable {
        /// What it was edited from is the parent; the first has none.
        case write
        /// Two edits in one; `parents` are both.
        case merge
        /// An older version's content again; `parents` are the version that it replaced and the one that it repeats.
        case restore
    }
    public var id: VersionID
    public var node: NodeID
    /// Bytes of the file.
    public var size: UInt64
    public var created: Timestamp
    /// The file's mtime.
    public var modified: Timestamp
    /// The account's name; nil if it is no more.
    public var author: String?
    public var device: String
    public var kind: Kind
    public var parents: [VersionID]
    /// A named version is kept for ever.
    public var name: String?
    /// It is what the file holds now.
    public var current: Bool
    /// What it holds; only where one version is asked for.
    public var content: Content?

    public init(
        id: VersionID, node: NodeID, size: UInt64, created: Timestamp, modified: Timestamp, author: String?, device: String, kind: Kind,
        parents: [VersionID], name: String?, current: Bool, content: Content? = nil
    ) {
        (self.id, self.node, self.size, self.created, self.modified) = (id, node, size, created, modified)
        (self.author, self.device, self.kind, self.parents) = (author, device, kind, parents)
        (self.name, self.current, self.content) = (name, current, content)
    }
}

/// `GET /v1/namespaces/{namespace}/versions?path=PATH`, newest first.
public struct VersionPage: Codable, Hashable, Sendable {
    public var node: NodeID
    /// The file is in the trash.
    public var deleted: Bool
    public var versions: [VersionInformation]
    /// Give it back as `after` for the next page; nil on the last.
    public var next: String?
    public init(node: NodeID, deleted: Bool, versions: [VersionInformation], next: String?) {
        (self.node, self.deleted, self.versions, self.next) = (node, deleted, versions, next)
    }
}

/// `PUT /v1/namespaces/{namespace}/versions/{version}/name`: nil takes the name away.
public struct VersionName: Codable, Hashable, Sendable {
    public var name: String?
    public init(name: String?) { self.name = name }
}

/// `POST /v1/namespaces/{namespace}/versions/{version}/restore`
public struct VersionRestoreRequest: Codable, Hashable, Sendable {
    /// The path of a new file; nil: the file itself gets a new version.
    public var to: String?
    public init(to: String?) { self.to = to }
}

/// `POST /v1/namespaces/{namespace}/restore`
public struct FolderRestoreRequest: Codable, Hashable, Sendable {
    /// From the root of the namespace, names separated by `/`; empty for the root.
    public var path: String
    public var at: Timestamp
    public init(path: String, at: Timestamp) { (self.path, self.at) = (path, at) }
}

/// What a call that takes something back did, in one transaction.
public struct RestoreAnswer: Codable, Hashable, Sendable {
    /// The namespace's number after it.
    public var sequence: Int64
    /// Files that got back a content, a place, or both.
    public var files: Int
    /// Files that went to the trash, because they were not there then.
    public var removed: Int
    /// Where the one thing that was asked for is now.
    public var path: String?
    /// What a person should know: another name, a parent that came back as well, what could not be brought back.
    public var notes: [String]
    public init(sequence: Int64 = 0, files: Int = 0, removed: Int = 0, path: String? = nil, notes: [String] = []) {
        (self.sequence, self.files, self.removed, self.path, self.notes) = (sequence, files, removed, path, notes)
    }
}

/// One of `GET /v1/namespaces/{namespace}/trash`.
public struct TrashItem: Codable, Hashable, Sendable {
    public var node: NodeID
    /// Where it was.
    public var path: String
    public var deleted: Timestamp
    public var directory: Bool
    /// st_mode.
    public var mode: UInt32
    /// Bytes of a file.
    public var size: UInt64
    /// Its folder is in the trash as well.
    public var parentDeleted: Bool
    public init(node: NodeID, path: String, deleted: Timestamp, mode: UInt32, size: UInt64, parentDeleted: Bool) {
        (self.node, self.path, self.deleted, self.mode, self.size, self.parentDeleted) = (node, path, deleted, mode, size, parentDeleted)
        directory = FileType(mode: mode) == .directory
    }
}

/// `GET /v1/namespaces/{namespace}/trash`, what was removed last first; with `folder`, only what was removed from that folder.
public struct TrashPage: Codable, Hashable, Sendable {
    public var items: [TrashItem]
    public var next: String?
    public init(items: [TrashItem], next: String?) { (self.items, self.next) = (items, next) }
}

/// `POST …/trash/restore` and `POST …/trash/purge`: one thing by its node or by the path where it was; for purge neither means all.
public struct TrashRequest: Codable, Hashable, Sendable {
    public var node: NodeID?
    public var path: String?
    /// Purge: only what was removed before.
    public var before: Timestamp?
    public init(node: NodeID? = nil, path: String? = nil, before: Timestamp? = nil) { (self.node, self.path, self.before) = (node, path, before) }
}

public struct PurgeAnswer: Codable, Hashable, Sendable {
    public var files: Int
    /// By which the namespace uses less.
    public var bytes: UInt64
    public init(files: Int, bytes: UInt64) { (self.files, self.bytes) = (files, bytes) }
}

/// One of `GET /v1/namespaces/{namespace}/events`: a device removed or rewrote many files in a short time.
public struct MassChange: Codable, Hashable, Sendable {
    public var id: EventID
    public var started: Timestamp
    public var last: Timestamp
    public var device: String
    public var author: String?
    /// The folder that it hit.
    public var path: String
    public var removed: Int
    public var rewritten: Int
    public var undone: Timestamp?
    public init(
        id: EventID, started: Timestamp, last: Timestamp, device: String, author: String?, path: String, removed: Int, rewritten: Int, undone: Timestamp?
    ) {
        (self.id, self.started, self.last, self.device, self.author) = (id, started, last, device, author)
        (self.path, self.removed, self.rewritten, self.undone) = (path, removed, rewritten, undone)
    }
}

/// One of `GET /v1/namespaces/{namespace}/conflicts`.
public struct Conflict: Codable, Hashable, Sendable {
    /// The file that kept its name.
    public var path: String
    public var copy: String
    public var created: Timestamp
    /// Whose change the copy holds.
    public var device: String
    /// It was the caller's device.
    public var mine: Bool
    public init(path: String, copy: String, created: Timestamp, device: String, mine: Bool) {
        (self.path, self.copy, self.created, self.device, self.mine) = (path, copy, created, device, mine)
    }
}

/// `POST /v1/namespaces/{namespace}/conflicts/resolve`
public struct ResolveRequest: Codable, Hashable, Sendable {
    /// `mine` is the copy on the device whose change became the copy, elsewhere the file under its own name; `theirs` is the other.
    public enum Side: String, Codable, Sendable, CaseIterable { case mine, theirs, both }
    /// The file's path or the copy's.
    public var path: String
    public var keep: Side
    public init(path: String, keep: Side) { (self.path, self.keep) = (path, keep) }
}

/// `GET` and `PUT /v1/account/settings`: how long versions and trash of the account's own tree are kept, in seconds.
public struct RetentionSettings: Codable, Hashable, Sendable {
    /// Every version, so long.
    public var allSeconds: Int64 = 86_400
    /// The last of each hour, so long.
    public var hourlySeconds: Int64 = 7 * 86_400
    /// The last of each day, so long.
    public var dailySeconds: Int64 = 90 * 86_400
    public var trashSeconds: Int64 = 30 * 86_400
    public init() {}
}

/// `GET` and `PUT /v1/namespaces/{namespace}/settings`
public struct NamespaceSettings: Codable, Hashable, Sendable {
    /// At most one version in so many seconds of a file that one device writes again and again; 0 keeps each.
    public var versionSeconds: Int64 = 60
    /// The mass-change guard: more files than this, and more than `guardPercent` of a folder, within `guardSeconds`. 0 files: no guard.
    public var guardFiles: Int64 = 200
    public var guardPercent: Int64 = 33
    public var guardSeconds: Int64 = 600
    public init() {}
}

public enum EventTag {}
/// A mass change.
public typealias EventID = Identifier<EventTag>
