import ChunkCache
import Foundation
import Glibc
import Shared
import Synchronization
import Testing
@testable import BoxFS

/// The scrub goes on where it was.
@Suite struct ScrubberTests {
    private final class Found: Sendable {
        let hashes = Mutex<[ChunkHash]>([])
        func wait(for count: Int) { for _ in 0..<500 where hashes.withLock({ $0.count }) < count { usleep(10_000) } }
    }

    @Test func aNewScrubGoesOnWhereTheLastWas() throws {
        let path = NSTemporaryDirectory() + "/boxfs-scrub-" + UUID().uuidString
        defer { try? FileManager.default.removeItem(atPath: path) }
        let cache = try ChunkCache(directory: path, limitBytes: 1 << 24)
        var hashes: [ChunkHash] = []
        for number in 0..<8 {
            let bytes = [UInt8](repeating: UInt8(number), count: 5000), hash = SHA256.hash(bytes)
            #expect(try bytes.withUnsafeBytes { try cache.insert(ChunkReference(hash: hash, length: 5000), $0) })
            cache.claimUnsent(hash)     // so that it stays though it is damaged
            let name = hash.description
            try Data(repeating: 9, count: 5000).write(to: URL(filePath: "\(path)/chunks/\(name.prefix(2))/\(name)"))
            hashes.append(hash)
        }
        hashes.sort { $0.description < $1.description }
        func scrub(until count: Int) -> [ChunkHash] {
            let found = Found()
            let scrubber = Scrubber(cache: cache, restSeconds: 0.2, stepBytes: 1) { reference, isUnsent in
                #expect(isUnsent)
                found.hashes.withLock { $0.append(reference.hash) }
            }
            scrubber.start()
            found.wait(for: count)
            scrubber.stop(within: 60)
            return found.hashes.withLock { $0 }
        }
        let first = scrub(until: 3), second = scrub(until: 8 - first.count)
        #expect(first.count < 8 && first + second == hashes)
    }
}
