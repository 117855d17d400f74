import Foundation
import Shared
@testable import ChunkCache

/// A folder for one cache, gone with the test.
final class CacheFolder: Sendable {
    let path = NSTemporaryDirectory() + "/boxfs-cache-" + UUID().uuidString
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func cache(limit: UInt64 = 1 << 20) throws -> ChunkCache { try ChunkCache(directory: path, limitBytes: limit) }

    /// A sealed segment's file.
    func segment(_ bytes: [UInt8]) throws -> String {
        let file = "\(path)/\(UUID().uuidString).segment"
        try Data(bytes).write(to: URL(filePath: file))
        return file
    }

    func flipBit(_ hash: ChunkHash) throws {
        let file = URL(filePath: ChunkFiles.path(path, hash))
        let handle = try FileHandle(forUpdating: file)
        var byte = try handle.read(upToCount: 1)!
        byte[0] ^= 1
        try handle.seek(toOffset: 0)
        try handle.write(contentsOf: byte)
        try handle.close()
    }
}

/// Bytes with their name.
struct Body: Sendable {
    let bytes: [UInt8]
    let reference: ChunkReference
    var hash: ChunkHash { reference.hash }

    init(_ number: Int, count: Int) {
        bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ number &+ $0 >> 8) }
        reference = ChunkReference(hash: SHA256.hash(bytes), length: UInt32(count))
    }
}

extension ChunkCache {
    func insert(_ body: Body) throws {
        let isRight = try body.bytes.withUnsafeBytes { try insert(body.reference, $0) }
        precondition(isRight)
    }

    func holdsOnDisk(_ body: Body) -> Bool { FileManager.default.contents(atPath: path(body.hash)).map(Array.init) == body.bytes }
}

/// SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
