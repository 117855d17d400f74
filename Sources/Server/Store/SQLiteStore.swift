import Foundation
import GRDB
import Shared

/// The embedded store: SQLite in WAL mode.
///
/// `synchronous=FULL` syncs the write-ahead log at the end of a transaction, `NORMAL` leaves that to the next one that does (or to the
/// checkpoint, which syncs the log before it writes the database): transactions are never reordered (sqlite.org/pragma.html).
final class SQLiteStore: Store {
    private let pool: DatabasePool

    init(path: String) throws {
        var configuration = Configuration()
        configuration.busyMode = .timeout(10)
        configuration.maximumReaderCount = 4
        configuration.prepareDatabase { database in
            try database.execute(sql: "PRAGMA foreign_keys = ON; PRAGMA cache_size = -16384")
        }
        pool = try DatabasePool(path: path, configuration: configuration)
        // Not in prepareDatabase: a pool that turns WAL mode on sets NORMAL after that (GRDB, Database.setUpWALMode).
        try pool.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous = FULL") }
        try pool.write { try Schema.migrate(SQLiteConnection(database: $0)) }
    }

    func write<T: Sendable>(_ durability: Durability, _ body: @escaping @Sendable (any SQLConnection) throws -> T) async throws -> T {
        do {
            return try await pool.writeWithoutTransaction { database in
                // SQLite ignores this pragma within a transaction.
                if durability == .ordered { try database.execute(sql: "PRAGMA synchronous = NORMAL") }
                defer { if durability == .ordered { Self.restoreSync(database) } }
                var answer: T?
                try database.inTransaction(.immediate) {
                    answer = try body(SQLiteConnection(database: database))
                    return .commit
                }
                return answer!      // a transaction that ended without an error has run its body
            }
        } catch let error as DatabaseError { throw Self.translated(error) }
    }

    /// A full disk shows as SQLITE_FULL, or, where readers and writers meet, in that the index of the log cannot grow.
    private static func translated(_ error: DatabaseError) -> StoreError {
        StoreError(description: "\(error)", isFull: error.resultCode == .SQLITE_FULL || error.extendedResultCode == .SQLITE_IOERR_SHMSIZE)
    }

    /// The pragma touches no file; if it could fail, later answers would promise too much.
    private static func restoreSync(_ database: Database) {
        do { try database.execute(sql: "PRAGMA synchronous = FULL") } catch { preconditionFailure("synchronous=FULL was refused: \(error)") }
    }

    func read<T: Sendable>(_ body: @escaping @Sendable (any SQLConnection) throws -> T) async throws -> T {
        do { return try await pool.read { try body(SQLiteConnection(database: $0)) } } catch let error as DatabaseError {
            throw Self.translated(error)
        }
    }
}

private struct SQLiteConnection: SQLConnection {
    let database: Database

    func query(_ sql: String, _ arguments: [SQLValue]) throws -> [SQLRow] {
        let statement = try database.cachedStatement(sql: sql)
        try statement.setArguments(StatementArguments(arguments.map(\.database)))
        let cursor = try Row.fetchCursor(statement)
        var rows: [SQLRow] = []
        while let row = try cursor.next() { rows.append(SQLRow(values: row.databaseValues.map(SQLValue.init))) }
        return rows
    }

    func execute(_ sql: String, _ arguments: [SQLValue]) throws -> Int {
        try database.cachedStatement(sql: sql).execute(arguments: StatementArguments(arguments.map(\.database)))
        return database.changesCount
    }
}

extension SQLValue {
    fileprivate var database: (any DatabaseValueConvertible)? {
        switch self {
        case .null: nil
        case .integer(let value): value
        case .text(let value): value
        case .blob(let value): Data(value)
        }
    }

    fileprivate init(_ value: DatabaseValue) {
        switch value.storage {
        case .null: self = .null
        case .int64(let value): self = .integer(value)
        case .double(let value): self = .integer(Int64(value))
        case .string(let value): self = .text(value)
        case .blob(let value): self = .blob(Array(value))
        }
    }
}
