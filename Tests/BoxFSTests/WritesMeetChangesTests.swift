import ChunkCache
import Foundation
import Glibc
import GRDB
import Shared
import Synchronization
import Testing
import TestSupport
@testable import BoxFS

/// A program writes a file at the moment at which a change of it comes from elsewhere: what was written stays until the server
/// answers it. `BOXFS_SEED` repeats a run's pauses.
@Suite struct WritesMeetChangesTests {
    let folder: String
    let system: MountedFileSystem
    let fetcher = NothingElsewhere()
    let home: Namespace
    let node: Node
    let inode: Inode
    let handle: HandleID
    static let chunkByteCount = Manifest.maximumChunkByteCount
    let caller = Caller(uid: 0, gid: 0, pid: 1, umask: 0)

    init() throws {
        folder = FileManager.default.temporaryDirectory.path + "/boxfs-meeting-\(UUID().uuidString)"
        system = try ResidentInodesTests.fileSystem(folder, residentCount: 100, fetcher: fetcher)
        let tree = system.tree, now = Timestamp.now()
        home = tree.namespaces[Namespace.home]!
        node = Node(
            id: .make(), sequence: 0, mode: 0o100644, uid: 0, gid: 0, accessed: now, modified: now, changed: now, created: now, links: 1)
        let root = try tree.inode(.root).id
        try Self.apply(node, [Entry(parent: root, name: "file", node: node.id, sequence: 1)], to: tree, home)
        inode = try #require(try tree.inode(of: node.id))
        handle = try system.open(inode.number, flags: O_RDWR, caller: caller).handle
    }

    private static func apply(_ node: Node, _ entries: [Entry] = [], to tree: Tree, _ home: Namespace) throws {
        try tree.lock.withLock { () throws(FileSystemError) in
            var applier = FeedApplier(tree: tree, namespace: home)
            try applier.apply(entries: entries, nodes: [node])
        }
    }

    /// A version from elsewhere: one full chunk, which is here, so that the first write to it copies it.
    private func version(_ sequence: Int64, _ content: Content) -> Node {
        var changed = node
        (changed.sequence, changed.version, changed.content) = (sequence, .make(), content)
        return changed
    }

    private func chunk(_ byte: UInt8) throws -> ChunkReference {
        let bytes = [UInt8](repeating: byte, count: Self.chunkByteCount)
        let reference = ChunkReference(hash: SHA256.hash(bytes), length: UInt32(bytes.count))
        #expect(try bytes.withUnsafeBytes { try system.tree.cache.insert(reference, $0) })
        return reference
    }

    private func acknowledge() throws {
        try system.flush(handle)
        try system.tree.lock.withLock { () throws(FileSystemError) in
            try system.tree.change { try $0.execute(sql: "DELETE FROM log") }
            var applier = FeedApplier(tree: system.tree, namespace: home)
            try applier.applyDeferred()
            try system.tree.commit()
        }
    }

    @Test(arguments: [false, true]) func aWriteIsNotOvertaken(byPages: Bool) throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var random = SeededGenerator()
        let theirs = try [chunk(1), chunk(2)]
        var overtaken = 0
        for round in 0..<60 {
            let base = version(Int64(10 * round + 10), Content(Manifest(chunks: [theirs[0]])))
            try Self.apply(base, to: system.tree, home)
            let next = byPages ? Content(size: 4, inline: nil, pages: [theirs[1].hash]) : Content(Manifest(chunks: [theirs[1]]))
            let change = version(Int64(10 * round + 11), next)
            let pause = UInt32.random(in: 0..<3000, using: &random)
            let (system, handle) = (system, handle), written = Mutex(false), done = DispatchSemaphore(value: 0)
            Thread.detachNewThread {
                let mark: [UInt8] = [0xAB]
                let isWritten = (try? mark.withUnsafeBytes { try system.write(handle, offset: Int64(round), $0) }) != nil
                written.withLock { $0 = isWritten }
                done.signal()
            }
            usleep(pause)
            try Self.apply(change, to: system.tree, home)
            done.wait()
            if written.withLock({ $0 }) {
                let read = try? ResidentInodesTests.bytes(system.read(handle, offset: Int64(round), count: 1))
                if read != [0xAB] || inode.size != UInt64(Self.chunkByteCount) { overtaken += 1 }
            } else {
                #expect(byPages, "only a manifest that is not here refuses a write")
            }
            #expect(inode.changesUnderWay == 0)
            try acknowledge()
            #expect(inode.version == change.version, "what waited is applied after the answer")
        }
        #expect(overtaken == 0, "of 60")
    }

    /// A write that does not happen holds nothing up.
    @Test func aFailedWriteIsNotPending() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let absent = ChunkReference(hash: SHA256.hash([1, 2, 3]), length: 3)
        try Self.apply(version(10, Content(Manifest(chunks: [absent]))), to: system.tree, home)
        let mark: [UInt8] = [1]
        #expect(throws: FileSystemError.missing(.chunk(absent.hash, length: 3, inode: inode.number))) {
            try mark.withUnsafeBytes { try system.write(handle, offset: 1, $0) }
        }
        #expect(fetcher.givenUp.withLock { $0 } == 1)
        let isPending = try system.tree.lock.withLock { () throws(FileSystemError) in try system.tree.isPending(inode) }
        #expect(!isPending)
    }

    /// Removed elsewhere, written here, and back by an edit elsewhere before the file is closed: what was written stays, and meets the edit on the server.
    @Test func whatIsBeingWrittenStaysWhenItsFileComesBack() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let tree = system.tree, root = try tree.lock.withLock { () throws(FileSystemError) in try tree.inode(.root).id }
        try remove(at: 10, from: root)
        try [0xAB as UInt8].withUnsafeBytes { try system.write(handle, offset: 0, $0) }
        let theirs = try version(11, Content(Manifest(chunks: [chunk(1)])))
        try Self.apply(theirs, [Entry(parent: root, name: "file", node: node.id, sequence: 11)], to: tree, home)
        #expect(inode.links == 1)
        try system.flush(handle)
        #expect(inode.size == 1)
        #expect(try ResidentInodesTests.bytes(system.read(handle, offset: 0, count: 1)) == [0xAB])
        try acknowledge()
        #expect(inode.version == theirs.version, "what waited is applied after the answer")
    }

    /// A file that came back is a file like any other: removed here, what an open descriptor still writes does not bring it back.
    @Test func whatIsRemovedHereStaysAwayThoughItWasOnceRemovedElsewhere() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let tree = system.tree, root = try tree.lock.withLock { () throws(FileSystemError) in try tree.inode(.root).id }
        try remove(at: 10, from: root)
        try [0xAB as UInt8].withUnsafeBytes { try system.write(handle, offset: 0, $0) }
        try Self.apply(version(11, .empty), [Entry(parent: root, name: "file", node: node.id, sequence: 11)], to: tree, home)
        try system.unlink(.root, "file", caller: caller)
        try [0xAB as UInt8].withUnsafeBytes { try system.write(handle, offset: 0, $0) }
        try system.flush(handle)
        #expect(inode.links == 0)
    }

    /// What is unlinked belongs to those who hold it open: when an edit elsewhere brings the file back, it is another one.
    @Test(arguments: [false, true]) func whatIsUnlinkedStaysWithItsHolderWhenTheFileComesBack(isAnswered: Bool) throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let tree = system.tree, root = try tree.lock.withLock { () throws(FileSystemError) in try tree.inode(.root).id }, mine: [UInt8] = [0xAB]
        try system.unlink(.root, "file", caller: caller)
        try mine.withUnsafeBytes { try system.write(handle, offset: 0, $0) }
        if isAnswered { try acknowledge() }
        let theirs = try version(11, Content(Manifest(chunks: [chunk(1)])))
        try Self.apply(theirs, [Entry(parent: root, name: "other", node: node.id, sequence: 11)], to: tree, home)
        let back = try system.lookup(.root, "other")
        #expect(back.inode != inode.number && back.size == UInt64(Self.chunkByteCount))
        try mine.withUnsafeBytes { try system.write(handle, offset: 1, $0) }
        try system.flush(handle)
        #expect(try ResidentInodesTests.bytes(system.read(handle, offset: 0, count: 9)) == [0xAB, 0xAB])
        #expect(inode.links == 0)
        let open = try system.open(back.inode, flags: O_RDWR, caller: caller).handle
        #expect(try ResidentInodesTests.bytes(system.read(open, offset: 0, count: 1)) == [1])
        try mine.withUnsafeBytes { try system.write(open, offset: 0, $0) }
        try system.flush(open)
        let batch = try #require(try tree.lock.withLock { try Batch.cut(tree, Namespace.home) })
        defer { tree.lock.withLock { batch.release(tree) } }
        #expect(batch.files.map(\.inode.number) == [back.inode])
        #expect(batch.files.map(\.node) == [node.id])
    }

    /// The kernel knows another file by the name that is renamed: it has not heard yet that the name leads elsewhere.
    @Test func whatTheKernelMovesWithoutKnowingBetterIsLookedUpAgain() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let tree = system.tree
        try system.rename(.root, "file", .root, "other", flags: 0, caller: caller)
        #expect(fetcher.movedNames.withLock { $0 } == [])
        let events = tree.lock.withLock { tree.willTell([.entry("other", in: .root)]) }
        try system.rename(.root, "other", .root, "third", flags: 0, caller: caller)
        #expect(fetcher.movedNames.withLock { $0 } == ["other", "third"])
        tree.lock.withLock { tree.told(events) }
        try system.rename(.root, "third", .root, "fourth", flags: 0, caller: caller)
        #expect(fetcher.movedNames.withLock { $0 } == ["other", "third"])
    }

    private func remove(at sequence: Int64, from parent: NodeID) throws {
        var gone = node
        (gone.sequence, gone.links, gone.deleted) = (sequence, 0, true)
        try Self.apply(gone, [Entry(parent: parent, name: "file", node: node.id, sequence: sequence, deleted: true)], to: system.tree, home)
    }
}
