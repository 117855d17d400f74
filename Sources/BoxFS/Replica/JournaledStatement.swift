import Foundation
import GRDB

/// A statement as it lies in the journal (`StatementJournal`).
struct JournaledStatement {
    let sql: String
    let values: [DatabaseValue]

    func execute(_ database: Database) throws {
        try database.cachedStatement(sql: sql).execute(values, database)
    }
}

private enum ValueKind {
    static let null: UInt8 = 0, integer: UInt8 = 1, real: UInt8 = 2, text: UInt8 = 3, bytes: UInt8 = 4
}

extension [UInt8] {
    mutating func append(littleEndian integer: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: integer.littleEndian) { self += $0 }
    }

    mutating func append(value: DatabaseValue) {
        switch value.storage {
        case .null: append(ValueKind.null)
        case .int64(let integer):
            append(ValueKind.integer)
            append(littleEndian: integer)
        case .double(let real):
            append(ValueKind.real)
            append(littleEndian: real.bitPattern)
        case .string(let text):
            append(ValueKind.text)
            append(littleEndian: UInt32(text.utf8.count))
            self += text.utf8
        case .blob(let data):
            append(ValueKind.bytes)
            append(littleEndian: UInt32(data.count))
            data.withUnsafeBytes { self += $0 }
        }
    }
}

/// Reads what `StatementJournal` wrote.
struct JournalReader {
    private let bytes: ArraySlice<UInt8>
    private(set) var position: Int

    /// What ends too early, or is nothing that was written.
    struct Damage: Error {}

    init(_ bytes: ArraySlice<UInt8>) { (self.bytes, position) = (bytes, bytes.startIndex) }

    mutating func bytes(_ count: Int) throws -> ArraySlice<UInt8> {
        guard count <= bytes.endIndex - position else { throw Damage() }
        defer { position += count }
        return bytes[position..<position + count]
    }

    mutating func integer<Integer: FixedWidthInteger>(_ type: Integer.Type) throws -> Integer {
        try bytes(Integer.bitWidth / 8).reversed().reduce(0) { $0 << 8 | Integer($1) }
    }

    mutating func count() throws -> Int { Int(try integer(UInt32.self)) }

    mutating func statement() throws -> JournaledStatement {
        let sql = try text()
        return JournaledStatement(sql: sql, values: try (0..<count()).map { _ in try value() })
    }

    private mutating func text() throws -> String { String(decoding: try bytes(count()), as: UTF8.self) }

    private mutating func value() throws -> DatabaseValue {
        switch try integer(UInt8.self) {
        case ValueKind.null: .null
        case ValueKind.integer: Int64(bitPattern: try integer(UInt64.self)).databaseValue
        case ValueKind.real: Double(bitPattern: try integer(UInt64.self)).databaseValue
        case ValueKind.text: try text().databaseValue
        case ValueKind.bytes: Data(try bytes(count())).databaseValue
        default: throw Damage()
        }
    }
}
