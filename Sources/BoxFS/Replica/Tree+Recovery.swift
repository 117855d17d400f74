import ChunkCache
import Foundation
import Glibc
import GRDB
import Shared

// What a replica begins with: its first row, or the rows of an earlier process.
extension Tree {
    /// The first row of a new replica. Under the lock.
    func makeRoot(_ node: Node, namespace: NamespaceID, cursor: Int64) throws(FileSystemError) {
        let root = Inode(number: .root, id: node.id, mode: node.mode, uid: node.uid, gid: node.gid, time: node.modified)
        root.assign(node)
        root.hydration = .unknown
        register(root)
        try setMeta("namespace", namespace.description)
        try save(Namespace(number: Namespace.home, id: namespace, root: .root, junction: nil, role: .owner, cursor: cursor))
        try commit()
    }

    /// A process that ended between a write and the close left a content of which no record speaks: it is what is here, so the server shall
    /// have it. Where something was written there is a segment; what was only cut off, or shares chunks of another file, has none.
    private func logInterruptedWrites() throws(FileSystemError) {
        let written = try database.read { database in
            try Int64.fetchAll(database, sql: """
                SELECT inode FROM (SELECT inode FROM segments UNION SELECT inode FROM nodes WHERE unlogged = 1) AS written WHERE NOT EXISTS (
                    SELECT 1 FROM log WHERE log.inode = written.inode AND log.kind = ? AND log.id > ?)
                """, arguments: [LogKind.content.rawValue, lastCut])
        }
        for number in written {
            guard let inode = try? inode(InodeNumber(rawValue: UInt64(number))), inode.links > 0 else { continue }
            try content(of: inode).hasUnlogged = true
            try logContent(inode)
        }
    }

    /// A power cut may have kept a row and lost what was written to its segment without fsync: the slot has again what it had before,
    /// or, if there was nothing, what is there and zeros. A content is loaded only when all rows are right.
    private func recoverSegments() throws(FileSystemError) {
        let rows = try database.read {
            try Row.fetchAll($0, sql: "SELECT s.*, n.size FROM segments s JOIN nodes n ON n.inode = s.inode")
                .map { (inode: $0["inode"] as Int64, size: UInt64($0["size"] as Int64), row: try SegmentRow($0)) }
        }
        var lost: [(inode: Int64, start: Int)] = [], logs = PieceLogs(readLog)
        for (inode, size, row) in rows {
            guard row.bytes == nil else {
                cache.count(reservedBytes: row.reservedBytes([]))
                continue
            }
            let (held, modified) = status(row.file)
            var kept = row, records: [PieceRecord] = [], written: Timestamp?
            if row.base == nil {
                kept.length = row.length(held: held, size: size)
                if kept.length > row.length { written = modified }
            } else {
                records = logs.records(of: row).filter { $0.end <= held }
                kept.known = records.last?.end ?? 0
                if kept.known > row.known, row.before4 == nil { written = records.last?.time }
            }
            let isBaseLost = row.base.map { status($0).size < row.baseLength } ?? false
            if isBaseLost || kept.length < row.length, row.origin != nil {
                // Nothing of it was synced, or it would have no origin.
                cache.count(reservedBytes: row.reservedBytes(records))
                lost.append((inode, row.start))
                continue
            }
            if isBaseLost, let base = row.base { try segments.setLength(row.baseLength, of: base) }
            let extent = SlotTable.extent(from: row.start, size: size)
            if row.before4 != nil || records.contains(where: { $0.range.upperBound > extent }) { try writeLog(of: &kept, &records, extent) }
            cache.count(reservedBytes: kept.reservedBytes(records))
            guard kept.saved != row.saved else { continue }
            try save(kept, inode, written, growsFrom: row.length)
        }
        for (number, start) in lost {
            let inode = try self.inode(InodeNumber(rawValue: UInt64(number)))
            try content(of: inode).restoreOrigin(start)
            markContentDirty(inode)
        }
    }

    private func status(_ file: Int64) -> (size: Int, modified: Timestamp) {
        var status = stat()
        return stat(segments.path(file), &status) == 0 ? (Int(status.st_size), Timestamp(status.st_mtim)) : (0, Timestamp(nanoseconds: 0))
    }

    /// What a log holds. What is not whole goes: behind the next record it might make sense again. A log that is lost begins anew.
    private func readLog(_ file: Int64) -> [Int64: [PieceRecord]] {
        let (byBase, end) = PieceRecord.readAll(segments.path(file))
        try? segments.setLength(end, of: file)
        return byBase
    }

    /// Gives a patch a log of its own, with records for no more than the slot has: what was written behind the end, and never promised, must
    /// not show up when the file grows.
    private func writeLog(of row: inout SegmentRow, _ records: inout [PieceRecord], _ extent: Int) throws(FileSystemError) {
        let old = Segment(file: row.file, length: 0, store: segments), log = try segments.make()
        var written: [PieceRecord] = []
        for record in records where record.range.lowerBound < extent {
            var bytes = [UInt8](repeating: 0, count: record.range.clamped(to: 0..<extent).count)
            let source = try old.open().rawValue
            try bytes.withMutableBytes { bytes throws(FileSystemError) in try readFully(source, bytes, at: record.position) }
            let copy = PieceRecord(
                base: record.base, range: record.range.clamped(to: 0..<extent), time: record.time, position: log.length + PieceRecord.headByteCount)
            let target = try log.open().rawValue
            try bytes.withBytes { bytes throws(FileSystemError) in try copy.write(bytes, to: target) }
            log.length = copy.end
            written.append(copy)
        }
        try segments.sync(log)
        (row.file, row.known, records) = (log.file, log.length, written)
    }

    /// - Parameter written: when what no row told of was written.
    private func save(_ row: SegmentRow, _ inode: Int64, _ written: Timestamp?, growsFrom length: Int) throws(FileSystemError) {
        try change {
            if row.length > length {
                try $0.execute(sql: "UPDATE nodes SET size = ? WHERE inode = ?", arguments: [row.start + row.length, inode])
            }
            if let written {
                try $0.execute(
                    sql: "UPDATE nodes SET modified = max(modified, ?), changed = max(changed, ?) WHERE inode = ?",
                    arguments: [written.nanoseconds, written.nanoseconds, inode])
            }
            if row.length == 0 {
                try $0.execute(sql: "DELETE FROM segments WHERE inode = ? AND start = ?", arguments: [inode, row.start])
            } else {
                try row.save($0, inode: inode)
                if row.before4 != nil { try $0.execute(sql: "UPDATE segments SET pieces = NULL WHERE inode = ? AND start = ?", arguments: [inode, row.start]) }
            }
        }
    }

    /// Brings the rows of an earlier process into a state that this one may build on. Under the lock.
    func recover() throws(FileSystemError) {
        try change { rows in
            // Each by a partial index, whose condition the last one repeats: a replica may have a million rows.
            try rows.database.execute(sql: """
                DELETE FROM segments WHERE inode IN (SELECT inode FROM nodes WHERE links = 0);
                DELETE FROM manifests WHERE inode IN (SELECT inode FROM nodes WHERE links = 0);
                DELETE FROM nodes WHERE links = 0 AND NOT EXISTS (SELECT 1 FROM log WHERE log.node = nodes.id);
                UPDATE nodes SET hydrated = 0 WHERE hydrated = 1 AND hydrated < 2 AND mode & 61440 = 16384
                """)
        }
        let outgoing = try Outgoing.loadAll(self)
        lastCut = outgoing.map(\.lastLog).max() ?? 0
        try recoverSegments()
        var claims: [ChunkHash: Int] = [:]
        for chunk in outgoing.flatMap(\.claims) { claims[chunk.hash, default: 0] += 1 }
        cache.resetUnsentClaims(claims)
        try logInterruptedWrites()
        // What lies in the outbox has its claims already, and nobody would take a second one back.
        let changed = try database.read {
            try Int64.fetchAll($0, sql: """
                SELECT DISTINCT inode FROM log WHERE kind = ? AND id > coalesce((SELECT last_log FROM outbox o WHERE o.namespace = log.namespace), 0)
                """, arguments: [LogKind.content.rawValue])
        }
        for number in changed {
            guard let inode = try? inode(InodeNumber(rawValue: UInt64(number))), inode.links > 0 else { continue }
            try content(of: inode).restateClaims()
        }
        try commit()
    }
}
