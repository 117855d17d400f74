import GRDB
import Shared

// The log of what the server is to be told.
extension Tree {
    /// Writes a record within a `change`.
    func record(_ rows: RowChanges, _ record: LogRecord) throws {
        lastLog = try record.insert(rows)
        logGrew()
    }

    /// Writes the record of a change of attributes; of an unlinked inode nobody is told.
    func log(_ record: LogRecord, of inode: Inode) throws(FileSystemError) {
        if inode.links > 0 { try change { try self.record($0, record) } }
    }

    /// Says in the log that a file's content changed, unless a record that no commit holds yet says so already.
    func logContent(_ inode: Inode) throws(FileSystemError) {
        guard let file = inode.file, file.hasUnlogged else { return }
        if inode.links == 0, inode.wasRemovedElsewhere {
            // The edit wins over the removal: the server, which still knows the file's place, puts it there again, and the feed brings the entry.
            inode.links = 1
            inode.wasRemovedElsewhere = false
        }
        if inode.links > 0, inode.contentLogged <= lastCut {
            let entry = LogRecord(namespace: inode.namespace, kind: .content, inode: inode.number, node: inode.id, time: inode.modified)
            try change { try record($0, entry) }
            inode.contentLogged = lastLog
        }
        file.hasUnlogged = false
        markDirty(inode)
    }

    /// Says in the log what open files hold, and ends the transaction.
    /// - Returns: the newest record.
    func logOpenFiles() throws(FileSystemError) -> Int64 {
        for inode in inodes.values where inode.hasUnloggedWrites { try logContent(inode) }
        try commit()
        return lastLog
    }
}
