import Foundation
import GRDB
import Shared

// How an inode lies in the table `nodes`.
extension Inode {
    static let columns =
        "inode, id, mode, uid, gid, device, accessed, modified, changed, created, links, size, version, pages, target, xattrs, hydrated, sequence, namespace, unlogged"

    convenience init(row: Row) throws {
        guard let id = NodeID(bytes: row[1] as Data), FileType(mode: UInt32(truncatingIfNeeded: row[2] as Int64)) != nil else {
            throw FileSystemError.io
        }
        self.init(
            number: InodeNumber(rawValue: UInt64(row[0] as Int64)), id: id, mode: UInt32(truncatingIfNeeded: row[2] as Int64),
            uid: UInt32(truncatingIfNeeded: row[3] as Int64), gid: UInt32(truncatingIfNeeded: row[4] as Int64),
            device: UInt64(bitPattern: row[5] as Int64), time: Timestamp(nanoseconds: row[6]))
        modified = Timestamp(nanoseconds: row[7])
        changed = Timestamp(nanoseconds: row[8])
        created = Timestamp(nanoseconds: row[9])
        links = UInt32(truncatingIfNeeded: row[10] as Int64)
        size = UInt64(row[11] as Int64)
        version = (row[12] as Data?).flatMap { VersionID(bytes: $0) }
        pages = (row[13] as Data?).map(ChunkHash.unpack)
        target = row[14]
        if let packed = row[15] as Data? { xattrs = try JSONDecoder().decode([String: Data].self, from: packed) }
        hydration = Hydration(rawValue: row[16]) ?? .unknown
        sequence = row[17]
        namespace = row[18]
    }

    /// Sorted: the same attributes are the same bytes.
    private static let attributeEncoder = {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        return encoder
    }()

    func save(_ rows: RowChanges) throws {
        guard isDirtyBeyondTimes else {
            return try rows.execute(
                sql: "UPDATE nodes SET modified = ?, changed = ? WHERE inode = ?", arguments: [modified.nanoseconds, changed.nanoseconds, Int64(number.rawValue)])
        }
        try saveWhole(rows)
    }

    func saveWhole(_ rows: RowChanges) throws {
        let packedXattrs = xattrs.isEmpty ? nil : try Self.attributeEncoder.encode(xattrs)
        try rows.execute(sql: """
            INSERT INTO nodes (\(Self.columns)) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (inode) DO UPDATE SET id = excluded.id, mode = excluded.mode, uid = excluded.uid, gid = excluded.gid,
            accessed = excluded.accessed, modified = excluded.modified, changed = excluded.changed, links = excluded.links,
            size = excluded.size, version = excluded.version, pages = excluded.pages, xattrs = excluded.xattrs,
            hydrated = excluded.hydrated, sequence = excluded.sequence, namespace = excluded.namespace,
            unlogged = excluded.unlogged
            """, arguments: [
                Int64(number.rawValue), id.data, Int64(mode), Int64(uid), Int64(gid), Int64(bitPattern: device),
                accessed.nanoseconds, modified.nanoseconds, changed.nanoseconds, created.nanoseconds, Int64(links),
                Int64(size), version?.data, pages.map(ChunkHash.pack), target, packedXattrs, hydration.rawValue, sequence, namespace,
                hasUnloggedContent,
            ])
    }

    /// Takes over what the server says, content excepted.
    func assign(_ node: Node) {
        mode = node.mode
        uid = node.uid
        gid = node.gid
        device = node.device
        (accessed, modified, changed, created) = (node.accessed, node.modified, node.changed, node.created)
        target = node.target
        xattrs = node.xattrs
        sequence = node.sequence
        if !isRegular { size = UInt64(node.target?.utf8.count ?? 0) }
    }
}

extension Identifier {
    var data: Data { Data(bytes) }
}

extension ChunkHash {
    static func pack(_ hashes: [ChunkHash]) -> Data { Data(hashes.flatMap(\.bytes)) }

    static func unpack(_ data: Data) -> [ChunkHash] {
        stride(from: 0, to: data.count - byteCount + 1, by: byteCount).compactMap {
            ChunkHash(bytes: data.dropFirst($0).prefix(byteCount))
        }
    }
}
