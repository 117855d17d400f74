import Foundation
import Shared
import Testing
@testable import ChunkCache

/// Small chunks that lie in one file.
@Suite struct PackTests {
    private let bodies = (0..<10).map { Body($0, count: 100 + 37 * $0) }
    private let folder = CacheFolder()

    private var packs: [String] { (try? FileManager.default.contentsOfDirectory(atPath: folder.path + "/packs")) ?? [] }

    @Test func aPackIsReadAgain() throws {
        var cache = try folder.cache()
        try cache.adopt(bodies + bodies.prefix(3))
        #expect(packs.count == 1)
        for _ in 0..<2 {
            for body in bodies { #expect(cache.open(body.reference) != nil && cache.holdsOnDisk(body)) }
            cache = try folder.cache()
            #expect(cache.isConsistent)
        }
        #expect(cache.statistics.damaged == 0)
    }

    @Test func whatIsThereTwiceIsClaimedTwice() throws {
        let cache = try folder.cache()
        try cache.insert(bodies[1])
        try cache.adopt([bodies[0], bodies[1], bodies[0], bodies[1]])
        #expect(cache.unsentBytes == UInt64(bodies[0].bytes.count + bodies[1].bytes.count))
        cache.markSent([bodies[0].hash, bodies[1].hash])
        cache.dropClean()
        #expect(cache.contains(bodies[0].hash) && cache.contains(bodies[1].hash))
        cache.markSent([bodies[0].hash, bodies[1].hash])
        cache.dropClean()
        #expect(!cache.contains(bodies[0].hash) && !cache.contains(bodies[1].hash) && packs == [] && cache.usedBytes == 0)
    }

    /// It is evicted as a whole, and not while one of its chunks was not sent.
    @Test func aPackStaysForEachOfItsChunks() throws {
        let cache = try folder.cache(limit: 20_000)
        try cache.adopt(bodies)
        cache.markSent(bodies.dropFirst().map(\.hash))
        #expect(!cache.reserve(bytes: 20_000))
        #expect(bodies.allSatisfy { cache.holdsOnDisk($0) })
        cache.markSent([bodies[0].hash])
        #expect(cache.reserve(bytes: 20_000))
        #expect(packs == [] && cache.usedBytes == 20_000 && bodies.allSatisfy { !cache.contains($0.hash) })
    }

    /// Who reads while the pack goes reads on.
    @Test func whatIsOpenStays() throws {
        let cache = try folder.cache()
        try cache.adopt(bodies)
        let open = try #require(cache.open(bodies[5].reference))
        cache.markSent(bodies.map(\.hash))
        cache.dropClean()
        #expect(packs == [])
        #expect(withExtendedLifetime(open) { SHA256.hash(open.fileDescriptor, from: open.offset, count: bodies[5].bytes.count) } == bodies[5].hash)
    }

    @Test func damageIsFoundAndOnlyTheDamagedGoes() throws {
        var cache = try folder.cache()
        try cache.adopt(bodies)
        cache.markSent(bodies.map(\.hash))
        let place = try #require(cache.state.withLock { $0.chunks[bodies[4].hash]?.place }), path = Pack.path(folder.path, place.pack)
        let file = try FileHandle(forUpdating: URL(filePath: path))
        try file.seek(toOffset: UInt64(place.offset + 5))
        try file.write(contentsOf: [bodies[4].bytes[5] ^ 1])
        try file.close()
        #expect(cache.open(bodies[4].reference) == nil && cache.statistics.damaged == 1)
        for body in bodies where body.hash != bodies[4].hash { #expect(cache.open(body.reference) != nil) }
        #expect(cache.isConsistent)
        // It comes again, as a file, and the next start finds both.
        try cache.insert(bodies[4])
        cache = try folder.cache()
        #expect(cache.isConsistent && cache.open(bodies[4].reference) == nil, "the pack is believed until it is read")
        try cache.insert(bodies[4])
        #expect(cache.open(bodies[4].reference) != nil && cache.holdsOnDisk(bodies[4]))
    }

    @Test func aScrubFindsDamage() throws {
        let cache = try folder.cache()
        try cache.adopt(bodies)
        cache.markSent(bodies.map(\.hash))
        let place = try #require(cache.state.withLock { $0.chunks[bodies[7].hash]?.place })
        let file = try FileHandle(forUpdating: URL(filePath: Pack.path(folder.path, place.pack)))
        try file.seek(toOffset: UInt64(place.offset))
        try file.write(contentsOf: [bodies[7].bytes[0] ^ 1])
        try file.close()
        let step = cache.scrub(after: nil, bytes: 1 << 30)
        #expect(step.damaged.map(\.reference) == [bodies[7].reference] && step.last == nil)
        #expect(!cache.contains(bodies[7].hash) && cache.contains(bodies[6].hash))
    }

    @Test func whatIsNoWholePackGoes() throws {
        var cache = try folder.cache()
        try cache.adopt(bodies)
        let path = folder.path + "/packs/" + packs[0]
        try Data([1, 2, 3]).write(to: URL(filePath: folder.path + "/packs/7.part"))
        // A power cut may have cut it short: what is whole stays.
        let last = try #require(cache.state.withLock { $0.chunks[bodies[9].hash]?.place })
        truncate(path, off_t(last.offset + 1))
        cache = try folder.cache()
        #expect(packs == [(path as NSString).lastPathComponent])
        #expect(!cache.contains(bodies[9].hash) && bodies.dropLast().allSatisfy { cache.open($0.reference) != nil })
        truncate(path, 20)
        cache = try folder.cache()
        #expect(packs == [] && cache.usedBytes == 0)
    }

    @Test func manyBecomeSeveralPacks() throws {
        let cache = try folder.cache(limit: 100 << 20), many = (0..<1200).map { Body($0, count: 1000 + $0) }
        try cache.adopt(many)
        #expect(packs.count == 3 && many.allSatisfy { cache.holdsOnDisk($0) } && cache.isConsistent)
    }
}
