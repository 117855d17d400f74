import Foundation
import Shared
import Testing
import TestSupport
@testable import ChunkCache

/// Random calls against a model that knows the claims. `BOXFS_SEED` repeats a run.
@Suite struct CacheModelTests {
    @Test func limitAndClaimsHold() throws {
        var random = SeededGenerator()
        let folder = CacheFolder(), limit: UInt64 = 200_000
        let bodies = (0..<40).map { Body($0, count: Int.random(in: 1...20_000, using: &random)) }
        var cache = try folder.cache(limit: limit)
        var claims: [ChunkHash: Int] = [:], reserved: UInt64 = 0
        /// Nothing is left to evict: a pack goes as a whole.
        func isFull() -> Bool { bodies.allSatisfy { cache.isKept($0.hash) } }
        for step in 0..<3000 {
            let body = bodies.randomElement(using: &random)!
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<40:
                if cache.contains(body.hash) { continue }
                do {
                    try cache.insert(body)
                    #expect(cache.usedBytes <= limit)
                } catch { #expect(error as? ChunkCacheError == .full && isFull(), "step \(step)") }
            case 40..<60: if let open = cache.open(body.reference) { #expect(SHA256.hash(open.fileDescriptor, from: open.offset, count: body.bytes.count) == body.hash) }
            case 60..<63:
                let packed = (0..<Int.random(in: 1...6, using: &random)).map { _ in bodies.randomElement(using: &random)! }
                try cache.adopt(packed)
                for body in packed { claims[body.hash, default: 0] += 1 }
            case 63..<68:
                cache.endSealing(bytes: try cache.adopt(fileAt: try folder.segment(body.bytes), as: body.reference))
                claims[body.hash, default: 0] += 1
            case 68..<74:
                if cache.contains(body.hash) { claims[body.hash, default: 0] += 1 }
                cache.claimUnsent(body.hash)
            case 74..<92:
                let sent = bodies.shuffled(using: &random).prefix(3).map(\.hash)
                for hash in sent { claims[hash] = max(0, claims[hash, default: 0] - 1) }
                cache.markSent(sent)
                #expect(cache.usedBytes <= limit || isFull(), "step \(step)")
            case 92..<95:
                if cache.reserve(bytes: 30_000) {
                    reserved += 30_000
                    #expect(cache.usedBytes <= limit)
                } else { #expect(isFull(), "step \(step)") }
            case 95..<98:
                cache.release(bytes: 30_000)
                reserved -= min(reserved, 30_000)
            case 98:
                cache.dropClean()
                #expect(isFull())
            default:
                cache = try folder.cache(limit: limit)
                cache.resetUnsentClaims(claims)
                reserved = 0
            }
            let held = bodies.filter { cache.contains($0.hash) }, unsent = bodies.filter { claims[$0.hash, default: 0] > 0 }
            #expect(unsent.allSatisfy { cache.contains($0.hash) }, "step \(step)")
            #expect(cache.usedBytes == held.reduce(reserved + cache.packedSurplus) { $0 + UInt64($1.bytes.count) }, "step \(step)")
            #expect(cache.isConsistent, "step \(step)")
            #expect(cache.unsentBytes == unsent.reduce(reserved) { $0 + UInt64($1.bytes.count) }, "step \(step)")
            if step % 50 == 0 { for body in bodies { #expect(cache.holdsOnDisk(body) == cache.contains(body.hash), "step \(step)") } }
        }
    }

    @Test func allThatIsCleanGoesBeforeTheCacheIsFull() throws {
        let folder = CacheFolder(), cache = try folder.cache(limit: 100_000)
        for number in 0..<10 { try cache.insert(Body(number, count: 10_000)) }
        #expect(cache.reserve(bytes: 100_000))
        #expect(cache.usedBytes == 100_000)
    }

    /// Readers, an inserter, one who drops all that is clean, and one whose unsent chunk must stay all the while.
    @Test func readersAndUnsentChunksWhileEvicting() async throws {
        let folder = CacheFolder(), cache = try folder.cache(limit: 60_000)
        let bodies = (0..<20).map { Body($0, count: 8000 + $0) }, unsent = Body(99, count: 5000)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for first in 0..<2 {
                group.addTask {
                    for turn in 0..<3000 {
                        let body = bodies[(turn * 7 + first) % bodies.count]
                        guard let open = cache.open(body.reference) else { continue }
                        let hash = withExtendedLifetime(open) { SHA256.hash(open.fileDescriptor, from: open.offset, count: body.bytes.count) }
                        #expect(hash == body.hash)
                    }
                }
            }
            group.addTask { for turn in 0..<3000 { do { try cache.insert(bodies[turn % bodies.count]) } catch ChunkCacheError.full {} } }
            group.addTask { for _ in 0..<3000 { cache.dropClean() } }
            group.addTask {
                for _ in 0..<1500 {
                    cache.endSealing(bytes: try cache.adopt(fileAt: try folder.segment(unsent.bytes), as: unsent.reference))
                    await Task.yield()
                    #expect(cache.contains(unsent.hash) && cache.holdsOnDisk(unsent))
                    cache.markSent([unsent.hash])
                }
            }
            try await group.waitForAll()
        }
        #expect(cache.unsentBytes == 0 && cache.usedBytes <= 60_000 && cache.statistics.damaged == 0)
    }
}
