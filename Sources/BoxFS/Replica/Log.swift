import Foundation
import GRDB
import Shared

/// What a log record says; the numbers stand in the database (docs/FORMAT.md).
enum LogKind: Int64, Sendable {
    case create = 1, link = 2, rename = 3, exchange = 4, remove = 5, setattr = 6, xattr = 7, content = 8
}

/// Which attributes a `setattr` record is about; their values are the node's own when the record is sent.
struct AttributeMask: OptionSet, Sendable {
    let rawValue: Int64
    static let mode = AttributeMask(rawValue: 1)
    static let uid = AttributeMask(rawValue: 2)
    static let gid = AttributeMask(rawValue: 4)
    static let accessed = AttributeMask(rawValue: 8)
    static let modified = AttributeMask(rawValue: 16)
}

/// One change that the server does not have yet.
struct LogRecord: Sendable {
    var id: Int64 = 0
    /// The number of the namespace whose commit sends it.
    var namespace: Int64
    var kind: LogKind
    var inode: InodeNumber
    var node: NodeID
    var parent: NodeID?
    var name: String?
    /// rename: the node that stood at the target; exchange: the other node.
    var otherNode: NodeID?
    var otherParent: NodeID?
    var otherName: String?
    /// setattr: the mask; xattr: the attribute's name; remove, rename: the version that was removed or replaced.
    var mask: AttributeMask = []
    var attribute: String?
    var version: VersionID?
    var time: Timestamp

    private var detail: (any DatabaseValueConvertible)? {
        switch kind {
        case .setattr: mask.rawValue
        case .xattr: attribute
        case .remove, .rename: version?.data
        default: nil
        }
    }

    /// - Returns: the record's number.
    func insert(_ rows: RowChanges) throws -> Int64 {
        try rows.execute(sql: """
            INSERT INTO log (namespace, kind, inode, node, parent, name, other_node, other_parent, other_name, detail, time)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            """, arguments: [
                namespace, kind.rawValue, Int64(inode.rawValue), node.data, parent?.data, name, otherNode?.data, otherParent?.data,
                otherName, detail, time.nanoseconds,
            ])
        return rows.database.lastInsertedRowID
    }

    /// The records of one namespace, in order.
    static func fetch(_ database: Database, _ namespace: Int64, limit: Int) throws -> [LogRecord] {
        let statement = try database.cachedStatement(sql: """
            SELECT id, kind, inode, node, parent, name, other_node, other_parent, other_name, detail, time
            FROM log WHERE namespace = ? ORDER BY id LIMIT ?
            """)
        return try Row.fetchAll(statement, arguments: [namespace, limit]).map { row in
            guard let kind = LogKind(rawValue: row[1]), let node = NodeID(bytes: row[3] as Data) else { throw FileSystemError.io }
            func id(_ column: Int) -> NodeID? { (row[column] as Data?).flatMap { NodeID(bytes: $0) } }
            var record = LogRecord(
                id: row[0], namespace: namespace, kind: kind, inode: InodeNumber(rawValue: UInt64(row[2] as Int64)), node: node, parent: id(4),
                name: row[5], otherNode: id(6), otherParent: id(7), otherName: row[8], time: Timestamp(nanoseconds: row[10]))
            switch kind {
            case .setattr: record.mask = AttributeMask(rawValue: row[9])
            case .xattr: record.attribute = row[9]
            case .remove, .rename: record.version = (row[9] as Data?).flatMap { VersionID(bytes: $0) }
            default: break
            }
            return record
        }
    }
}
