import Foundation
import NIOCore
import Shared
import Testing
@testable import Server

/// Upload sessions: what an interruption leaves goes on, and what was committed leaves nothing.
@Suite struct DriveUploadTests {
    let fixture: DriveFixture
    var drive: Drive { fixture.drive }

    init() throws { fixture = try DriveFixture() }

    private func ada() async throws -> TestDevice {
        try await fixture.account("ada")
        return try await fixture.device("ada", "desk")
    }

    private func rows() async throws -> [Int64] {
        try await drive.read { sql in
            try ["uploads", "upload_chunks", "upload_pages"].map { try sql.first("SELECT count(*) FROM \($0)", [])?.int(0) ?? -1 }
        }
    }

    private func announce(_ device: TestDevice, _ bodies: [[UInt8]], pages: [ChunkHash] = [], as upload: UploadID?) async throws -> UploadAnswer {
        try await drive.startUpload(
            device.session, device.namespace, UploadRequest(chunks: Data(Manifest.pack(bodies.map(TestDevice.reference))), pages: pages, upload: upload))
    }

    private func store(_ device: TestDevice, _ bodies: [[UInt8]], in upload: UploadID) async throws {
        try await drive.storeChunks(device.session, upload, bodies.map { (reference: TestDevice.reference($0), bytes: ByteBuffer(bytes: $0)) })
    }

    @Test func aCommitEndsItsUpload() async throws {
        let ada = try await ada()
        let text = Array("text".utf8), page = SHA256.hash(Manifest.pack([TestDevice.reference(text)]))
        let answer = try await announce(ada, [text], pages: [page], as: nil)
        try await store(ada, [text], in: answer.upload)
        #expect(try await rows() == [1, 1, 1])
        let node = ada.node(.regular)
        let request = ada.request([.create(node: node, parent: ada.root, name: "file"), ada.write(node.id, base: nil, "text")], answer.upload)
        let first = try await drive.commit(ada.session, ada.namespace, request)
        #expect(try await rows() == [0, 0, 0])
        // The answer was lost: the client announces all again, and repeats the commit.
        #expect(try await announce(ada, [text], as: answer.upload).neededChunks == [])
        #expect(try await drive.commit(ada.session, ada.namespace, request) == first)
        #expect(try await rows() == [0, 0, 0])
        try await fixture.expectClean()
    }

    @Test func anUploadGoesOnUnderItsName() async throws {
        let ada = try await ada()
        let bodies = (0..<4).map { [UInt8](repeating: $0, count: 100) }, name = UploadID.make()
        #expect(try await announce(ada, bodies, as: name).upload == name)
        try await store(ada, Array(bodies[..<2]), in: name)
        // Interrupted here. What arrived is not wanted again, by this session.
        let answer = try await announce(ada, bodies, as: name)
        #expect(answer.upload == name && answer.neededChunks == bodies[2...].map { SHA256.hash($0) })
        #expect(try await announce(ada, bodies, as: nil).neededChunks.count == 4, "knowing a hash gives nothing")
        #expect(try await rows()[0] == 2)
        // It lives on by being used.
        fixture.clock.advance(seconds: Drive.uploadSeconds - 60)
        _ = try await announce(ada, bodies, as: name)
        fixture.clock.advance(seconds: Drive.uploadSeconds - 60)
        _ = try await drive.collectGarbage(graceSeconds: 3600)
        try await store(ada, Array(bodies[2...]), in: name)
        let node = ada.node(.regular)
        let content = Shared.Operation.content(
            node: node.id, base: nil, version: .make(), content: TestDevice.content(bodies), modified: fixture.clock.now, changed: fixture.clock.now)
        let answers = try await drive.commit(
            ada.session, ada.namespace, ada.request([.create(node: node, parent: ada.root, name: "file"), content], name)).results
        #expect(answers.map(\.outcome) == [.applied, .applied])
        try await fixture.expectClean()
    }

    /// A chunk that was held when it was announced, and is gone now, is wanted.
    @Test func whatIsGoneMeanwhileIsWanted() async throws {
        let ada = try await ada()
        let file = try await ada.makeFile("old", "text"), text = Array("text".utf8), name = UploadID.make()
        #expect(try await announce(ada, [text], as: name).neededChunks == [])
        try await ada.commit([ada.remove(file.node, "old", version: file.version)])
        fixture.clock.advance(seconds: 31 * 86_400)
        _ = try await drive.thin()
        #expect(try await announce(ada, [text], as: name).neededChunks == [SHA256.hash(text)])
        #expect(try await drive.uploadState(ada.session, name).neededChunks == [SHA256.hash(text)])
        try await store(ada, [text], in: name)
        #expect(try await announce(ada, [text], as: name).neededChunks == [])
    }

    /// A server that was put back to a backup takes nothing from who has seen more of it; a commit that it answered is answered again.
    @Test func whoHasSeenMoreIsRefused() async throws {
        let ada = try await ada()
        var request = ada.request([.create(node: ada.node(.directory), parent: ada.root, name: "folder")])
        request.seen = 0
        let answer = try await drive.commit(ada.session, ada.namespace, request)
        request.seen = answer.sequence + 1
        #expect(try await drive.commit(ada.session, ada.namespace, request) == answer)
        request.commit = .make()
        await #expect { try await drive.commit(ada.session, ada.namespace, request) } throws: { if case DriveError.lostChanges = $0 { true } else { false } }
        request.seen = answer.sequence
        _ = try await drive.commit(ada.session, ada.namespace, request)
    }

    @Test func nobodyEntersAnothersUpload() async throws {
        let ada = try await ada(), name = UploadID.make()
        try await fixture.account("bob")
        let bob = try await fixture.device("bob", "desk")
        _ = try await announce(ada, [[1]], as: name)
        await #expect { _ = try await announce(bob, [[1]], as: name) } throws: { if case DriveError.uploadExpired = $0 { true } else { false } }
        // Nor ends it by naming it.
        let commit = CommitID.make()
        try await bob.commit([], id: commit)
        _ = try await drive.commit(bob.session, bob.namespace, bob.request([], name, commit))
        #expect(try await rows()[0] == 1)
    }
}
