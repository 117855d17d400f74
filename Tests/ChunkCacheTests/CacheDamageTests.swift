import Foundation
import Shared
import Testing
@testable import ChunkCache

/// Files and index that changed behind the cache's back.
@Suite struct CacheDamageTests {
    let folder = CacheFolder(), body = Body(1, count: 10_000)

    @Test(arguments: [false, true]) func flippedBit(_ afterRestart: Bool) throws {
        var cache = try folder.cache()
        try cache.insert(body)
        Thread.sleep(forTimeInterval: 0.05)   // the file system's clock ticks
        try folder.flipBit(body.hash)
        if afterRestart { cache = try folder.cache() }
        #expect(cache.open(body.reference) == nil)
        #expect(!cache.contains(body.hash) && cache.usedBytes == 0 && cache.statistics.damaged == 1)
        #expect(!FileManager.default.fileExists(atPath: cache.path(body.hash)))
    }

    @Test func scrubFindsWhatKeptItsTime() throws {
        let cache = try folder.cache()
        try cache.insert(body)
        try folder.flipBit(body.hash)
        #expect(scrub(cache) == [body.hash])
        #expect(!cache.contains(body.hash))
        try cache.insert(body)
        cache.claimUnsent(body.hash)
        try folder.flipBit(body.hash)
        #expect(scrub(cache) == [body.hash] && cache.contains(body.hash))
    }

    private func scrub(_ cache: ChunkCache) -> [ChunkHash] { cache.scrub(after: nil, bytes: .max).damaged.map(\.reference.hash) }

    @Test func scrubSeesEachChunkOnceInSteps() throws {
        let cache = try folder.cache(limit: 1 << 24), bodies = (0..<300).map { Body($0, count: 1000 + $0) }
        for body in bodies {
            try cache.insert(body)
            try folder.flipBit(body.hash)
        }
        var seen: [ChunkHash] = [], last: ChunkHash?
        repeat {
            let step = cache.scrub(after: last, bytes: 2500)
            #expect(step.damaged.count <= 3)
            seen += step.damaged.map(\.reference.hash)
            last = step.last
        } while last != nil
        #expect(seen.count == bodies.count && Set(seen) == Set(bodies.map(\.hash)))
        #expect(seen.map(\.description) == seen.map(\.description).sorted())
    }

    /// A power cut leaves a short file: it must not stand in the way of the whole one.
    @Test func shortFileIsReplaced() throws {
        try folder.cache().insert(body)
        #expect(truncate(ChunkFiles.path(folder.path, body.hash), 100) == 0)
        let cache = try folder.cache()
        #expect(cache.open(body.reference) == nil)
        try cache.insert(body)
        #expect(cache.open(body.reference) != nil && cache.holdsOnDisk(body) && cache.usedBytes == 10_000)
    }

    /// The same where the short file is all that is left of unsent data: it stays until the whole comes, and then both claims count.
    @Test func shortClaimedFileIsReplacedToo() throws {
        try folder.cache().insert(body)
        #expect(truncate(ChunkFiles.path(folder.path, body.hash), 100) == 0)
        let cache = try folder.cache()
        cache.claimUnsent(body.hash)
        #expect(cache.open(body.reference) == nil && cache.contains(body.hash) && cache.unsentBytes == 100)
        _ = try cache.adopt(fileAt: try folder.segment(body.bytes), as: body.reference)
        #expect(cache.open(body.reference) != nil && cache.holdsOnDisk(body) && cache.unsentBytes == 10_000)
        cache.markSent([body.hash])
        #expect(cache.unsentBytes == 10_000)
        cache.markSent([body.hash])
        #expect(cache.unsentBytes == 0)
    }

    @Test func fileWithoutRow() throws {
        _ = try folder.cache()
        let other = Body(2, count: 10_000)
        for (hash, bytes) in [(body.hash, body.bytes), (other.hash, body.bytes)] {
            try Data(bytes).write(to: URL(filePath: ChunkFiles.path(folder.path, hash)))
        }
        let cache = try folder.cache()
        #expect(cache.usedBytes == 20_000)
        #expect(cache.open(body.reference) != nil)
        #expect(cache.open(other.reference) == nil)
        #expect(cache.usedBytes == 10_000)
    }

    @Test func rowWithoutFile() throws {
        func rows() throws -> Int { try ChunkIndex(path: folder.path + "/index.db").load().count }
        func wait(for count: Int) throws {
            for _ in 0..<50 where try rows() != count { Thread.sleep(forTimeInterval: 0.1) }
            #expect(try rows() == count)
        }
        try folder.cache().insert(body)
        try wait(for: 1)
        try FileManager.default.removeItem(atPath: ChunkFiles.path(folder.path, body.hash))
        let cache = try folder.cache()
        #expect(!cache.contains(body.hash) && cache.usedBytes == 0 && cache.open(body.reference) == nil)
        try wait(for: 0)
    }
}
