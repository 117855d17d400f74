import Foundation

/// JSON as commands print it.
enum JSONText {
    static func encode(_ value: some Encodable) throws -> String { try encode(value, [.prettyPrinted]) }

    /// On one line, for those who read line by line.
    static func line(_ value: some Encodable) throws -> String { try encode(value, []) }

    private static func encode(_ value: some Encodable, _ formatting: JSONEncoder.OutputFormatting) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = formatting.union([.sortedKeys, .withoutEscapingSlashes])
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }
}
