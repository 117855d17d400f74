import Foundation
import GRDB
import GRDBSQLite

/// What one call changes in the replica's rows. What goes through `execute` needs no transaction of its own at close(2).
struct RowChanges {
    /// For reading. What is changed through it is right as well, but then the next close(2) ends the transaction.
    let database: Database
    /// nil: the transaction is about to end.
    private let journal: StatementJournal?

    init(_ database: Database, _ journal: StatementJournal?) { (self.database, self.journal) = (database, journal) }

    /// Executes one statement that changes rows.
    func execute(sql: String, arguments: [(any DatabaseValueConvertible)?] = []) throws {
        let values = arguments.map { $0?.databaseValue ?? .null }
        try database.cachedStatement(sql: sql).execute(values, database)
        journal?.note(sql, values, changes: database.changesCount)
    }
}

extension Statement {
    /// Executes a statement that changes rows. As `execute(arguments:)`, in a third of its time: that boxes each value, and nests a call for each.
    func execute(_ values: [DatabaseValue], _ database: Database) throws {
        defer { sqlite3_reset(sqliteStatement) }
        try bind(values, database)
        try check(sqlite3_step(sqliteStatement), SQLITE_DONE, database)
    }

    /// The integer that the first row begins with; nil if there is no row. As `Int64.fetchOne`.
    func integer(_ values: [DatabaseValue], _ database: Database) throws -> Int64? {
        defer { sqlite3_reset(sqliteStatement) }
        try bind(values, database)
        let code = sqlite3_step(sqliteStatement)
        if code == SQLITE_ROW { return sqlite3_column_int64(sqliteStatement, 0) }
        try check(code, SQLITE_DONE, database)
        return nil
    }

    private func bind(_ values: [DatabaseValue], _ database: Database) throws {
        precondition(values.count == sqlite3_bind_parameter_count(sqliteStatement), "\(sql) takes another number of values")
        for (index, value) in zip(Int32(1)..., values) { try check(bind(value, at: index), SQLITE_OK, database) }
    }

    private func bind(_ value: DatabaseValue, at index: Int32) -> Int32 {
        switch value.storage {
        case .null: sqlite3_bind_null(sqliteStatement, index)
        case .int64(let integer): sqlite3_bind_int64(sqliteStatement, index, integer)
        case .double(let real): sqlite3_bind_double(sqliteStatement, index, real)
        case .string(let text): sqlite3_bind_text(sqliteStatement, index, text, -1, Self.copied)
        case .blob(let data):
            // An empty one has no address, and null is something else.
            data.isEmpty ? sqlite3_bind_zeroblob(sqliteStatement, index, 0)
                : data.withUnsafeBytes { sqlite3_bind_blob(sqliteStatement, index, $0.baseAddress, Int32($0.count), Self.copied) }
        }
    }

    /// `SQLITE_TRANSIENT`
    private static var copied: sqlite3_destructor_type { unsafeBitCast(OpaquePointer(bitPattern: -1), to: sqlite3_destructor_type.self) }

    private func check(_ code: Int32, _ expected: Int32, _ database: Database) throws {
        guard code != expected else { return }
        throw DatabaseError(resultCode: ResultCode(rawValue: code), message: String(cString: sqlite3_errmsg(database.sqliteConnection)), sql: sql)
    }
}
