import Foundation
import NIOCore
import NIOPosix
import Shared
import Testing
@testable import Server

/// Objects as files: what is written past the page cache, in parts, is what was given.
@Suite struct DirectoryChunkStoreTests {
    private let folder = NSTemporaryDirectory() + "/boxfs-objects-" + UUID().uuidString

    private func withStore(_ body: (DirectoryChunkStore) async throws -> Void) async throws {
        let threads = NIOThreadPool(numberOfThreads: 2)
        threads.start()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try await body(try DirectoryChunkStore(root: folder, threads: threads))
        try await threads.shutdownGracefully()
    }

    private func random(_ count: Int) -> [UInt8] { (0..<count).map { _ in .random(in: 0...255) } }
    private func reference(_ bytes: [UInt8]) -> ChunkReference { ChunkReference(hash: SHA256.hash(bytes), length: UInt32(bytes.count)) }

    /// Around the borders of blocks and parts.
    @Test(arguments: [1, 4095, 1 << 20, (1 << 20) + 1, (2 << 20) - 4096, (3 << 20) + 4097, 4 << 20]) func chunksComeBack(_ length: Int) async throws {
        let bytes = random(length), small = random(100)
        try await withStore { store in
            for bodies in [[bytes], [small, bytes, small]] {
                let places = try await store.put(bodies.map { (reference($0), ByteBuffer(bytes: $0)) })
                for (place, body) in zip(places, bodies) { #expect(try await Array(store.read(place).readableBytesView) == body) }
            }
        }
    }

    @Test func aSourceGivesASliceInPieces() async throws {
        let small = random(100), long = random((1 << 20) + 5)
        try await withStore { store in
            let place = try await store.put([small, long].map { (reference($0), ByteBuffer(bytes: $0)) })[1]
            let source = store.source(ChunkLocation(object: place.object, offset: place.offset + 3, length: place.length - 5))
            var got: [UInt8] = []
            for _ in 0..<5 { got += try await source.next(256 << 10).readableBytesView }
            #expect(got == Array(long[3..<long.count - 2]))
            #expect(try await source.next(10).readableBytes == 0)
            try await store.remove(object: place.object)
            await #expect(throws: ChunkStoreError.notFound) { try await store.source(place).next(1) }
        }
    }

    /// In pieces that end anywhere.
    private func arriving(_ bytes: [UInt8]) -> AsyncStream<ByteBuffer> {
        AsyncStream { stream in
            var rest = ByteBuffer(bytes: bytes)
            while rest.readableBytes > 0 { stream.yield(rest.readSlice(length: min(rest.readableBytes, .random(in: 1...300_000)))!) }
            stream.finish()
        }
    }

    @Test(arguments: [1, 4095, 1 << 20, (1 << 20) + 1, (2 << 20) - 4096, (3 << 20) + 4097, 4 << 20]) func aChunkIsStoredWhileItArrives(_ length: Int) async throws {
        let bytes = random(length), wanted = reference(bytes)
        try await withStore { store in
            let made = try await store.put(wanted, arriving: arriving(bytes), keeps: true)
            #expect(made.found == wanted.hash)
            #expect(try await Array(store.read(try #require(made.location)).readableBytesView) == bytes)
            let looked = try await store.put(wanted, arriving: arriving(bytes), keeps: false)
            #expect(looked.found == wanted.hash && looked.location == nil)
            let other = try await store.put(ChunkReference(hash: SHA256.hash([1, 2]), length: wanted.length), arriving: arriving(bytes), keeps: true)
            #expect(other.found == wanted.hash && other.location == nil)
            for wrong in [[0] + bytes.dropLast(), Array(bytes.dropLast())] where !wrong.isEmpty {     // nothing: below
                let made = try await store.put(wanted, arriving: arriving(wrong), keeps: true)
                #expect(made.found == SHA256.hash(wrong) && made.location == nil)
            }
            let lied = ChunkReference(hash: wanted.hash, length: wanted.length + 1)
            await #expect(throws: ChunkStoreError.wrongLength) { try await store.put(lied, arriving: arriving(bytes), keeps: true) }
            await #expect(throws: ChunkStoreError.wrongLength) { try await store.put(wanted, arriving: arriving([]), keeps: true) }
            let long = bytes + random((4 << 20) + 1 - length)
            await #expect(throws: ChunkStoreError.tooLong) { try await store.put(wanted, arriving: arriving(long), keeps: true) }
            #expect(try await store.objects().count == 1, "nothing is left of what was not kept")
        }
    }

    @Test(arguments: [(4 << 20, 4 << 20), (4 << 20, (3 << 20) + 5), ((1 << 20) + 3, 4 << 20)]) func aDeltaMakesAChunk(_ from: Int, _ to: Int) async throws {
        let base = random(from), before = random(10)
        var chunk = Array((base + [UInt8](repeating: 0, count: max(0, to - from))).prefix(to)), body: [UInt8] = []
        for at in stride(from: (1 << 20) - 50, to: to - 100, by: (1 << 20) + 7) {      // over the borders of parts
            let piece = random(100)
            chunk.replaceSubrange(at..<at + 100, with: piece)
            body += ChunkDelta.header(at..<at + 100) + piece
        }
        let delta = ByteBuffer(bytes: body), pieces = try body.withUnsafeBytes { try ChunkDelta.pieces(of: $0, chunkLength: to) }
        try await withStore { store in
            let place = try await store.put([(reference(before), ByteBuffer(bytes: before)), (reference(base), ByteBuffer(bytes: base))])[1]
            let made = try await store.make(to, from: place, delta, pieces)
            #expect(made.hash == SHA256.hash(chunk))
            #expect(try await Array(store.read(made.location).readableBytesView) == chunk)
            #expect(try await store.objects().count == 2)
        }
    }
}
