import Foundation
import GRDB
import Glibc
import Shared

/// What the replica's open transaction holds, as the statements that made it. close(2) adds its statements by one pwrite(2), where the transaction's
/// end would write each page that it touched; so a transaction serves many closes. If the process dies before the end, the next one executes them
/// again. Nothing of it is synced: fsync(2) ends the transaction.
///
/// The file has records, from its start on: `BxSt`, the number of bytes of the statements (4), the generation (8), the first 16 bytes of the SHA-256 of
/// that and of the statements, the statements. Each of them: the number of bytes of its SQL (4), the SQL, the number of its values (4), and for each
/// its kind (1): 0 null, 1 an integer (8), 2 a real (8), 3 text or 4 bytes, with their number (4) before them. Numbers are little-endian.
///
/// Invariants:
/// - a record counts while its generation is the one in `meta`, which the end of a transaction raises that has records: so none is executed twice;
/// - records hold all that the transaction changed up to them, or there is none: a transaction that changed something else has to end;
/// - after a power cut a record is whole and counts beside the rows that it was made for, or it does not count.
final class StatementJournal: @unchecked Sendable {      // the replica's queue has it
    /// The format of the replica that has a generation first.
    static let firstFormat = 8
    /// A transaction's space is set aside before it begins (`DatabaseRoom`), so it ends after so many records and bytes.
    private static let maximumRecords = 64, maximumBytes = 512 << 10
    private static let magic = Array("BxSt".utf8), headByteCount = 32, digestStart = 16

    private let path: String
    private var file: OpenDescriptor?
    private var generation: Int64 = 0
    /// Room for a head, and what was noted since the last record.
    private var pending = [UInt8](repeating: 0, count: StatementJournal.headByteCount)
    /// Where the next record goes.
    private var position = 0
    /// Of the open transaction.
    private(set) var recordCount = 0
    /// All that the open transaction has changed was noted.
    private var isComplete = true
    private var notedChanges = 0

    init(path: String) { self.path = path }

    // MARK: The open transaction

    /// A place to go back to.
    struct Mark { fileprivate let pending: Int, isComplete: Bool, noted: Int, total: Int }

    func mark(_ database: Database) -> Mark {
        Mark(pending: pending.count, isComplete: isComplete, noted: notedChanges, total: database.totalChangesCount)
    }

    /// What was changed since the mark was taken back.
    func takeBack(to mark: Mark) {
        pending.removeLast(pending.count - mark.pending)
        (isComplete, notedChanges) = (mark.isComplete, mark.noted)
    }

    /// Finds out whether rows were changed since the mark by statements that nobody noted.
    func check(since mark: Mark, _ database: Database) {
        if database.totalChangesCount - mark.total != notedChanges - mark.noted { isComplete = false }
    }

    /// - Parameter changes: how many rows the statement changed.
    func note(_ sql: String, _ values: [DatabaseValue], changes: Int) {
        notedChanges += changes
        guard isComplete, pending.count <= Self.maximumBytes else { return isComplete = false }
        pending.append(littleEndian: UInt32(sql.utf8.count))
        pending += sql.utf8
        pending.append(littleEndian: UInt32(values.count))
        for value in values { pending.append(value: value) }
    }

    /// What was noted survives the death of the process from here on.
    /// - Returns: false if something was not noted, or there is no space: then the transaction has to end.
    func publish() -> Bool {
        guard isComplete, recordCount < Self.maximumRecords, position + pending.count <= Self.maximumBytes else { return false }
        guard pending.count > Self.headByteCount else { return true }
        var head = Self.magic
        head.append(littleEndian: UInt32(pending.count - Self.headByteCount))
        head.append(littleEndian: generation)
        pending.replaceSubrange(..<Self.digestStart, with: head)
        pending.replaceSubrange(Self.digestStart..<Self.headByteCount, with: Self.digest(pending))
        guard let file = try? opened(), (try? pending.withUnsafeBytes { try writeFully(file.rawValue, $0, at: position) }) != nil else { return false }
        position += pending.count
        recordCount += 1
        pending.removeLast(pending.count - Self.headByteCount)
        return true
    }

    private func opened() throws(FileSystemError) -> OpenDescriptor {
        if let file { return file }
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .io }
        let opened = OpenDescriptor(owning: descriptor)
        file = opened
        return opened
    }

    /// Before the transaction's end, within it.
    func end(_ database: Database) throws {
        if recordCount > 0 { try Self.raiseGeneration(database) }
    }

    /// The transaction has ended.
    func ended() {
        if recordCount > 0 { generation += 1 }
        (position, recordCount, isComplete) = (0, 0, true)
        pending.removeLast(pending.count - Self.headByteCount)
    }

    // MARK: The next process

    /// Executes what an earlier process left, in a transaction of its own.
    func replay(_ database: Database) throws {
        let statements = try Self.read(path, Self.generation(database))
        guard !statements.isEmpty else { return }
        try database.inTransaction {
            for statement in statements { try statement.execute(database) }
            try Self.raiseGeneration(database)
            return .commit
        }
    }

    /// The same with a database that is damaged: each statement that can be executed, by itself, as one that meets the damage takes back a transaction.
    static func salvage(_ path: String, _ database: Database) {
        for statement in (try? read(path, generation(database))) ?? [] { try? statement.execute(database) }
    }

    /// Before the first transaction.
    func begin(_ database: Database) throws { generation = try Self.generation(database) }

    private static func generation(_ database: Database) throws -> Int64 {
        guard let generation = try Int64.fetchOne(database, sql: "SELECT value FROM meta WHERE key = 'generation'") else { throw FileSystemError.io }
        return generation
    }

    private static func raiseGeneration(_ database: Database) throws {
        try database.cachedStatement(sql: "UPDATE meta SET value = value + 1 WHERE key = 'generation'").execute()
    }

    /// What the records of a generation hold, up to the first that is not whole.
    private static func read(_ path: String, _ generation: Int64) throws -> [JournaledStatement] {
        guard access(path, F_OK) == 0 else { return [] }
        let bytes = Array(try Data(contentsOf: URL(fileURLWithPath: path)))
        var statements: [JournaledStatement] = [], start = 0
        while start + headByteCount <= bytes.count {
            var reader = JournalReader(bytes[start...])
            guard try reader.bytes(4).elementsEqual(magic) else { break }
            let end = start + headByteCount + (try reader.count())
            guard try reader.integer(UInt64.self) == UInt64(bitPattern: generation), end <= bytes.count,
                  try reader.bytes(headByteCount - digestStart).elementsEqual(digest(Array(bytes[start..<end]))) else { break }
            while reader.position < end { statements.append(try reader.statement()) }
            start = end
        }
        return statements
    }

    /// Of a whole record.
    private static func digest(_ record: [UInt8]) -> [UInt8] {
        var hasher = SHA256()
        record.withUnsafeBytes { bytes in
            hasher.update(UnsafeRawBufferPointer(rebasing: bytes[..<digestStart]))
            hasher.update(UnsafeRawBufferPointer(rebasing: bytes[headByteCount...]))
        }
        return Array(hasher.finish().bytes.prefix(headByteCount - digestStart))
    }
}
