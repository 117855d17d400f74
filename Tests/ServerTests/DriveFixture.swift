import Foundation
import NIOCore
import Shared
import Synchronization
import Testing
@testable import Server

/// Chunks in memory; objects can be lost and damaged on purpose.
final class MemoryChunkStore: ChunkStore {
    struct Object { var bytes: [UInt8], modified: Timestamp }
    let held = Mutex<[String: Object]>([:])
    let clock: TestClock

    init(clock: TestClock) { self.clock = clock }

    func put(_ chunks: [(reference: ChunkReference, bytes: ByteBuffer)]) async throws(ChunkStoreError) -> [ChunkLocation] {
        let name = UUID().uuidString.lowercased()
        var bytes: [UInt8] = [], locations: [ChunkLocation] = []
        for chunk in chunks {
            locations.append(ChunkLocation(object: name, offset: UInt64(bytes.count), length: chunk.reference.length))
            bytes += chunk.bytes.readableBytesView
        }
        let object = Object(bytes: bytes, modified: clock.now)
        held.withLock { $0[name] = object }
        return locations
    }

    func put<Body: AsyncSequence>(
        _ reference: ChunkReference, arriving body: Body, keeps: Bool
    ) async throws -> Arrived where Body.Element == ByteBuffer {
        var bytes: [UInt8] = []
        for try await piece in body { bytes += piece.readableBytesView }
        guard !bytes.isEmpty else { throw ChunkStoreError.wrongLength }
        let found = SHA256.hash(bytes)
        guard found != reference.hash || bytes.count == reference.length else { throw ChunkStoreError.wrongLength }
        guard keeps, found == reference.hash else { return (found, nil) }
        return (found, try await put([(reference, ByteBuffer(bytes: bytes))])[0])
    }

    func make(
        _ length: Int, from base: ChunkLocation, _ delta: ByteBuffer, _ pieces: [ChunkDelta.Piece]
    ) async throws(ChunkStoreError) -> Made {
        var bytes = Array(try await read(base).readableBytesView.prefix(length))
        bytes += [UInt8](repeating: 0, count: length - bytes.count)
        bytes.withUnsafeMutableBytes { chunk in delta.withUnsafeReadableBytes { ChunkDelta.lay(pieces, of: $0, over: chunk, at: 0) } }
        let reference = ChunkReference(hash: SHA256.hash(bytes), length: UInt32(length))
        return (reference.hash, try await put([(reference, ByteBuffer(bytes: bytes))])[0])
    }

    func read(_ location: ChunkLocation) async throws(ChunkStoreError) -> ByteBuffer {
        guard let object = held.withLock({ $0[location.object] }) else { throw .notFound }
        return ByteBuffer(bytes: object.bytes[Int(location.offset)..<Int(location.offset) + Int(location.length)])
    }

    func hash(_ location: ChunkLocation) async throws(ChunkStoreError) -> ChunkHash { SHA256.hash(Array(try await read(location).readableBytesView)) }

    func source(_ location: ChunkLocation) -> any ChunkSource { Source(store: self, location: location) }

    private final class Source: ChunkSource {
        let store: MemoryChunkStore
        let rest: Mutex<ChunkLocation>

        init(store: MemoryChunkStore, location: ChunkLocation) {
            self.store = store
            rest = Mutex(location)
        }

        func next(_ count: Int) async throws(ChunkStoreError) -> ByteBuffer {
            let piece = rest.withLock { rest in
                let piece = ChunkLocation(object: rest.object, offset: rest.offset, length: min(UInt32(count), rest.length))
                (rest.offset, rest.length) = (rest.offset + UInt64(piece.length), rest.length - piece.length)
                return piece
            }
            return try await store.read(piece)
        }
    }

    func remove(object: String) async throws(ChunkStoreError) { held.withLock { $0[object] = nil } }

    func objects() async throws(ChunkStoreError) -> [StoredObject] {
        held.withLock { $0.map { StoredObject(name: $0.key, byteCount: UInt64($0.value.bytes.count), modified: $0.value.modified) } }
    }
}

/// Stands still until it is told to go on.
final class TestClock: Sendable {
    private let time = Mutex((wall: Timestamp(nanoseconds: 1_800_000_000_000_000_000), up: Uptime(nanoseconds: 0)))
    var now: Timestamp { time.withLock(\.wall) }
    var uptime: Uptime { time.withLock(\.up) }

    func advance(seconds: Int64) {
        step(seconds: seconds)
        time.withLock { $0.up = $0.up.adding(seconds: seconds) }
    }

    /// Somebody sets the wall clock.
    func step(seconds: Int64) { time.withLock { $0.wall = $0.wall.adding(seconds: seconds) } }
}

/// A drive in a folder of its own, with a clock that the test moves. The folder goes when the test ends.
final class DriveFixture: Sendable {
    let drive: Drive
    let clock = TestClock()
    let chunks: MemoryChunkStore
    private let folder: String

    /// - Parameter root: where its folder is made.
    init(in root: String = NSTemporaryDirectory()) throws {
        folder = root + "/boxfs-drive-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        chunks = MemoryChunkStore(clock: clock)
        drive = Drive(store: try SQLiteStore(path: folder + "/database"), chunks: chunks, now: { [clock] in clock.now }, uptime: { [clock] in clock.uptime })
    }

    deinit { try? FileManager.default.removeItem(atPath: folder) }

    /// A password is hashed slowly on purpose: once is enough.
    private static let key = Scrypt.derive(password: Array("correct horse".utf8), salt: salt)!, salt = [UInt8](repeating: 7, count: 16)

    /// Adds an account with the password "correct horse".
    func account(_ name: String, quota: UInt64? = nil) async throws { try await drive.addAccount(name, salt: Self.salt, key: Self.key, quota: quota) }

    /// A device of the account, as if signed in: a real login is slow on purpose.
    func device(_ user: String, _ name: String) async throws -> TestDevice {
        let device = DeviceID.make()
        let (account, home) = try await drive.read { sql in
            let row = try #require(try sql.first("SELECT id, home FROM accounts WHERE name = $1", [.text(user)]))
            return (try row.id(0, AccountTag.self), try row.id(1, NamespaceTag.self))
        }
        let session = Session(account: account, accountName: user, device: device, deviceName: name, home: home)
        let root = try await drive.namespaceInformation(session, home).root
        return TestDevice(fixture: self, session: session, namespace: home, root: root, name: name)
    }

    func expectClean(_ location: SourceLocation = #_sourceLocation) async throws {
        #expect(try await drive.fsck(checkBytes: true).problems == [], sourceLocation: location)
    }
}

/// What a mount does, without the mount.
struct TestDevice {
    let fixture: DriveFixture
    let session: Session
    let namespace: NamespaceID
    let root: NodeID
    let name: String
    var drive: Drive { fixture.drive }

    func node(_ type: FileType, _ id: NodeID = .make(), target: String? = nil) -> Node {
        let time = fixture.clock.now
        return Node(
            id: id, sequence: 0, mode: type.rawValue | 0o644, uid: 1, gid: 1, accessed: time, modified: time, changed: time, created: time,
            links: 1, target: target)
    }

    /// Uploads what is needed and commits.
    @discardableResult
    func commit(_ operations: [Shared.Operation], chunks: [[UInt8]] = [], id: CommitID = .make()) async throws -> [OperationResult] {
        let upload = try await chunks.isEmpty ? nil : self.upload(chunks)
        return try await drive.commit(session, namespace, request(operations, upload, id)).results
    }

    func request(_ operations: [Shared.Operation], _ upload: UploadID? = nil, _ id: CommitID = .make()) -> CommitRequest {
        CommitRequest(
            commit: id, upload: upload, device: name,
            operations: operations.enumerated().map { NumberedOperation(id: Int64($0.offset), operation: $0.element) })
    }

    func upload(_ bodies: [[UInt8]], in other: NamespaceID? = nil) async throws -> UploadID {
        let references = bodies.map(Self.reference)
        let answer = try await drive.startUpload(session, other ?? namespace, UploadRequest(chunks: Data(Manifest.pack(references)), pages: []))
        let needed = Set(answer.neededChunks)
        let sent = zip(references, bodies).filter { needed.contains($0.0.hash) }.map { (reference: $0.0, bytes: ByteBuffer(bytes: $0.1)) }
        if !sent.isEmpty { try await drive.storeChunks(session, answer.upload, sent) }
        return answer.upload
    }

    static func reference(_ bytes: [UInt8]) -> ChunkReference { ChunkReference(hash: SHA256.hash(bytes), length: UInt32(bytes.count)) }

    /// A body that `ChunkDelta` takes.
    static func delta(_ pieces: [(at: Int, bytes: [UInt8])]) -> [UInt8] { pieces.flatMap { ChunkDelta.header($0.at..<$0.at + $0.bytes.count) + $0.bytes } }

    static func content(_ chunks: [[UInt8]]) -> Content { Content(Manifest(chunks: chunks.map(reference))) }

    func write(_ node: NodeID, base: VersionID?, _ text: String, as version: VersionID = .make()) -> Shared.Operation {
        .content(
            node: node, base: base, version: version, content: Self.content(text.isEmpty ? [] : [Array(text.utf8)]), modified: fixture.clock.now,
            changed: fixture.clock.now)
    }

    func rename(_ node: NodeID, _ name: String, to toName: String, from parent: NodeID? = nil, in toParent: NodeID? = nil, replaced: NodeID? = nil, version: VersionID? = nil) -> Shared.Operation {
        .rename(node: node, parent: parent ?? root, name: name, toParent: toParent ?? root, toName: toName, replaced: replaced, replacedVersion: version, time: fixture.clock.now)
    }

    func remove(_ node: NodeID, _ name: String, from parent: NodeID? = nil, version: VersionID? = nil) -> Shared.Operation {
        .remove(node: node, parent: parent ?? root, name: name, version: version, time: fixture.clock.now)
    }

    /// A file of one chunk in the root, committed.
    @discardableResult
    func makeFile(_ name: String, _ text: String) async throws -> (node: NodeID, version: VersionID) {
        let node = self.node(.regular), version = VersionID.make()
        let results = try await commit(
            [.create(node: node, parent: root, name: name), write(node.id, base: nil, text, as: version)], chunks: [Array(text.utf8)])
        #expect(results.map(\.outcome) == [.applied, .applied])
        return (node.id, version)
    }

    func makeDirectory(_ name: String, in parent: NodeID? = nil) async throws -> NodeID {
        let node = self.node(.directory)
        let results = try await commit([.create(node: node, parent: parent ?? root, name: name)])
        #expect(results[0].outcome == .applied)
        return node.id
    }

    /// Name → node of a directory, over as many pages as it takes.
    func list(_ directory: NodeID? = nil, limit: Int = 1000) async throws -> [String: Node] {
        var found: [String: Node] = [:], after: String?
        repeat {
            let page = try await drive.children(session, namespace, directory ?? root, after: after, limit: limit)
            let nodes = Dictionary(uniqueKeysWithValues: page.nodes.map { ($0.id, $0) })
            for entry in page.entries { found[entry.name] = nodes[entry.node] }
            after = page.next
        } while after != nil
        return found
    }

    /// What a file of one inline chunk or none holds.
    func text(_ node: Node?) async throws -> String? {
        guard let content = node?.content, let inline = content.inline else { return node.map { _ in "" } }
        var text = ""
        for reference in try Manifest.unpack(inline) {
            let location = try #require(try await drive.chunkLocations(session, namespace, [reference.hash])[reference.hash])
            text += String(decoding: try await drive.chunks.read(location).readableBytesView, as: UTF8.self)
        }
        return text
    }
}
