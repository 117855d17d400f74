import Foundation

/// One change of a namespace, in the words of the system calls. A commit is an ordered list of them, applied at once.
///
/// JSON: the fields of the case, with its name under `op`, and the operation's `id`.
public enum Operation: Hashable, Sendable {
    /// open(O_CREAT), mkdir, symlink, mknod: a new node with its first entry. `node.sequence`, `links`, `version`,
    /// `content` and `deleted` are not read: content comes with `.content`.
    case create(node: Node, parent: NodeID, name: String)
    /// link(2): one more entry for a node that is no directory.
    case link(node: NodeID, parent: NodeID, name: String, time: Timestamp)
    /// rename(2). `node` is what `name` named on the client; `replaced` is what stood at the target there, nil for
    /// nothing, and `replacedVersion` what the client last saw of it: a newer one on the server is not lost. `time` becomes ctime of what
    /// moved and mtime of both directories.
    case rename(
        node: NodeID, parent: NodeID, name: String, toParent: NodeID, toName: String, replaced: NodeID?, replacedVersion: VersionID? = nil,
        time: Timestamp)
    /// renameat2(RENAME_EXCHANGE): both entries stay, their nodes change places.
    case exchange(node: NodeID, parent: NodeID, name: String, otherNode: NodeID, otherParent: NodeID, otherName: String, time: Timestamp)
    /// unlink(2), and rmdir(2) when the node is a directory. `version` is what the client last saw of a file:
    /// a newer one on the server wins over the deletion.
    case remove(node: NodeID, parent: NodeID, name: String, version: VersionID?, time: Timestamp)
    /// chmod, chown, utimensat: what is not nil is set.
    case setattr(node: NodeID, mode: UInt32?, uid: UInt32?, gid: UInt32?, accessed: Timestamp?, modified: Timestamp?, changed: Timestamp)
    /// setxattr(2); removexattr(2) when `value` is nil.
    case xattr(node: NodeID, name: String, value: Data?, changed: Timestamp)
    /// New content of a file. `base` is the version that was edited (nil: none), `version` the new one's name.
    case content(node: NodeID, base: VersionID?, version: VersionID, content: Content, modified: Timestamp, changed: Timestamp)
}

extension Operation {
    /// The names that it speaks of, each with the node that stands there afterwards if all goes well, and the nodes. When its commit is
    /// answered the feed tells all of them, whatever became of it.
    public var spokenOf: (names: [(parent: NodeID, name: String, believed: NodeID?)], nodes: [NodeID]) {
        switch self {
        case .create(let node, let parent, let name): ([(parent, name, node.id)], [node.id])
        case .link(let node, let parent, let name, _): ([(parent, name, node)], [node])
        case .remove(let node, let parent, let name, _, _): ([(parent, name, nil)], [node])
        case .rename(let node, let parent, let name, let toParent, let toName, let replaced, _, _):
            ([(parent, name, nil), (toParent, toName, node)], [node] + (replaced.map { [$0] } ?? []))
        case .exchange(let node, let parent, let name, let otherNode, let otherParent, let otherName, _):
            ([(parent, name, otherNode), (otherParent, otherName, node)], [node, otherNode])
        case .setattr(let node, _, _, _, _, _, _), .xattr(let node, _, _, _), .content(let node, _, _, _, _, _): ([], [node])
        }
    }
}

/// An operation with its place in the client's log, which the answer repeats.
public struct NumberedOperation: Codable, Hashable, Sendable {
    public var id: Int64
    public var operation: Operation

    public init(id: Int64, operation: Operation) {
        self.id = id
        self.operation = operation
    }

    private enum Key: String, CodingKey {
        case id, op, node, parent, name, toParent, toName, replaced, replacedVersion, otherNode, otherParent, otherName, version, base
        case content, mode, uid, gid, accessed, modified, changed, time, value
    }

    public init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: Key.self)
        func get<T: Decodable>(_ key: Key) throws -> T { try fields.decode(T.self, forKey: key) }
        func find<T: Decodable>(_ key: Key) throws -> T? { try fields.decodeIfPresent(T.self, forKey: key) }
        id = try get(.id)
        let op: String = try get(.op)
        switch op {
        case "create": operation = .create(node: try get(.node), parent: try get(.parent), name: try get(.name))
        case "link":
            operation = .link(node: try get(.node), parent: try get(.parent), name: try get(.name), time: try get(.time))
        case "rename":
            operation = .rename(
                node: try get(.node), parent: try get(.parent), name: try get(.name), toParent: try get(.toParent),
                toName: try get(.toName), replaced: try find(.replaced), replacedVersion: try find(.replacedVersion), time: try get(.time))
        case "exchange":
            operation = .exchange(
                node: try get(.node), parent: try get(.parent), name: try get(.name), otherNode: try get(.otherNode),
                otherParent: try get(.otherParent), otherName: try get(.otherName), time: try get(.time))
        case "remove":
            operation = .remove(
                node: try get(.node), parent: try get(.parent), name: try get(.name), version: try find(.version),
                time: try get(.time))
        case "setattr":
            operation = .setattr(
                node: try get(.node), mode: try find(.mode), uid: try find(.uid), gid: try find(.gid),
                accessed: try find(.accessed), modified: try find(.modified), changed: try get(.changed))
        case "xattr":
            operation = .xattr(
                node: try get(.node), name: try get(.name), value: try find(.value), changed: try get(.changed))
        case "content":
            operation = .content(
                node: try get(.node), base: try find(.base), version: try get(.version), content: try get(.content),
                modified: try get(.modified), changed: try get(.changed))
        default:
            throw DecodingError.dataCorruptedError(forKey: .op, in: fields, debugDescription: "unknown operation \(op)")
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var fields = encoder.container(keyedBy: Key.self)
        func put(_ key: Key, _ value: some Encodable) throws { try fields.encode(value, forKey: key) }
        func maybe(_ key: Key, _ value: (some Encodable)?) throws { try fields.encodeIfPresent(value, forKey: key) }
        try put(.id, id)
        switch operation {
        case .create(let node, let parent, let name):
            try put(.op, "create"); try put(.node, node); try put(.parent, parent); try put(.name, name)
        case .link(let node, let parent, let name, let time):
            try put(.op, "link"); try put(.node, node); try put(.parent, parent); try put(.name, name); try put(.time, time)
        case .rename(let node, let parent, let name, let toParent, let toName, let replaced, let replacedVersion, let time):
            try put(.op, "rename"); try put(.node, node); try put(.parent, parent); try put(.name, name)
            try put(.toParent, toParent); try put(.toName, toName); try maybe(.replaced, replaced); try maybe(.replacedVersion, replacedVersion); try put(.time, time)
        case .exchange(let node, let parent, let name, let otherNode, let otherParent, let otherName, let time):
            try put(.op, "exchange"); try put(.node, node); try put(.parent, parent); try put(.name, name)
            try put(.otherNode, otherNode); try put(.otherParent, otherParent); try put(.otherName, otherName); try put(.time, time)
        case .remove(let node, let parent, let name, let version, let time):
            try put(.op, "remove"); try put(.node, node); try put(.parent, parent); try put(.name, name)
            try maybe(.version, version); try put(.time, time)
        case .setattr(let node, let mode, let uid, let gid, let accessed, let modified, let changed):
            try put(.op, "setattr"); try put(.node, node); try maybe(.mode, mode); try maybe(.uid, uid); try maybe(.gid, gid)
            try maybe(.accessed, accessed); try maybe(.modified, modified); try put(.changed, changed)
        case .xattr(let node, let name, let value, let changed):
            try put(.op, "xattr"); try put(.node, node); try put(.name, name); try maybe(.value, value); try put(.changed, changed)
        case .content(let node, let base, let version, let content, let modified, let changed):
            try put(.op, "content"); try put(.node, node); try maybe(.base, base); try put(.version, version)
            try put(.content, content); try put(.modified, modified); try put(.changed, changed)
        }
    }
}
