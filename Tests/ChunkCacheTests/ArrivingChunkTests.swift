import Foundation
import Shared
import Testing
@testable import ChunkCache

/// Chunks that are written while they arrive.
@Suite struct ArrivingChunkTests {
    let folder = CacheFolder(), body = Body(1, count: 10_000)

    private func append(_ bytes: some Sequence<UInt8>, to chunk: ArrivingChunk) throws(ChunkCacheError) {
        var failure: ChunkCacheError?
        Array(bytes).withUnsafeBytes { bytes in
            do throws(ChunkCacheError) { try chunk.append(bytes) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    private var leftovers: [String] {
        get throws { try FileManager.default.contentsOfDirectory(atPath: folder.path + "/chunks").filter { $0.hasSuffix(".part") } }
    }

    @Test func itIsThereWhenAllHasArrived() throws {
        let cache = try folder.cache()
        do {
            let chunk = ArrivingChunk(cache, body.reference)
            for part in [0..<1, 1..<5000, 5000..<10_000] {
                try append(body.bytes[part], to: chunk)
                #expect(!cache.contains(body.hash) && cache.usedBytes == 10_000)
            }
            #expect(try chunk.finish())
        }
        #expect(cache.holdsOnDisk(body) && cache.usedBytes == 10_000)
        #expect(try leftovers == [])
    }

    /// It is written in several pieces, of which none ends where bytes came.
    @Test func aLongOneIsWrittenInPieces() throws {
        let cache = try folder.cache(), long = Body(3, count: 600_000)
        do {
            let chunk = ArrivingChunk(cache, long.reference)
            for part in [0..<1, 1..<5000, 5000..<300_000, 300_000..<600_000] {
                try append(long.bytes[part], to: chunk)
                #expect(!cache.contains(long.hash) && cache.usedBytes == 600_000)
            }
            #expect(try chunk.finish())
        }
        #expect(cache.holdsOnDisk(long) && cache.usedBytes == 600_000)
        try append(long.bytes.prefix(500_000), to: ArrivingChunk(cache, long.reference))
        #expect(try leftovers == [])
    }

    /// Of what breaks off, is too long or has other bytes nothing stays, nor the room that it took.
    @Test func whatIsNotTheChunkLeavesNothing() throws {
        let cache = try folder.cache()
        for wrong in [[], body.bytes.dropLast(), body.bytes + [0], [body.bytes[0] ^ 1] + body.bytes.dropFirst()] as [[UInt8]] {
            let chunk = ArrivingChunk(cache, body.reference)
            try append(wrong, to: chunk)
            #expect(try !chunk.finish())
        }
        do {        // given up
            let chunk = ArrivingChunk(cache, body.reference)
            try append(body.bytes.prefix(500), to: chunk)
            #expect(try leftovers.count == 1)
        }
        #expect(!cache.contains(body.hash) && cache.usedBytes == 0)
        #expect(try leftovers == [])
    }

    /// Its file may be on the disk, and nobody syncs what takes its place.
    @Test func whatIsThereStays() throws {
        let cache = try folder.cache()
        try cache.insert(body)
        let mark = FileMark(path: cache.path(body.hash))
        try cache.insert(body)
        #expect(FileMark(path: cache.path(body.hash)) == mark && cache.usedBytes == 10_000)
        #expect(try leftovers == [])
    }

    /// What is here needs no room.
    @Test func whatIsThereIsNotRefusedByAFullCache() throws {
        let cache = try folder.cache(limit: 10_000)
        try cache.insert(body)
        cache.claimUnsent(body.hash)
        try cache.insert(body)
        let chunk = ArrivingChunk(cache, body.reference)
        try append(body.bytes.dropLast() + [0], to: chunk)
        #expect(try !chunk.finish() && cache.holdsOnDisk(body) && cache.usedBytes == 10_000)
    }

    /// What is unsent fills the cache: there is no room, and none is taken. What is clean makes room.
    @Test func roomIsMadeOrNotTaken() throws {
        let cache = try folder.cache(limit: 25_000), other = Body(2, count: 20_000)
        try cache.insert(other)
        cache.claimUnsent(other.hash)
        #expect(throws: ChunkCacheError.full) { try append(body.bytes, to: ArrivingChunk(cache, body.reference)) }
        #expect(cache.usedBytes == 20_000 && cache.contains(other.hash))
        cache.markSent([other.hash])
        try cache.insert(body)
        #expect(cache.contains(body.hash) && !cache.contains(other.hash))
    }
}
