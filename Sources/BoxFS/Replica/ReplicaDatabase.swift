import Foundation
import GRDB
import Glibc
import Shared
import Synchronization

/// The replica's SQLite file: the tree as this machine knows it, and the log of changes the server does not have.
///
/// Changes gather in one open transaction, so that a row or an index page that many calls change is written once.
/// `keep` makes what they did survive the death of the process (`StatementJournal`), `commit` ends the transaction.
/// `sync` makes what was committed survive a power cut: in WAL mode with `synchronous=NORMAL` that takes one fdatasync
/// of the WAL file (https://www.sqlite.org/wal.html, "Performance Considerations"). The owner calls one at a time.
final class ReplicaDatabase: Sendable {
    private let queue: DatabaseQueue
    private let walPath: String
    private let walDescriptor = Mutex<OpenDescriptor?>(nil)
    /// Counts commits; `sync` skips the disk when nothing was committed since the last one.
    private let committed = Atomic<UInt64>(0)
    private let synced = Atomic<UInt64>(0)
    private let syncLock = Lock()
    private let room: DatabaseRoom
    /// SQLite took the open transaction back, with all the calls that it held: what memory says is not in the rows.
    let lostTransaction = Atomic(false)
    /// A small change touches about ten pages, each of which the WAL takes whole. (A replica keeps the page size that it was made with.)
    private static let pageBytes = 2048
    /// At this length of the WAL what it holds goes into the database, within a commit.
    private static let logBytes = 16 << 20
    /// After so many calls the WAL begins to go to the disk, so that the commit that waits for it waits for little.
    private static let callsBetweenWrites = 32
    private let unwrittenCalls = Atomic(0)
    private let journal: StatementJournal
    private static let writing = DispatchQueue(label: "write the log", qos: .utility)
    /// How long calls of `keep`, transactions and fdatasyncs of the WAL took.
    let keeps = Histogram(), commits = Histogram(), syncs = Histogram()

    init(path: String) throws {
        var configuration = Configuration()
        configuration.allowsUnsafeTransactions = true   // the open transaction outlives each access
        configuration.label = "replica"
        configuration.busyMode = .timeout(5)            // seconds: who had it until now may be closing it still
        configuration.prepareDatabase { database in
            try database.execute(sql: """
                PRAGMA page_size = \(Self.pageBytes); PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
                PRAGMA wal_autocheckpoint = \(Self.logBytes / Self.pageBytes); PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8192
                """)
        }
        queue = try DatabaseQueue(path: path, configuration: configuration)
        walPath = path + "-wal"
        room = DatabaseRoom(reservePath: path + "-reserve")
        journal = StatementJournal(path: path + "-statements")
        try queue.inDatabase { [journal] database in
            var version = try Int.fetchOne(database, sql: "PRAGMA user_version") ?? 0
            // The statements are of the format that was: before a migration.
            if (StatementJournal.firstFormat...Self.formatVersion).contains(version) { try journal.replay(database) }
            while version != Self.formatVersion {
                guard let step = version == 0 ? Self.schema : Self.migrations[version] else { throw ReplicaFormatError(found: version) }
                version = version == 0 ? Self.formatVersion : version + 1
                try database.inTransaction {
                    try database.execute(sql: "\(step); PRAGMA user_version = \(version)")
                    return .commit
                }
            }
            try journal.begin(database)
        }
    }

    struct ReplicaFormatError: Error, CustomStringConvertible {
        let found: Int
        var description: String {
            found > ReplicaDatabase.formatVersion
                ? "The replica was written by a newer BoxFS (format \(found)); this one reads format \(ReplicaDatabase.formatVersion)."
                : "The replica was written by an older BoxFS (format \(found)); this one reads format \(ReplicaDatabase.formatVersion). Send what waits in it with that version, then mount with a new --cache-dir."
        }
    }

    /// Called before a change that the disk must hold for longer than until its transaction ends.
    ///
    /// - Throws: `.noSpace` while the disk is so full that only what ends it may still be written: what was answered, removals, what was sent.
    func requireRoom() throws(FileSystemError) { guard hasRoom else { throw .noSpace } }

    var hasRoom: Bool { (try? walFile()).map { room.isWhole($0.rawValue) } ?? false }

    /// Reads; does not open a transaction.
    func read<T>(_ body: (Database) throws -> T) throws(FileSystemError) -> T {
        do { return try queue.inDatabase(body) } catch { throw Self.translated(error) }
    }

    /// Changes rows within the open transaction, all of `body` or nothing of it.
    func change<T>(_ body: (RowChanges) throws -> T) throws(FileSystemError) -> T {
        do { return try queue.inDatabase { try change($0, body) } } catch { throw Self.translated(error) }
    }

    private func change<T>(_ database: Database, _ body: (RowChanges) throws -> T) throws -> T {
        if !database.isInsideTransaction { try begin(database) }
        try database.cachedStatement(sql: "SAVEPOINT change").execute()
        let mark = journal.mark(database)
        do {
            let result = try body(RowChanges(database, journal))
            try database.cachedStatement(sql: "RELEASE change").execute()
            journal.check(since: mark, database)
            return result
        } catch {
            try? database.execute(sql: "ROLLBACK TO change; RELEASE change")
            journal.takeBack(to: mark)
            if !database.isInsideTransaction { lostTransaction.store(true, ordering: .relaxed) }
            throw error
        }
    }

    /// A transaction that fails at its end is rolled back with all the calls that it held, which were answered: so its space is set
    /// aside before it begins.
    private func begin(_ database: Database) throws {
        if let wal = try? walFile() { room.ensure(wal.rawValue) }
        try database.beginTransaction(.immediate)
    }

    /// Lets all that was changed survive the death of the process, after `last` had its say.
    /// - Returns: false if that takes `commit`.
    func keep(_ last: (RowChanges) throws -> Void) throws(FileSystemError) -> Bool {
        do {
            return try RequestAccount.chargeCurrent(.log, keeps) {
                try queue.inDatabase { database in
                    try change(database, last)
                    return journal.publish()
                }
            }
        } catch { throw Self.translated(error) }
    }

    /// Ends the open transaction after `last` had its say. When it throws, what the transaction held is gone, but for what was kept: the next process
    /// has that.
    func commit(_ last: (RowChanges) throws -> Void) throws(FileSystemError) {
        do {
            try RequestAccount.chargeCurrent(.log, commits) {
                try queue.inDatabase { database in
                    if !database.isInsideTransaction { try begin(database) }
                    try last(RowChanges(database, nil))
                    try journal.end(database)
                    try database.commit()
                    unwrittenCalls.add(1 + journal.recordCount, ordering: .relaxed)
                    journal.ended()
                    committed.add(1, ordering: .releasing)
                }
            }
        } catch { throw Self.translated(error) }
        if unwrittenCalls.load(ordering: .relaxed) >= Self.callsBetweenWrites, let wal = try? walFile() {
            unwrittenCalls.store(0, ordering: .relaxed)
            Self.writing.async { WriteBack.begin(wal.rawValue) }
        }
    }

    /// Returns when all that was committed before is on the disk. Callers that come together share one fdatasync.
    func sync() throws(FileSystemError) {
        let wanted = committed.load(ordering: .acquiring)
        try syncLock.withLock { () throws(FileSystemError) in
            if synced.load(ordering: .relaxed) >= wanted { return }
            let now = committed.load(ordering: .acquiring)
            let descriptor = try walFile()
            guard RequestAccount.chargeCurrent(.disk, syncs, { fdatasync(descriptor.rawValue) }) == 0 else { throw .io }
            synced.store(now, ordering: .relaxed)
        }
    }

    /// The same for what an earlier process committed.
    func syncInherited() throws(FileSystemError) {
        guard fdatasync(try walFile().rawValue) == 0 else { throw .io }
    }

    private func walFile() throws(FileSystemError) -> OpenDescriptor {
        try walDescriptor.withLock { (held) throws(FileSystemError) in
            if let held { return held }
            let descriptor = open(walPath, O_RDWR | O_CLOEXEC)
            guard descriptor >= 0 else { throw .io }
            let opened = OpenDescriptor(owning: descriptor)
            held = opened
            return opened
        }
    }

    func close() { try? queue.close() }

    private static func translated(_ error: any Error) -> FileSystemError {
        switch error {
        case let error as FileSystemError: error
        case let error as DatabaseError where error.resultCode == .SQLITE_FULL: .noSpace
        default: unexpected(error)
        }
    }

    /// Nobody who gets EIO could say what it was: the mount's log does.
    private static func unexpected(_ error: any Error) -> FileSystemError {
        try? FileHandle.standardError.write(contentsOf: Data("boxfs: the local database: \(error)\n".utf8))
        return .io
    }
}
