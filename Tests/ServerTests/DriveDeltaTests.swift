import Foundation
import NIOCore
import Shared
import Testing
@testable import Server

/// Chunks that arrive as their difference from another.
@Suite struct DriveDeltaTests {
    private let base = [UInt8](repeating: 7, count: 3000)

    private func delta(_ pieces: [(at: Int, bytes: [UInt8])]) -> ByteBuffer { ByteBuffer(bytes: TestDevice.delta(pieces)) }

    /// A device with a file of `base`.
    private func device(_ fixture: DriveFixture, _ name: String) async throws -> TestDevice {
        try await fixture.account(name)
        let device = try await fixture.device(name, "laptop")
        let node = device.node(.regular)
        let content = Shared.Operation.content(
            node: node.id, base: nil, version: .make(), content: TestDevice.content([base]), modified: fixture.clock.now, changed: fixture.clock.now)
        try await device.commit([.create(node: node, parent: device.root, name: "base"), content], chunks: [base])
        return device
    }

    private func send(
        _ device: TestDevice, _ upload: UploadID, from start: Int = 0, length: Int = 3000, _ pieces: [(at: Int, bytes: [UInt8])]
    ) async throws -> ChunkHash {
        try await device.drive.storeDelta(device.session, device.namespace, upload, base: SHA256.hash(base), from: start, length: length, delta(pieces))
    }

    private func commit(_ device: TestDevice, _ fixture: DriveFixture, _ chunk: [UInt8], _ upload: UploadID) async throws -> [OperationResult.Outcome] {
        let node = device.node(.regular)
        let content = Shared.Operation.content(
            node: node.id, base: nil, version: .make(), content: TestDevice.content([chunk]), modified: fixture.clock.now, changed: fixture.clock.now)
        return try await device.drive.commit(
            device.session, device.namespace, device.request([.create(node: node, parent: device.root, name: "new"), content], upload)).results.map(\.outcome)
    }

    @Test(arguments: [2000, 3000, 4000]) func aChunkIsMadeOfItsBaseAndPieces(_ length: Int) async throws {
        let fixture = try DriveFixture()
        let ann = try await device(fixture, "ann")
        var chunk = Array((base + [UInt8](repeating: 0, count: 1000)).prefix(length))
        chunk.replaceSubrange(10..<13, with: [1, 2, 3])
        chunk.replaceSubrange(length - 2..<length, with: [8, 9])
        let upload = UploadID.make(), hash = SHA256.hash(chunk)
        #expect(try await send(ann, upload, length: length, [(10, [1, 2, 3]), (length - 2, [8, 9])]) == hash)
        let announced = UploadRequest(chunks: Data(Manifest.pack([TestDevice.reference(chunk)])), pages: [], upload: upload)
        #expect(try await ann.drive.startUpload(ann.session, ann.namespace, announced).neededChunks == [])
        #expect(try await commit(ann, fixture, chunk, upload) == [.applied, .applied])
        let location = try #require(try await ann.drive.chunkLocations(ann.session, ann.namespace, [hash])[hash])
        #expect(Array(try await ann.drive.chunks.read(location).readableBytesView) == chunk)
        try await fixture.expectClean()
    }

    @Test(arguments: [(0, 10), (1000, 2000), (2000, 3000), (2999, 1), (3000, 5), (3500, 7)]) func aBaseMayBeginWithin(_ start: Int, _ length: Int) async throws {
        let fixture = try DriveFixture()
        let ann = try await device(fixture, "ann"), upload = UploadID.make()
        var chunk = Array((base.dropFirst(start) + [UInt8](repeating: 0, count: length)).prefix(length))
        chunk[length - 1] = 9
        #expect(try await send(ann, upload, from: start, length: length, [(length - 1, [9])]) == SHA256.hash(chunk))
        #expect(try await commit(ann, fixture, chunk, upload) == [.applied, .applied])
        try await fixture.expectClean()
    }

    /// A stretch of a chunk lies where the chunk does, and stays when the chunk goes.
    @Test func aStretchIsStoredNowhereAnew() async throws {
        let fixture = try DriveFixture()
        let ann = try await device(fixture, "ann"), objects = fixture.chunks.held.withLock(\.count), upload = UploadID.make()
        let stretch = Array(base[1000..<1500]), hash = SHA256.hash(stretch)
        for _ in 0..<2 { #expect(try await send(ann, upload, from: 1000, length: 500, []) == hash) }
        #expect(fixture.chunks.held.withLock(\.count) == objects)
        #expect(try await commit(ann, fixture, stretch, upload) == [.applied, .applied])
        let file = try #require(try await ann.drive.children(ann.session, ann.namespace, ann.root, after: nil, limit: 10).entries.first { $0.name == "base" }).node
        try await ann.commit([.remove(node: file, parent: ann.root, name: "base", version: nil, time: fixture.clock.now)])
        _ = try await ann.drive.purgeTrash(ann.session, ann.namespace, TrashRequest())
        fixture.clock.advance(seconds: 2 * Drive.uploadSeconds)
        let report = try await ann.drive.collectGarbage(graceSeconds: 3600)
        #expect(report.chunks == 1 && report.compacted == 1, "the base alone, of whose object little is left")
        #expect(try await ann.drive.chunkLocations(ann.session, ann.namespace, [SHA256.hash(base)]).isEmpty)
        let location = try #require(try await ann.drive.chunkLocations(ann.session, ann.namespace, [hash])[hash])
        #expect(Array(try await ann.drive.chunks.read(location).readableBytesView) == stretch)
        fixture.clock.advance(seconds: 7200)
        let next = try await ann.drive.collectGarbage(graceSeconds: 3600)
        #expect(next.objects == 1 && next.compacted == 0 && fixture.chunks.held.withLock(\.count) == 1)
        #expect(Array(try await ann.drive.chunks.read(location).readableBytesView) == stretch)
        try await fixture.expectClean()
    }

    /// What the store has is not stored again, and needs no announcement either.
    @Test func whatIsThereIsNotKeptTwice() async throws {
        let fixture = try DriveFixture()
        let ann = try await device(fixture, "ann")
        let objects = fixture.chunks.held.withLock(\.count), upload = UploadID.make()
        for _ in 0..<2 { #expect(try await send(ann, upload, [(5, [1])]) == SHA256.hash(base[..<5] + [1] + base[6...])) }
        #expect(fixture.chunks.held.withLock(\.count) == objects + 1)
        // Without a reference it is leased by the session alone, and another's needs it.
        #expect(try await commit(ann, fixture, base[..<5] + [1] + base[6...], upload) == [.applied, .applied])
        #expect(try await send(ann, .make(), []) == SHA256.hash(base))
        #expect(fixture.chunks.held.withLock(\.count) == objects + 1)
        fixture.clock.advance(seconds: 2 * Drive.uploadSeconds)
        _ = try await ann.drive.collectGarbage(graceSeconds: 3600)
        try await fixture.expectClean()
    }

    /// What the client did not expect the server to make is no chunk that it may name.
    @Test func anotherResultDoesNotServe() async throws {
        let fixture = try DriveFixture()
        let ann = try await device(fixture, "ann"), upload = UploadID.make()
        _ = try await send(ann, upload, [(0, [9])])
        await #expect {
            _ = try await commit(ann, fixture, [UInt8](repeating: 9, count: 3000), upload)
        } throws: { error in
            if case DriveError.chunksMissing = error { true } else { false }
        }
    }

    @Test func malformedOnesAreRefusedAndNothingIsStored() async throws {
        let fixture = try DriveFixture()
        let ann = try await device(fixture, "ann"), upload = UploadID.make(), hash = SHA256.hash(base)
        let objects = fixture.chunks.held.withLock(\.count)
        await #expect(throws: DriveError.self) { try await send(ann, upload, [(2999, [9, 9])]) }
        await #expect(throws: DriveError.self) { try await send(ann, upload, [(5, [9]), (5, [9])]) }
        for length in [-1, 0, Manifest.maximumChunkByteCount + 1, .max] {
            await #expect(throws: DriveError.self) { try await send(ann, upload, length: length, []) }
        }
        for start in [-1, Manifest.maximumChunkByteCount + 1, .max] {
            await #expect(throws: DriveError.self) { try await send(ann, upload, from: start, []) }
        }
        await #expect(throws: DriveError.self) {
            try await ann.drive.storeDelta(ann.session, ann.namespace, upload, base: hash, length: 3000, ByteBuffer(bytes: [1, 2]))
        }
        await #expect(throws: DriveError.self) {
            try await ann.drive.storeDelta(ann.session, ann.namespace, upload, base: SHA256.hash([4]), length: 3000, delta([(0, [9])]))
        }
        await #expect(throws: DriveError.self) { try await ann.drive.uploadState(ann.session, upload) }
        #expect(fixture.chunks.held.withLock(\.count) == objects)
    }

    /// Knowing the hash of somebody's chunk gives nothing, not even as a base; nor does the name of somebody's session.
    @Test func theBaseAndTheSessionMustBeOnesOwn() async throws {
        let fixture = try DriveFixture()
        let ann = try await device(fixture, "ann"), upload = UploadID.make()
        _ = try await send(ann, upload, [(0, [1])])
        try await fixture.account("bob")
        let bob = try await fixture.device("bob", "laptop")
        await #expect { _ = try await send(bob, .make(), [(0, [1])]) } throws: { if case DriveError.notFound = $0 { true } else { false } }
        await #expect {
            try await bob.drive.storeDelta(bob.session, ann.namespace, upload, base: SHA256.hash(base), length: 3000, delta([(0, [1])]))
        } throws: { if case DriveError.notFound = $0 { true } else { false } }
        let eve = try await device(fixture, "eve")
        await #expect { _ = try await send(eve, upload, [(0, [1])]) } throws: { if case DriveError.uploadExpired = $0 { true } else { false } }
    }
}
