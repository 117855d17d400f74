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

    func holdsOnDisk(_ body: Body) -> Bool {
        let (path, _, offset) = whereabouts(body.hash, state.withLock { $0.chunks[body.hash] })
        return FileManager.default.contents(atPath: path).map { Array($0.dropFirst(offset).prefix(body.bytes.count)) } == body.bytes
    }

    func adopt(_ bodies: [Body]) throws { endSealing(bytes: try adopt(bodies.map { ($0.reference, $0.bytes) })) }

    /// What `CacheState` counts is what its chunks and packs say.
    var isConsistent: Bool {
        state.withLock { state in
            let files = state.chunks.values.filter { $0.place == nil }.reduce(UInt64(0)) { $0 + UInt64($1.length) }
            let packed = Dictionary(grouping: state.chunks.filter { $0.value.place != nil }, by: { $0.value.place!.pack })
            return state.chunkBytes == state.packs.values.reduce(files) { $0 + $1.byteCount }
                && Set(packed.keys) == Set(state.packs.keys)
                && state.packs.allSatisfy { number, pack in
                    Set(packed[number]!.map(\.key)) == pack.members && packed[number]!.count { $0.value.claims > 0 } == pack.claimed
                }
        }
    }

    /// Bytes that packs take beyond those of their chunks that are here.
    var packedSurplus: UInt64 {
        state.withLock { state in
            state.packs.values.reduce(0) { sum, pack in sum + pack.byteCount - pack.members.reduce(UInt64(0)) { $0 + UInt64(state.chunks[$1]!.length) } }
        }
    }

    func isKept(_ hash: ChunkHash) -> Bool {
        state.withLock { state in
            guard let chunk = state.chunks[hash] else { return true }
            return chunk.claims > 0 || chunk.place.map { state.packs[$0.pack]!.claimed > 0 } ?? false
        }
    }
}
