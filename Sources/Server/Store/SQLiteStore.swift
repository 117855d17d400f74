import Foundation
import GRDB
import Shared

/// The embedded store: SQLite in WAL mode. `synchronous=FULL`: what was answered survives a power cut.
final class SQLiteStore: Store {
    private let pool: DatabasePool

    init(path: String) throws {
        var configuration = Configuration()
        configuration.busyMode = .timeout(10)
        configuration.maximumReaderCount = 4
        configuration.prepareDatabase { database in
            try database.execute(sql: "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -16384")
        }
        pool = try DatabasePool(path: path, configuration: configuration)
        try pool.write { try Schema.migrate(SQLiteConnection(database: $0)) }
    }

    func write<T: Sendable>(_ body: @escaping @Sendable (any SQLConnection) throws -> T) async throws -> T {
        do { return try await pool.write { try body(SQLiteConnection(database: $0)) } } catch let error as DatabaseError {
            throw StoreError(description: "\(error)", isFull: error.resultCode == .SQLITE_FULL)
        }
    }

    func read<T: Sendable>(_ body: @escaping @Sendable (any SQLConnection) throws -> T) async throws -> T {
        do { return try await pool.read { try body(SQLiteConnection(database: $0)) } } catch let error as DatabaseError {
            throw StoreError(description: "\(error)")
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
