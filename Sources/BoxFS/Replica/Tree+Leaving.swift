import Foundation
import GRDB
import Shared

// What leaving a shared folder takes from the replica. Under the lock.
extension Tree {
    /// Forgets all of a namespace: rows, records, unsent data.
    ///
    /// - Returns: what the kernel is to forget.
    func drop(_ namespace: Namespace) throws(FileSystemError) -> [KernelEvent] {
        let number = namespace.number
        for chunk in try Outgoing.load(self, number)?.claims ?? [] { cache.markSent([chunk.hash]) }
        // Files with segments are loaded, so that what they had reserved is given back.
        for held in try database.read({ try Int64.fetchAll($0, sql: "SELECT DISTINCT s.inode FROM segments s JOIN nodes n ON n.inode = s.inode WHERE n.namespace = ?", arguments: [number]) }) {
            _ = try content(of: inode(InodeNumber(rawValue: UInt64(held))))
        }
        var events: [KernelEvent] = []
        for inode in inodes.values where inode.namespace == number {
            if lookups[inode.number] != nil { events.append(.inode(inode.number, data: true)) }
            inode.links = 0
            (inode.isDirty, inode.isDirtyBeyondTimes) = (false, false)
            if let file = inode.file {
                (file.hasUnlogged, file.isRowDirty) = (false, false)
                file.discardSegments()
                filesToRemove += file.takeAbandoned()
            }
            if inode.uses == 0 { inodes[inode.number] = nil }
        }
        dirty.removeAll { $0.namespace == number }
        dirtyContents.removeAll { $0.namespace == number }
        filesToRemove += try change { rows in
            let files = try SegmentRow.fetchAll(rows.database, namespace: number).flatMap(\.files)
            for table in ["log", "outbox", "deferred"] { try rows.execute(sql: "DELETE FROM \(table) WHERE namespace = ?", arguments: [number]) }
            for (table, column) in [("entries", "parent"), ("manifests", "inode"), ("segments", "inode")] {
                try rows.execute(sql: "DELETE FROM \(table) WHERE \(column) IN (SELECT inode FROM nodes WHERE namespace = ?)", arguments: [number])
            }
            try rows.execute(sql: "DELETE FROM nodes WHERE namespace = ?", arguments: [number])
            try rows.execute(sql: "DELETE FROM namespaces WHERE number = ?", arguments: [number])
            try namespace.forgetTold(rows)
            try namespace.forgetLeaving(rows)
            return files
        }
        namespaces[number] = nil
        if let parent = namespace.comesBack?.directory, let directory = try? directory(parent) {
            directory.hydration = .arriving     // the next look lists it again, with the folder as it is on the server
            directory.directoryVersion += 1
            markDirty(directory)
            events.append(.inode(parent, data: true))
            if let name = namespace.name { events.append(.entry(name, in: parent)) }
        }
        try commit()
        return willTell(events)
    }

    /// The chunks of all contents that are here. Needs no lock: what comes meanwhile may be missing.
    func namedChunks() throws(FileSystemError) -> Set<ChunkHash> {
        try database.read { database in
            var chunks: Set<ChunkHash> = []
            let rows = try Data.fetchCursor(database, sql: "SELECT packed FROM manifests")
            while let packed = try rows.next() { for chunk in try Manifest.unpack(packed) where !chunk.isHole { chunks.insert(chunk.hash) } }
            return chunks
        }
    }
}
