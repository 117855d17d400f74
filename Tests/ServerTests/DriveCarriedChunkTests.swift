import Foundation
import NIOCore
import Shared
import Testing
@testable import Server

/// Chunks that a commit brings itself.
@Suite struct DriveCarriedChunkTests {
    private let base = [UInt8](repeating: 7, count: 3000)

    private func delta(_ pieces: [(at: Int, bytes: [UInt8])]) -> Data { Data(TestDevice.delta(pieces)) }

    private func device(_ fixture: DriveFixture, _ name: String = "ann") async throws -> TestDevice {
        try await fixture.account(name)
        return try await fixture.device(name, "laptop")
    }

    private func request(_ device: TestDevice, _ name: String, _ content: [[UInt8]], _ carried: [CarriedChunk]) -> CommitRequest {
        let node = device.node(.regular), now = device.fixture.clock.now
        var request = device.request([
            .create(node: node, parent: device.root, name: name),
            .content(node: node.id, base: nil, version: .make(), content: TestDevice.content(content), modified: now, changed: now),
        ])
        request.chunks = carried
        return request
    }

    private func carried(_ bytes: [UInt8]) -> CarriedChunk { CarriedChunk(TestDevice.reference(bytes), data: Data(bytes)) }

    private func commit(_ device: TestDevice, _ request: CommitRequest) async throws -> [OperationResult.Outcome] {
        try await device.drive.commit(device.session, device.namespace, request).results.map(\.outcome)
    }

    /// What a refused commit says is missing; nil if it is refused for something else.
    private func missing(_ device: TestDevice, _ request: CommitRequest) async throws -> [ChunkHash]? {
        do {
            _ = try await commit(device, request)
            return []
        } catch DriveError.chunksMissing(let hashes) { return hashes } catch is DriveError { return nil }
    }

    private func bytes(_ device: TestDevice, _ chunk: [UInt8]) async throws -> [UInt8]? {
        let hash = SHA256.hash(chunk)
        guard let location = try await device.drive.chunkLocations(device.session, device.namespace, [hash])[hash] else { return nil }
        return Array(try await device.drive.chunks.read(location).readableBytesView)
    }

    @Test func theyAreThereWithTheCommit() async throws {
        let fixture = try DriveFixture(), ann = try await device(fixture), other = [UInt8](repeating: 1, count: 100)
        let asked = request(ann, "f", [base, other, base], [carried(base), carried(other), carried(base)])
        #expect(try await commit(ann, asked) == [.applied, .applied])
        for chunk in [base, other] { #expect(try await bytes(ann, chunk) == chunk) }
        #expect(fixture.chunks.held.withLock(\.count) == 1, "one object for all")
        // Repeated, it stores nothing again; and what is there is not stored twice.
        #expect(try await commit(ann, asked) == [.applied, .applied])
        #expect(try await commit(ann, request(ann, "g", [other], [carried(other)])) == [.applied, .applied])
        #expect(fixture.chunks.held.withLock(\.count) == 1)
        try await fixture.expectClean()
    }

    @Test(arguments: [(0, 2000), (0, 3000), (0, 4000), (1000, 2000), (2999, 5), (3000, 5), (3500, 7)]) func aDeltaIsLaidOverItsBase(_ start: Int, _ length: Int) async throws {
        let fixture = try DriveFixture(), ann = try await device(fixture)
        _ = try await commit(ann, request(ann, "base", [base], [carried(base)]))
        var chunk = Array((base.dropFirst(start) + [UInt8](repeating: 0, count: 4000)).prefix(length))
        chunk[0] = 1
        chunk[length - 1] = 9
        let made = CarriedChunk(TestDevice.reference(chunk), base: SHA256.hash(base), start: UInt32(start), data: delta([(0, [1]), (length - 1, [9])]))
        #expect(try await commit(ann, request(ann, "new", [chunk], [made])) == [.applied, .applied])
        #expect(try await bytes(ann, chunk) == chunk)
        try await fixture.expectClean()
    }

    @Test func whatMakesNoSenseIsRefusedAndLeavesNothing() async throws {
        let fixture = try DriveFixture(), ann = try await device(fixture), bob = try await device(fixture, "bob")
        _ = try await commit(bob, request(bob, "base", [base], [carried(base)]))
        var chunk = base
        chunk[5] = 1
        let reference = TestDevice.reference(chunk), hash = SHA256.hash(base)
        // Bob's base is not Ann's: knowing its hash gives nothing.
        let foreign = CarriedChunk(reference, base: hash, data: delta([(5, [1])]))
        #expect(try await missing(ann, request(ann, "f", [chunk], [foreign])) == [reference.hash])
        // Another chunk than the client's comes of it.
        let wrong = CarriedChunk(reference, base: hash, data: delta([(5, [2])]))
        #expect(try await missing(bob, request(bob, "f", [chunk], [wrong])) == [reference.hash])
        let damaged = CarriedChunk(reference, data: Data(base))
        #expect(try await missing(ann, request(ann, "f", [chunk], [damaged])) == nil)
        let short = CarriedChunk(reference, data: Data(chunk.dropLast()))
        #expect(try await missing(ann, request(ann, "f", [chunk], [short])) == nil)
        let nonsense = CarriedChunk(reference, base: hash, data: Data([1, 2, 3]))
        #expect(try await missing(bob, request(bob, "f", [chunk], [nonsense])) == nil)
        let long = [UInt8](repeating: 3, count: CarriedChunk.maximumByteCount)
        #expect(try await missing(ann, request(ann, "f", [long, chunk], [carried(long), carried(chunk)])) == nil)
        #expect(try await missing(ann, request(ann, "f", [chunk], [carried(base)])) == [reference.hash])
        #expect(try await ann.drive.children(ann.session, ann.namespace, ann.root, after: nil, limit: 10).entries.isEmpty)
        #expect(try await commit(ann, request(ann, "f", [long], [carried(long)])) == [.applied, .applied])
        _ = try await fixture.drive.collectGarbage(graceSeconds: 0)
        try await fixture.expectClean()
    }

    /// Two edits of a text that meet: the second's bytes are read before there is a version of them.
    @Test func textsThatMeetAreMerged() async throws {
        let fixture = try DriveFixture(), ann = try await device(fixture)
        let (node, version) = try await ann.makeFile("text", "one\ntwo\nthree\n")
        func edit(_ text: String) -> CommitRequest {
            var request = ann.request([ann.write(node, base: version, text)])
            request.chunks = [carried(Array(text.utf8))]
            return request
        }
        #expect(try await commit(ann, edit("ONE\ntwo\nthree\n")) == [.applied])
        #expect(try await commit(ann, edit("one\ntwo\nTHREE\n")) == [.merged])
        #expect(try await bytes(ann, Array("ONE\ntwo\nTHREE\n".utf8)) != nil)
        try await fixture.expectClean()
    }
}
