import ChunkCache
import Glibc
import Shared

extension FileContent {
    /// What the rows hold of a content, to know whether a sync may do without them.
    struct Rows {
        let slotChanges: Int
        let size: UInt64
        /// Of segments, by where their slots begin.
        let lengths: [Int: Int]
        /// Of those without a file.
        let revisions: [Int: Int]
        /// The newest log record beside them.
        var log: Int64 = 0
    }

    /// Returns when all written data are on the disk, in segments or in chunk files, and the rows that speak of them.
    ///
    /// Both at once where a power cut in between costs nothing: recovery believes a row of a segment no further than the segment's file goes, and
    /// of a patch what its log says. Not where a row takes something away that was synced before: an origin, the segment that a chunk came from.
    /// The rows may stay as they are on the disk if they lead to all that is to be synced.
    /// - Parameters:
    ///   - log: the newest log record.
    ///   - dataOnly: times need not be right after a power cut (fdatasync(2)). Records of patches hold them.
    ///   - rows: writes and syncs them; is told whether the sync has changed what they are to say. Calls `rowsAreSynced`.
    func sync(log: Int64, dataOnly: Bool, rows: (Bool) throws(FileSystemError) -> Void) throws(FileSystemError) {
        // One at a time: what another caller is syncing is not on the disk yet.
        try syncLock.withLock { () throws(FileSystemError) in
            let unsynced = takeUnsynced(log, dataOnly: dataOnly)
            do throws(FileSystemError) {
                switch unsynced.order {
                case .alone:
                    try sync(unsynced) { SyncPool.shared.sync($0) }
                    finish(unsynced)
                case .withRows:
                    try sync(unsynced) { files throws(FileSystemError) in
                        try SyncPool.shared.sync(files) { () throws(FileSystemError) in try rows(false) }
                    }
                    finish(unsynced)
                case .beforeRows:
                    try sync(unsynced) { SyncPool.shared.sync($0) }
                    try rows(finish(unsynced))
                }
            } catch {
                lock.withLock {
                    for segment in unsynced.segments { segment.isSynced = false }
                    self.unsynced += unsynced.chunks
                }
                throw error
            }
        }
    }

    private struct Unsynced {
        enum Order { case alone, withRows, beforeRows }

        var segments: [Segment]
        /// With their bytes: themselves, or the logs and bases of patches.
        var files: [Segment]
        var chunks: [ChunkReference]
        var order: Order
    }

    private func takeUnsynced(_ log: Int64, dataOnly: Bool) -> Unsynced {
        lock.withLock {
            let segments = slots.compactMap(\.segment).filter { !$0.isSynced }
            let isPlain = unsynced.isEmpty && segments.allSatisfy { ($0.origin == nil || $0.held != nil) && $0.patch?.base.isSynced ?? true }
            let needsNoRows = dataOnly || !segments.isEmpty && segments.allSatisfy { $0.patch != nil }
            let order: Unsynced.Order = !isPlain ? .beforeRows : needsNoRows && areRowsEnough(log) ? .alone : segments.isEmpty ? .beforeRows : .withRows
            var files: [ObjectIdentifier: Segment] = [:]
            for segment in segments {
                segment.isSynced = true
                guard segment.held == nil else { continue }
                for file in segment.patch.map({ [$0.log] + ($0.base.isSynced ? [] : [$0.base]) }) ?? [segment] { files[ObjectIdentifier(file)] = file }
            }
            defer { unsynced = [] }
            return Unsynced(segments: segments, files: Array(files.values), chunks: unsynced, order: order)
        }
    }

    /// Whether the rows on the disk name every file that has bytes, and their lengths and the size are right, or the files say what has become
    /// of them (`Tree.recoverSegments`): bytes were overwritten, put into a patch, or appended to the last segment.
    private func areRowsEnough(_ log: Int64) -> Bool {
        guard let rows = syncedRows, rows.log == log, rows.slotChanges == slotChanges else { return false }
        var hasGrown = false
        for case (let index, .segment(let segment)) in slots.enumerated() {
            let start = slots.start(index)
            guard let length = rows.lengths[start] else { return false }
            if segment.held != nil, segment.revision != rows.revisions[start] { return false }
            if segment.length == length { continue }
            guard segment.patch == nil, segment.held == nil, index == slots.count - 1, size == UInt64(start + segment.length),
                  Self.mayGrow(from: start, length: length, size: rows.size) else { return false }
            hasGrown = true
        }
        return hasGrown || size == rows.size
    }

    /// Whether rows that say this leave it to the segment's file how far it and the whole file go: the segment holds the file's end.
    static func mayGrow(from start: Int, length: Int, size: UInt64) -> Bool { size > start && size <= start + length }

    /// What `save` wrote last, with the newest log record; for `rowsAreSynced`.
    func savedRows(log: Int64) -> Rows? {
        lock.withLock {
            var rows = savedRows
            rows?.log = log
            return rows
        }
    }

    /// The rows and log records up to there are on the disk. Within `sync`.
    func rowsAreSynced(_ rows: Rows?) { syncedRows = rows }

    private func sync(_ unsynced: Unsynced, _ syncFiles: ([OpenDescriptor]) throws(FileSystemError) -> Bool) throws(FileSystemError) {
        try RequestAccount.chargeCurrent(.disk, store.syncs) { () throws(FileSystemError) in
            let (descriptors, isNameMissing) = try lock.withLock { () throws(FileSystemError) in
                var descriptors: [OpenDescriptor] = []
                for file in unsynced.files { descriptors.append(try file.open()) }
                return (descriptors, unsynced.files.contains { !$0.isNamed })
            }
            guard try syncFiles(descriptors) else { throw .io }
            for chunk in unsynced.chunks {
                guard let opened = cache.open(chunk) else { continue }  // already on the server and evicted
                guard fsync(opened.fileDescriptor) == 0 else { throw .io }
            }
            if isNameMissing { try store.syncDirectory() }
        }
    }

    /// - Returns: whether the rows are to say something else now.
    @discardableResult private func finish(_ unsynced: Unsynced) -> Bool {
        lock.withLock {
            for file in unsynced.files { (file.isNamed, file.wasSynced) = (true, true) }
            var hasChanged = false
            for segment in unsynced.segments {
                segment.patch?.base.isSynced = true
                if segment.held != nil { segment.wasSynced = true }
                // What was written since, in place, may be lost without harm to the rest.
                hasChanged = hasChanged || segment.origin != nil && segment.held == nil
                segment.origin = nil
            }
            return hasChanged
        }
    }
}
