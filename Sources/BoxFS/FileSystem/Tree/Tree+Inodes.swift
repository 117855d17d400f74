import ChunkCache
import GRDB
import Shared

// Inodes and their contents: found, made, and forgotten with their rows. Under the lock.
extension Tree {
    /// The inode in memory or from its row. Under the lock.
    func inode(_ number: InodeNumber) throws(FileSystemError) -> Inode {
        if let inode = inodes[number] {
            inode.wasUsed = true
            return inode
        }
        if number.isOfVersions { throw .readOnly }
        let row = try database.read { database in
            try Row.fetchOne(database.cachedStatement(sql: "SELECT \(Inode.columns) FROM nodes WHERE inode = ?"), arguments: [Int64(number.rawValue)])
                .map { try Inode(row: $0) }
        }
        guard let inode = row else { throw .stale }
        inodes[number] = inode
        return inode
    }

    /// A junction's is the root of what it leads to.
    func inode(of id: NodeID) throws(FileSystemError) -> Inode? {
        if namespaces.count > 1, let shared = namespaces.values.first(where: { $0.junction == id }) { return try inode(shared.root) }
        let known = try database.read { database in
            try Int64.fetchOne(database.cachedStatement(sql: "SELECT inode FROM nodes WHERE id = ?"), arguments: [id.data])
        }
        if let known { return try inode(InodeNumber(rawValue: UInt64(known))) }
        return dirty.first { $0.id == id }
    }

    func directory(_ number: InodeNumber) throws(FileSystemError) -> Inode {
        let inode = try inode(number)
        guard inode.isDirectory else { throw .notDirectory }
        return inode
    }

    /// A directory whose entries are all here.
    func hydrated(_ number: InodeNumber) throws(FileSystemError) -> Inode {
        let inode = try directory(number)
        guard inode.hydration == .complete else { throw .missing(.directory(number)) }
        return inode
    }

    /// An inode for a node of the server's that is new here, but for its content.
    func makeInode(for node: Node, in namespace: Int64) -> Inode {
        let inode = makeInode(id: node.id, in: namespace, mode: node.mode, uid: node.uid, gid: node.gid, device: node.device, time: node.modified)
        inode.assign(node)
        inode.links = node.links
        if inode.isDirectory { inode.hydration = .unknown }
        return inode
    }

    /// A number for a node that is about to be made; `register` it once its rows are written.
    func makeInode(id: NodeID = .make(), in namespace: Int64, mode: UInt32, uid: UInt32, gid: UInt32, device: UInt64 = 0, time: Timestamp) -> Inode {
        defer { nextInode += 1 }
        return Inode(number: InodeNumber(rawValue: nextInode), id: id, namespace: namespace, mode: mode, uid: uid, gid: gid, device: device, time: time)
    }

    /// Removes an unlinked node's rows and what it had written. The node's own row stays while the log speaks of it.
    func forgetNode(_ inode: Inode) throws(FileSystemError) {
        let number = Int64(inode.number.rawValue)
        let isLoaded = inode.file != nil
        let (files, chunks) = try change { rows in
            let held = try SegmentRow.fetchAll(rows.database, inode: number)
            if !isLoaded {
                var logs = PieceLogs { [segments] in PieceRecord.readAll(segments.path($0)).byBase }
                for row in held { cache.release(bytes: row.reservedBytes(logs.records(of: row))) }
            }
            // Damaged rows are no reason to keep the file.
            let chunks = inode.size < ChunkCache.leavingByteCount ? [] : (try? FileContent.sealedChunks(rows.database, number)) ?? []
            for table in ["segments", "manifests"] {
                try rows.execute(sql: "DELETE FROM \(table) WHERE inode = ?", arguments: [number])
            }
            try Self.dropUnlinked(number, rows)
            return (held.flatMap(\.files), chunks)
        }
        filesToRemove += files
        cache.leaveMemory(chunks)
        if let file = inode.file {
            file.discardSegments()
            filesToRemove += file.takeAbandoned()
        }
    }

    /// Drops the row of an unlinked node, and entries that an unlinked directory still had, unless the log speaks of it.
    static func dropUnlinked(_ number: Int64, _ rows: RowChanges) throws {
        try rows.execute(sql: "DELETE FROM nodes WHERE inode = ?1 AND NOT EXISTS (SELECT 1 FROM log WHERE log.node = nodes.id)", arguments: [number])
        if rows.database.changesCount > 0 {
            try rows.execute(sql: "DELETE FROM entries WHERE parent = ?", arguments: [number])
        }
    }

    /// The content of a regular file.
    func content(of inode: Inode) throws(FileSystemError) -> FileContent {
        if let file = inode.file { return file }
        guard inode.isRegular else { throw inode.isDirectory ? .isDirectory : .invalid }
        let file = try FileContent.load(inode, self, cache: cache, store: segments)
        inode.file = file
        return file
    }
}
