import Shared

/// One value of a row or a statement's argument, in the types that SQLite and PostgreSQL share.
enum SQLValue: Sendable, Hashable {
    case null, integer(Int64), text(String), blob([UInt8])

    static func id<Tag>(_ id: Identifier<Tag>?) -> SQLValue { id.map { .blob($0.bytes) } ?? .null }
    static func hash(_ hash: ChunkHash) -> SQLValue { .blob(hash.bytes) }
    static func int(_ value: some BinaryInteger) -> SQLValue { .integer(Int64(truncatingIfNeeded: value)) }
    static func time(_ time: Timestamp?) -> SQLValue { time.map { .integer($0.nanoseconds) } ?? .null }
}

struct StoreError: Error, CustomStringConvertible, Sendable {
    let description: String
    var isFull = false
}

/// A result row; columns are counted from 0, as the statement names them.
struct SQLRow: Sendable {
    let values: [SQLValue]

    func isNull(_ column: Int) -> Bool { values[column] == .null }

    func int(_ column: Int) -> Int64 { if case .integer(let value) = values[column] { value } else { 0 } }

    func text(_ column: Int) -> String? { if case .text(let value) = values[column] { value } else { nil } }

    func blob(_ column: Int) -> [UInt8]? { if case .blob(let value) = values[column] { value } else { nil } }

    func id<Tag>(_ column: Int, _: Tag.Type = Tag.self) throws -> Identifier<Tag> {
        guard let id = blob(column).flatMap({ Identifier<Tag>(bytes: $0) }) else { throw StoreError(description: "column \(column) holds no identifier") }
        return id
    }

    func hash(_ column: Int) throws -> ChunkHash {
        guard let hash = blob(column).flatMap({ ChunkHash(bytes: $0) }) else { throw StoreError(description: "column \(column) holds no hash") }
        return hash
    }

    func time(_ column: Int) -> Timestamp { Timestamp(nanoseconds: int(column)) }
}

/// A connection within a transaction. One SQL text serves every store: parameters are `$1`, `$2` … in the order of their first
/// appearance, and words that only one engine knows stand in that engine's file.
protocol SQLConnection {
    func query(_ sql: String, _ arguments: [SQLValue]) throws -> [SQLRow]
    /// - Returns: the number of rows changed.
    @discardableResult
    func execute(_ sql: String, _ arguments: [SQLValue]) throws -> Int
}

extension SQLConnection {
    func first(_ sql: String, _ arguments: [SQLValue]) throws -> SQLRow? { try query(sql, arguments).first }

    /// Calls `body` with some of the values at a time, for a statement that is about many.
    ///
    /// A group has 1, 8 or 64 values, so that statements are few and stay prepared: the last value may stand in it several times.
    func inGroups<Value>(_ values: [Value], _ body: (_ group: [Value]) throws -> Void) rethrows {
        for start in stride(from: 0, to: values.count, by: 64) {
            let group = Array(values[start..<min(start + 64, values.count)]), size = group.count == 1 ? 1 : group.count <= 8 ? 8 : 64
            try body(group + repeatElement(group.last!, count: size - group.count))
        }
    }

    /// `$first, $(first + 1), …`
    func parameters(_ first: Int, count: Int) -> String { (first..<first + count).map { "$\($0)" }.joined(separator: ", ") }
}

/// What is left of a transaction after a power cut.
enum Durability: Sendable {
    /// All of it, once `write` has returned.
    case synced
    /// All of it, once a later `.synced` transaction has returned; until then perhaps nothing. The end of the process alone loses nothing.
    case ordered
}

/// A database of the server.
protocol Store: Sendable {
    /// Runs `body` in one transaction; nothing of it is there when it throws.
    func write<T: Sendable>(_ durability: Durability, _ body: @escaping @Sendable (any SQLConnection) throws -> T) async throws -> T
    /// Runs `body` on one snapshot.
    func read<T: Sendable>(_ body: @escaping @Sendable (any SQLConnection) throws -> T) async throws -> T
}
