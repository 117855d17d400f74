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
    /// Called under the lock when the last handle that may write was released.
    var writersGone: @Sendable () -> Void = {}

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

    // MARK: Changes in memory

    func register(_ inode: Inode) {
        inodes[inode.number] = inode
        markDirty(inode)
    }

    func markDirty(_ inode: Inode) {
        inode.isDirtyBeyondTimes = true
        markTouched(inode)
    }

    /// Only `Inode.touch` has changed it.
    func markTouched(_ inode: Inode) {
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

    // MARK: Inodes that stay in memory

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

    // MARK: Transactions

    /// Runs row changes of one call: all of them or none.
    func change<T>(_ body: (RowChanges) throws -> T) throws(FileSystemError) -> T {
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

    /// Writes what memory holds, so that it survives the death of this process. Under the lock.
    func keep() throws(FileSystemError) {
        guard hasUncommitted else { return }
        let (isKept, saved) = try save(database.keep)
        guard isKept else { return try commit() }
        for inode in saved { releaseIfUnused(inode) }
    }

    /// Writes what memory holds.
    /// - Parameter end: ends what is to be written after it had its say.
    /// - Returns: the inodes that were written.
    private func save<T>(_ end: ((RowChanges) throws -> Void) throws(FileSystemError) -> T) throws(FileSystemError) -> (T, [Inode]) {
        if let failure { throw failure }
        let result: T
        do throws(FileSystemError) {
            result = try end { rows in
                for inode in dirtyContents { try inode.file?.save(inode, rows) }
                for inode in dirty { try inode.save(rows) }
            }
        } catch {
            // SQLite took rows back, and memory speaks of what no row holds any more: the next mount begins at the rows.
            failure = error
            throw error
        }
        for inode in dirtyContents {
            guard let file = inode.file else { continue }
            file.isRowDirty = false
            filesToRemove += file.takeRemovable()
        }
        let saved = dirty
        for inode in saved { (inode.isDirty, inode.isDirtyBeyondTimes) = (false, false) }
        dirtyContents.removeAll(keepingCapacity: true)
        dirty.removeAll(keepingCapacity: true)
        return (result, saved)
    }

    /// Writes what memory holds and ends the transaction. Under the lock.
    func commit() throws(FileSystemError) {
        guard hasUncommitted else { return }
        let (_, saved) = try save(database.commit)
        hasUncommitted = false
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
