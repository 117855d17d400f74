import Foundation
import NIOCore
import Shared
import Testing
@testable import Server

/// Chunks that arrive as their difference from another.
@Suite struct DriveDeltaTests {
    private let base = [UInt8](repeating: 7, count: 3000)

    private func delta(_ pieces: [(at: Int, bytes: [UInt8])]) -> ByteBuffer {
        ByteBuffer(bytes: pieces.flatMap { ChunkDelta.header($0.at..<$0.at + $0.bytes.count) + $0.bytes })
    }

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

    private func announce(_ device: TestDevice, _ chunk: [UInt8]) async throws -> UploadID {
        try await device.drive.startUpload(
            device.session, device.namespace, UploadRequest(chunks: Data(Manifest.pack([TestDevice.reference(chunk)])), pages: [])).upload
    }

    @Test(arguments: [2000, 3000, 4000]) func aChunkIsMadeOfItsBaseAndPieces(_ length: Int) async throws {
        let fixture = try DriveFixture()
        let ann = try await device(fixture, "ann")
        var chunk = Array((base + [UInt8](repeating: 0, count: 1000)).prefix(length))
        chunk.replaceSubrange(10..<13, with: [1, 2, 3])
        chunk.replaceSubrange(length - 2..<length, with: [8, 9])
        let upload = try await announce(ann, chunk)
        let hash = SHA256.hash(chunk)
        try await ann.drive.storeDelta(ann.session, upload, hash, base: SHA256.hash(base), delta([(10, [1, 2, 3]), (length - 2, [8, 9])]))
        #expect(try await ann.drive.uploadState(ann.session, upload).neededChunks == [])
        let node = ann.node(.regular)
        let content = Shared.Operation.content(
            node: node.id, base: nil, version: .make(), content: TestDevice.content([chunk]), modified: fixture.clock.now, changed: fixture.clock.now)
        let results = try await ann.drive.commit(
            ann.session, ann.namespace, ann.request([.create(node: node, parent: ann.root, name: "new"), content], upload)).results
        #expect(results.map(\.outcome) == [.applied, .applied])
        let location = try #require(try await ann.drive.chunkLocations(ann.session, ann.namespace, [hash])[hash])
        #expect(Array(try await ann.drive.chunks.read(location).readableBytesView) == chunk)
        try await fixture.expectClean()
    }

    @Test func aWrongResultIsRefusedAndNothingStored() async throws {
        let fixture = try DriveFixture()
        let ann = try await device(fixture, "ann")
        let chunk = [UInt8](repeating: 9, count: 3000), upload = try await announce(ann, chunk), hash = SHA256.hash(chunk)
        let objects = fixture.chunks.held.withLock(\.count)
        await #expect(throws: DriveError.self) { try await ann.drive.storeDelta(ann.session, upload, hash, base: SHA256.hash(base), delta([(0, [9])])) }
        await #expect(throws: DriveError.self) { try await ann.drive.storeDelta(ann.session, upload, hash, base: SHA256.hash(base), delta([(2999, [9, 9])])) }
        await #expect(throws: DriveError.self) { try await ann.drive.storeDelta(ann.session, upload, hash, base: SHA256.hash(base), ByteBuffer(bytes: [1, 2])) }
        await #expect(throws: DriveError.self) {
            try await ann.drive.storeDelta(ann.session, upload, SHA256.hash([4]), base: SHA256.hash(base), delta([(0, [9])]))
        }
        #expect(try await ann.drive.uploadState(ann.session, upload).neededChunks == [hash])
        #expect(fixture.chunks.held.withLock(\.count) == objects)
    }

    /// Knowing the hash of somebody's chunk gives nothing, not even as a base.
    @Test func theBaseMustBeOnesOwn() async throws {
        let fixture = try DriveFixture()
        _ = try await device(fixture, "ann")
        try await fixture.account("bob")
        let bob = try await fixture.device("bob", "laptop")
        var chunk = base
        chunk[0] = 1
        let upload = try await announce(bob, chunk)
        await #expect {
            try await bob.drive.storeDelta(bob.session, upload, SHA256.hash(chunk), base: SHA256.hash(base), delta([(0, [1])]))
        } throws: { error in
            if case DriveError.notFound = error { true } else { false }
        }
        #expect(try await bob.drive.uploadState(bob.session, upload).neededChunks == [SHA256.hash(chunk)])
    }
}
