/// The SHA-256 (FIPS 180-4) of a chunk's bytes, which is also its name.
public struct ChunkHash: Hashable, Comparable, Sendable {
    public static let byteCount = 32

    let words: (UInt64, UInt64, UInt64, UInt64)

    /// - Parameter bytes: exactly 32; nil for any other count.
    public init?(bytes: some Collection<UInt8>) {
        guard bytes.count == Self.byteCount else { return nil }
        var parts: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        for (position, byte) in bytes.enumerated() {
            switch position >> 3 {
            case 0: parts.0 = parts.0 << 8 | UInt64(byte)
            case 1: parts.1 = parts.1 << 8 | UInt64(byte)
            case 2: parts.2 = parts.2 << 8 | UInt64(byte)
            default: parts.3 = parts.3 << 8 | UInt64(byte)
            }
        }
        words = parts
    }

    /// 32 bytes, as SHA-256 writes them.
    public var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Self.byteCount) { buffer, count in
            for (index, word) in [words.0, words.1, words.2, words.3].enumerated() {
                for i in 0..<8 { buffer[index * 8 + i] = UInt8(truncatingIfNeeded: word >> (56 - 8 * UInt64(i))) }
            }
            count = Self.byteCount
        }
    }

    public static func == (a: Self, b: Self) -> Bool { a.words == b.words }
    public static func < (a: Self, b: Self) -> Bool { a.words < b.words }
    public func hash(into hasher: inout Hasher) { hasher.combine(words.0) }
}

extension ChunkHash: LosslessStringConvertible, Codable {
    /// 64 lower-case hexadecimal digits.
    public var description: String { Hexadecimal.encode(bytes) }

    public init?(_ description: String) {
        guard description.utf8.count == 64, let bytes = Hexadecimal.decode(description.utf8) else { return nil }
        self.init(bytes: bytes)
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let value = Self(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a SHA-256 in hexadecimal")
        }
        self = value
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
