import ChunkCache
import Dispatch
import Foundation
import GRDB
import Glibc
import Shared

/// The tree of one mount: inodes in memory, everything in the replica.
///
/// Lock order: `FileContent.syncLock`, `Tree.lock`, `FileContent.lock`, then the replica's queue. No lock is held while waiting for the network
/// or telling the kernel.
///
/// Invariants, under `lock`:
/// - an inode in `inodes` is newer than its row or equal to it; newer ones are in `dirty`;
/// - what `entries` holds is right at once: entries and log records are written when they happen;
/// - log records stand in the order in which the calls were answered.
final class Tree: @unchecked Sendable {
    let lock = Lock()
    let database: ReplicaDatabase

    // Guarded by `lock`.
    var inodes: [InodeNumber: Inode] = [:]
    /// By number; the home is there from the first mount on.
    var namespaces: [Int64: Namespace] = [:]
    /// How often the kernel was told of each inode and has not forgotten it (fuse_lowlevel.h, `forget`). It may know a million of
    /// them; of those that nothing else holds, only some stay in `inodes`.
    private(set) var lookups: [InodeNumber: UInt64] = [:]
    private var trimAt: Int
    var dirty: [Inode] = []
    /// So many contents are written by one transaction at most: it holds the bytes of small ones, and its space is set aside (`DatabaseRoom`).
    static let maximumDirtyContents = 64
    /// Content whose manifest or segments changed since the last commit.
    var dirtyContents: [Inode] = []
    var nextInode: UInt64 = 2
    /// The newest log record, and the newest that is part of a commit under way.
    var lastLog: Int64 = 0
    var lastCut: Int64 = 0
    /// Changes of entries that came from elsewhere and that the kernel has not heard of yet.
    var untoldEntries = 0
    /// Nodes of which the feed says no more (`Tree+Merged.swift`).
    var merged: Set<InodeNumber> = []
    /// Handles that may write.
    var openWriters = 0
    /// Changes lie in the open transaction.
    var hasUncommitted = false
    /// Why nothing can be changed any more: the local database failed.
    var failure: FileSystemError?
    let segments: SegmentStore
    let cache: ChunkCache
    /// Segment files that no row will name after the next commit, and those that none names since the last.
    var filesToRemove: [Int64] = []
    private var committedAway: [Int64] = []
    private var isRemovalDue = false
    private static let removal = DispatchQueue(label: "remove segments", qos: .utility)
    /// Called under the lock when the first change of a transaction came.
    var changesWaiting: @Sendable () -> Void = {}
    /// Called under the lock when the log grew.
    var logGrew: @Sendable () -> Void = {}

    /// Inodes that stay in memory though nothing here needs them, whether the kernel knows them or not; the others come back from their
    /// rows. So a walk after the kernel dropped its caches finds them.
    private let residentCount: Int
    static let standardResidentCount = 12_288

    init(database: ReplicaDatabase, segments: SegmentStore, cache: ChunkCache, residentCount: Int = Tree.standardResidentCount) throws {
        self.residentCount = residentCount
        trimAt = residentCount
        self.database = database
        self.segments = segments
        self.cache = cache
        nextInode = try database.read { UInt64(try Int64.fetchOne($0, sql: "SELECT max(inode) FROM nodes") ?? 1) + 1 }
        lastLog = try database.read { try Int64.fetchOne($0, sql: "SELECT max(id) FROM log") ?? 0 }
        merged = try database.read { try Self.loadMerged($0) }
        for namespace in try database.read({ try Namespace.fetchAll($0) }) { namespaces[namespace.number] = namespace }
    }

    // MARK: Inodes

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

    func register(_ inode: Inode) {
        inodes[inode.number] = inode
        markDirty(inode)
    }

    func markDirty(_ inode: Inode) {
        if !inode.isDirty {
            inode.isDirty = true
            dirty.append(inode)
        }
        noteChange()
    }

    func markContentDirty(_ inode: Inode) {
        guard let file = inode.file else { return }
        if !file.isRowDirty {
            file.isRowDirty = true
            dirtyContents.append(inode)
        }
        markDirty(inode)
    }

    func noteChange() {
        guard !hasUncommitted else { return }
        hasUncommitted = true
        changesWaiting()
    }

    /// The kernel is about to be told of the inode.
    func addLookup(_ inode: Inode) { lookups[inode.number, default: 0] += 1 }

    /// The kernel forgets.
    func dropLookups(_ number: InodeNumber, _ count: UInt64) {
        guard let held = lookups[number] else { return }
        lookups[number] = held > count ? held - count : nil
        if held <= count, let inode = inodes[number] { releaseIfUnused(inode) }
    }

    /// Lets go of an inode that nobody holds any more: at once when it is unlinked or memory holds enough of them.
    func releaseIfUnused(_ inode: Inode) {
        guard lookups[inode.number] == nil, inode.uses == 0, !inode.isDirty, inode.number != .root, inodes[inode.number] === inode
        else { return }
        if inode.links > 0 {
            guard inodes.count > residentCount else { return }
            if let file = inode.file, !file.isIdle { return }
        }
        inodes[inode.number] = nil
        if inode.links == 0 { try? forgetNode(inode) }
    }

    /// Keeps the number of inodes in memory near `residentCount`: those that only the kernel knows and that were not used since the
    /// last time go. Called where no caller on this thread holds an inode it did not pin by `uses`.
    func trim() {
        guard inodes.count > trimAt else { return }
        inodes = inodes.filter { _, inode in
            if inode.wasUsed || inode.uses > 0 || inode.isDirty || inode.links == 0 || !inode.pagesValid || inode.number == .root {
                inode.wasUsed = false
                return true
            }
            return inode.file.map { !$0.isIdle } ?? false
        }
        trimAt = max(residentCount, inodes.count + inodes.count / 4)
    }

    /// Drops the content from memory once nothing reads it; the rows hold it. Under the lock.
    func shrink(_ inode: Inode) {
        if inode.uses == 0, !inode.isDirty, let file = inode.file, file.isIdle { inode.file = nil }
        releaseIfUnused(inode)
    }

    /// Removes an unlinked node's rows and what it had written. The node's own row stays while the log speaks of it.
    func forgetNode(_ inode: Inode) throws(FileSystemError) {
        let number = Int64(inode.number.rawValue)
        let isLoaded = inode.file != nil
        let (files, chunks) = try change { database in
            let rows = try SegmentRow.fetchAll(database, inode: number)
            if !isLoaded {
                var logs = PieceLogs { [segments] in PieceRecord.readAll(segments.path($0)).byBase }
                for row in rows { cache.release(bytes: row.reservedBytes(logs.records(of: row))) }
            }
            // Damaged rows are no reason to keep the file.
            let chunks = inode.size < ChunkCache.leavingByteCount ? [] : (try? FileContent.sealedChunks(database, number)) ?? []
            for table in ["segments", "manifests"] {
                try database.cachedStatement(sql: "DELETE FROM \(table) WHERE inode = ?").execute(arguments: [number])
            }
            try Self.dropUnlinked(number, database)
            return (rows.flatMap(\.files), chunks)
        }
        filesToRemove += files
        cache.leaveMemory(chunks)
        if let file = inode.file {
            file.discardSegments()
            filesToRemove += file.takeAbandoned()
        }
    }

    /// Drops the row of an unlinked node, and entries that an unlinked directory still had, unless the log speaks of it.
    static func dropUnlinked(_ number: Int64, _ database: Database) throws {
        try database.cachedStatement(sql: "DELETE FROM nodes WHERE inode = ?1 AND NOT EXISTS (SELECT 1 FROM log WHERE log.node = nodes.id)")
            .execute(arguments: [number])
        if database.changesCount > 0 {
            try database.cachedStatement(sql: "DELETE FROM entries WHERE parent = ?").execute(arguments: [number])
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

    // MARK: Entries

    func entry(_ parent: InodeNumber, _ name: String) throws(FileSystemError) -> InodeNumber? {
        try database.read { database in
            try Int64.fetchOne(
                database.cachedStatement(sql: "SELECT inode FROM entries WHERE parent = ? AND name = ?"),
                arguments: [Int64(parent.rawValue), name]
            ).map { InodeNumber(rawValue: UInt64($0)) }
        }
    }

    func requireEntry(_ parent: InodeNumber, _ name: String) throws(FileSystemError) -> Inode {
        guard let number = try entry(parent, name) else { throw VersionsFolder.stands(in: parent, name) ? .readOnly : .notFound }
        return try inode(number)
    }

    func isEmpty(_ directory: InodeNumber) throws(FileSystemError) -> Bool {
        try database.read { database in
            try Int64.fetchOne(
                database.cachedStatement(sql: "SELECT 1 FROM entries WHERE parent = ? LIMIT 1"), arguments: [Int64(directory.rawValue)])
        } == nil
    }

    /// One place where the node stands, nil for the root and for what is unlinked.
    func place(of number: InodeNumber) throws(FileSystemError) -> (parent: InodeNumber, name: String)? {
        try database.read { database in
            try Row.fetchOne(
                database.cachedStatement(sql: "SELECT parent, name FROM entries WHERE inode = ? LIMIT 1"), arguments: [Int64(number.rawValue)]
            ).map { (InodeNumber(rawValue: UInt64($0[0] as Int64)), $0[1]) }
        }
    }

    /// Path from the mount's root, without a leading slash; nil when it is unlinked.
    func path(of number: InodeNumber) throws(FileSystemError) -> String? {
        let (path, top) = try path(of: number, below: .root)
        return top == .root ? path : nil
    }

    /// Path from a directory, or from where the way up ends before it.
    /// - Returns: also what the path begins at.
    func path(of number: InodeNumber, below directory: InodeNumber) throws(FileSystemError) -> (path: String, top: InodeNumber) {
        var parts: [String] = [], at = number
        while at != directory, at != .root, let (parent, name) = try place(of: at) {
            parts.append(name)
            at = parent
        }
        return (parts.reversed().joined(separator: "/"), at)
    }

    /// Whether `directory` is `ancestor` or lies below it.
    func isInside(_ directory: InodeNumber, _ ancestor: InodeNumber) throws(FileSystemError) -> Bool {
        var at = directory
        while at != ancestor {
            guard at != .root, let (parent, _) = try place(of: at) else { return false }
            at = parent
        }
        return true
    }

    // MARK: Log

    /// Writes a record within a `change`.
    func record(_ database: Database, _ record: LogRecord) throws {
        lastLog = try record.insert(database)
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
        for inode in inodes.values where inode.file?.hasUnlogged ?? false { try logContent(inode) }
        try commit()
        return lastLog
    }

    // MARK: Transactions

    /// Runs row changes of one call: all of them or none.
    func change<T>(_ body: (Database) throws -> T) throws(FileSystemError) -> T {
        if let failure { throw failure }
        do throws(FileSystemError) {
            let result = try database.change(body)
            noteChange()
            return result
        } catch {
            if database.lostTransaction.load(ordering: .relaxed) { failure = error }
            throw error
        }
    }

    /// Before a call that adds to the replica. A full disk is as a full cache: clean chunks go.
    func requireRoom() throws(FileSystemError) {
        while true {
            do throws(FileSystemError) { return try database.requireRoom() } catch {
                guard error == .noSpace, cache.makeRoomOnDisk() else { throw error }
            }
        }
    }

    /// Writes what memory holds and ends the transaction. Under the lock.
    func commit() throws(FileSystemError) {
        guard hasUncommitted else { return }
        if let failure { throw failure }
        do throws(FileSystemError) {
            try database.commit { database in
                for inode in dirtyContents { try inode.file?.save(inode, database) }
                for inode in dirty { try inode.save(database) }
            }
        } catch {
            // SQLite took the transaction back, and memory speaks of what no row holds any more: the next mount begins at the rows.
            failure = error
            throw error
        }
        let saved = dirty
        for inode in dirtyContents {
            guard let file = inode.file else { continue }
            file.isRowDirty = false
            filesToRemove += file.takeRemovable()
        }
        dirtyContents.removeAll(keepingCapacity: true)
        dirty.removeAll(keepingCapacity: true)
        hasUncommitted = false
        for inode in saved { inode.isDirty = false }
        for inode in saved { releaseIfUnused(inode) }
        committedAway += filesToRemove
        filesToRemove.removeAll(keepingCapacity: true)
        guard !committedAway.isEmpty, !isRemovalDue else { return }
        isRemovalDue = true
        Self.removal.asyncAfter(deadline: .now() + .milliseconds(50)) { [weak self] in self?.removeFiles() }
    }

    /// Removes segment files that no row names any more, once that is on the disk: a file system that keeps its names in a journal
    /// may have a removal on the disk long before what SQLite wrote, and a power cut would bring back the rows without the bytes.
    func removeFiles() {
        let files = lock.withLock {
            isRemovalDue = false
            defer { committedAway = [] }
            return committedAway
        }
        guard !files.isEmpty, (try? database.sync()) != nil else { return }     // the next start removes what is left
        for file in files { unlink(segments.path(file)) }
    }
}
