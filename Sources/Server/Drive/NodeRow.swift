import Foundation
import Shared

/// A row of `nodes`.
struct NodeRow: Sendable {
    var id: NodeID
    var namespace: NamespaceID
    var sequence: Int64
    var mode: UInt32
    var uid: UInt32
    var gid: UInt32
    var device: UInt64
    var accessed: Timestamp
    var modified: Timestamp
    var changed: Timestamp
    var created: Timestamp
    var links: Int64
    var version: VersionID?
    var target: String?
    var xattrs: [String: Data]
    /// When the server first saw it.
    var arrived: Timestamp
    var deletedAt: Timestamp?
    /// A junction's namespace.
    var shared: NamespaceID?

    static let columns = "id, namespace, sequence, mode, uid, gid, device, accessed, modified, changed, created, links, version, target, xattrs, arrived, deleted_at, shared"

    static let columnCount = columns.split(separator: ",").count

    /// The same in a query of several tables.
    static func columns(of table: String) -> String {
        columns.split(separator: ",").map { "\(table)." + $0.drop { $0 == " " } }.joined(separator: ", ")
    }

    var isDirectory: Bool { mode & 0o170000 == FileType.directory.rawValue }
    var isRegular: Bool { mode & 0o170000 == FileType.regular.rawValue }

    init(root: NodeID, namespace: NamespaceID, time: Timestamp) {
        self.init(
            Node(id: root, sequence: 1, mode: FileType.directory.rawValue | 0o755, uid: 0, gid: 0, accessed: time, modified: time,
                 changed: time, created: time, links: 1), namespace: namespace, arrived: time)
        sequence = 1
    }

    init(_ node: Node, namespace: NamespaceID, arrived: Timestamp) {
        id = node.id
        self.namespace = namespace
        sequence = 0
        (mode, uid, gid, device) = (node.mode, node.uid, node.gid, node.device)
        (accessed, modified, changed, created) = (node.accessed, node.modified, node.changed, node.created)
        links = 1
        target = node.target
        xattrs = node.xattrs
        self.arrived = arrived
    }

    init(_ row: SQLRow) throws {
        id = try row.id(0)
        namespace = try row.id(1)
        sequence = row.int(2)
        mode = UInt32(truncatingIfNeeded: row.int(3))
        uid = UInt32(truncatingIfNeeded: row.int(4))
        gid = UInt32(truncatingIfNeeded: row.int(5))
        device = UInt64(bitPattern: row.int(6))
        (accessed, modified, changed, created) = (row.time(7), row.time(8), row.time(9), row.time(10))
        links = row.int(11)
        version = try row.isNull(12) ? nil : row.id(12)
        target = row.text(13)
        xattrs = try row.text(14).map { try JSONDecoder().decode([String: Data].self, from: Data($0.utf8)) } ?? [:]
        arrived = row.time(15)
        deletedAt = row.isNull(16) ? nil : row.time(16)
        shared = try row.isNull(17) ? nil : row.id(17)
    }

    static func fetch(_ sql: any SQLConnection, _ id: NodeID) throws -> NodeRow? {
        try sql.first("SELECT \(columns) FROM nodes WHERE id = $1", [.id(id)]).map { try NodeRow($0) }
    }

    func save(_ sql: any SQLConnection) throws {
        let packed = xattrs.isEmpty ? nil : String(decoding: try JSONEncoder().encode(xattrs), as: UTF8.self)
        try sql.execute("""
            INSERT INTO nodes (\(Self.columns)) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
            ON CONFLICT (id) DO UPDATE SET sequence = excluded.sequence, mode = excluded.mode, uid = excluded.uid, gid = excluded.gid,
            accessed = excluded.accessed, modified = excluded.modified, changed = excluded.changed, links = excluded.links,
            version = excluded.version, xattrs = excluded.xattrs, deleted_at = excluded.deleted_at, shared = excluded.shared
            """, [
                .id(id), .id(namespace), .integer(sequence), .int(mode), .int(uid), .int(gid), .integer(Int64(bitPattern: device)),
                .time(accessed), .time(modified), .time(changed), .time(created), .integer(links), .id(version),
                target.map { .text($0) } ?? .null, packed.map { .text($0) } ?? .null, .time(arrived), .time(deletedAt), .id(shared),
            ])
    }

    /// As it travels; `content` is the current version's.
    func node(_ content: Content?) -> Node {
        Node(
            id: id, sequence: sequence, mode: mode, uid: uid, gid: gid, device: device, accessed: accessed, modified: modified, changed: changed,
            created: created, links: UInt32(clamping: links), version: version, content: content, target: target, xattrs: xattrs,
            deleted: deletedAt != nil)
    }

    static func content(_ sql: any SQLConnection, _ version: VersionID?) throws -> Content? {
        guard let version, let row = try sql.first("SELECT size, inline, pages FROM versions WHERE id = $1", [.id(version)]) else { return nil }
        return try content(row.values[...])
    }

    /// - Parameter columns: `size`, `inline`, `pages` of a version.
    static func content(_ columns: ArraySlice<SQLValue>) throws -> Content {
        let row = SQLRow(values: Array(columns))
        let pages = try row.blob(2).map { packed in
            try stride(from: 0, to: packed.count, by: 32).map { at -> ChunkHash in
                guard let hash = ChunkHash(bytes: packed[at..<min(at + 32, packed.count)]) else { throw StoreError(description: "a page list of a wrong length") }
                return hash
            }
        }
        return Content(size: UInt64(row.int(0)), inline: row.blob(1).map { Data($0) }, pages: pages)
    }
}
