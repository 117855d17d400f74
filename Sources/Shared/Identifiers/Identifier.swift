/// A 16-byte identifier that cannot be mistaken for one of another kind.
///
/// New ones are UUIDs of version 7 (RFC 9562, section 5.7): the first 48 bits are milliseconds since 1970, so keys
/// made one after the other lie side by side in an index, and any machine may make them while it is offline.
public struct Identifier<Tag>: Hashable, Comparable, Sendable {
    public let high: UInt64
    public let low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// A fresh version 7 UUID: the time is the wall clock's, the other 74 bits are random.
    public static func make() -> Self {
        var random = SystemRandomNumberGenerator()
        return make(milliseconds: UInt64(Timestamp.now().nanoseconds / 1_000_000), random: &random)
    }

    /// - Parameter milliseconds: since 1970; the low 48 bits are used.
    public static func make(milliseconds: UInt64, random: inout some RandomNumberGenerator) -> Self {
        Self(
            high: milliseconds << 16 | 0x7000 | UInt64.random(in: 0...0xFFF, using: &random),
            low: 0x8000_0000_0000_0000 | UInt64.random(in: 0...0x3FFF_FFFF_FFFF_FFFF, using: &random))
    }

    /// - Parameter bytes: exactly 16, big-endian as in RFC 9562; nil for any other count.
    public init?(bytes: some Collection<UInt8>) {
        guard bytes.count == 16 else { return nil }
        self = bytes.withMemory { Self($0) }
    }

    /// - Parameter bytes: 16.
    private init(_ bytes: UnsafeRawBufferPointer) {
        self.init(
            high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)), low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }

    /// 16 bytes, big-endian: what the databases hold.
    public var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 16) { buffer, count in
            let bytes = UnsafeMutableRawBufferPointer(buffer)
            bytes.storeBytes(of: high.bigEndian, as: UInt64.self)
            bytes.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
            count = 16
        }
    }

    public static func < (a: Self, b: Self) -> Bool { (a.high, a.low) < (b.high, b.low) }
}

extension Identifier: LosslessStringConvertible {
    /// Lower-case `8-4-4-4-12` hexadecimal, the only spelling that is written.
    public var description: String {
        String(unsafeUninitializedCapacity: 36) { text in
            var at = 0
            for index in 0..<16 {
                if index == 4 || index == 6 || index == 8 || index == 10 {
                    text[at] = UInt8(ascii: "-")
                    at += 1
                }
                let word = index < 8 ? high : low
                (text[at], text[at + 1]) = Hexadecimal.encode(UInt8(truncatingIfNeeded: word >> UInt64(56 - 8 * (index & 7))))
                at += 2
            }
            return at
        }
    }

    /// Reads the dashed spelling, in either case; nil for anything else.
    public init?(_ description: String) {
        let text = Array(description.utf8)
        guard text.count == 36 else { return nil }
        var words: (high: UInt64, low: UInt64) = (0, 0)
        for (at, character) in text.enumerated() {
            if at == 8 || at == 13 || at == 18 || at == 23 {
                guard character == UInt8(ascii: "-") else { return nil }
            } else {
                guard let digit = Hexadecimal.value(of: character) else { return nil }
                if at < 18 { words.high = words.high << 4 | UInt64(digit) } else { words.low = words.low << 4 | UInt64(digit) }
            }
        }
        self.init(high: words.high, low: words.low)
    }
}

extension Identifier: Codable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let value = Self(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a UUID")
        }
        self = value
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

public enum AccountTag {}
public enum CommitTag {}
public enum DeviceTag {}
public enum NamespaceTag {}
public enum NodeTag {}
public enum ServerTag {}
public enum UploadTag {}
public enum VersionTag {}

/// A person (or a robot) who can log in.
public typealias AccountID = Identifier<AccountTag>
/// One batch of operations; repeating it gives the first answer again.
public typealias CommitID = Identifier<CommitTag>
/// One device token of an account.
public typealias DeviceID = Identifier<DeviceTag>
/// A tree with one root: the unit of sharing, ordering and quota.
public typealias NamespaceID = Identifier<NamespaceTag>
/// A file, directory, symlink or special file; survives rename.
public typealias NodeID = Identifier<NodeTag>
/// A server's database, as made once by its first start.
public typealias ServerID = Identifier<ServerTag>
/// An upload session.
public typealias UploadID = Identifier<UploadTag>
/// What a file held after one change of content.
public typealias VersionID = Identifier<VersionTag>
