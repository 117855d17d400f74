import ChunkCache
import Foundation
import GRDB
import Shared
import Synchronization
import Testing
import TestSupport
@testable import BoxFS

/// The file system unmounted, with room for four inodes in memory: what the kernel still knows must come back from its row as it
/// was, whatever happened meanwhile. `BOXFS_SEED` repeats a run.
@Suite struct ResidentInodesTests {
    struct File { var inode: InodeNumber, bytes: [UInt8], mode: UInt32, lookups: UInt64 }

    @Test func inodesLeaveMemoryAndComeBack() throws {
        var random = SeededGenerator()
        let folder = FileManager.default.temporaryDirectory.path + "/boxfs-resident-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let system = try Self.fileSystem(folder, residentCount: 4), tree = system.tree
        let caller = Caller(uid: 0, gid: 0, pid: 1, umask: 0)
        var files: [String: File] = [:]
        for step in 0..<4000 {
            let name = "f\(Int.random(in: 0..<60, using: &random))"
            switch (Int.random(in: 0..<100, using: &random), files[name]) {
            case (_, nil):
                let (attributes, open) = try system.create(.root, name, mode: 0o644, flags: O_RDWR, caller: caller)
                system.release(open.handle)
                files[name] = File(inode: attributes.inode, bytes: [], mode: 0o644, lookups: 1)
            case (0..<25, let file?):
                let attributes = try system.lookup(.root, name)
                #expect(attributes.inode == file.inode && attributes.size == file.bytes.count && attributes.mode & 0o7777 == file.mode, "step \(step)")
                files[name]!.lookups += 1
            case (25..<45, let file?):
                let bytes = (0..<Int.random(in: 1...3000, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
                let open = try system.open(file.inode, flags: O_RDWR | O_TRUNC, caller: caller)
                try bytes.withUnsafeBytes { try system.write(open.handle, offset: 0, $0) }
                try system.flush(open.handle)
                system.release(open.handle)
                files[name]!.bytes = bytes
            case (45..<65, let file?):
                let open = try system.open(file.inode, flags: O_RDONLY, caller: caller)
                #expect(try Self.bytes(system.read(open.handle, offset: 0, count: 1 << 16)) == file.bytes, "step \(step)")
                system.release(open.handle)
            case (65..<75, let file?):
                let mode = UInt32.random(in: 0...0o777, using: &random)
                _ = try system.setattr(file.inode, AttributeChanges(mode: mode), handle: nil, caller: caller)
                files[name]!.mode = mode
            case (75..<82, let file?):
                let size = Int.random(in: 0...4000, using: &random)
                _ = try system.setattr(file.inode, AttributeChanges(size: UInt64(size)), handle: nil, caller: caller)
                files[name]!.bytes = Array((file.bytes + [UInt8](repeating: 0, count: 4000)).prefix(size))
            case (82..<92, let file?):
                let count = UInt64.random(in: 1...max(1, file.lookups), using: &random)
                system.forget(file.inode, count: count)
                files[name]!.lookups -= min(count, file.lookups)
            case (_, let file?):
                try system.unlink(.root, name, caller: caller)
                if file.lookups > 0 { #expect(try system.getattr(file.inode).links == 0) }
                system.forget(file.inode, count: file.lookups)
                files[name] = nil
            }
            if step % 7 == 0 { try tree.lock.withLock { () throws(FileSystemError) in try tree.commit(); tree.trim(); tree.trim() } }
            if step % 7 == 0 {
                let dirtyData = tree.inodes.values.count { $0.file.map { !$0.isIdle } ?? false }
                #expect(tree.inodes.count <= 16 + dirtyData, "step \(step)")
                #expect(tree.lookups.count == files.values.count { $0.lookups > 0 }, "step \(step)")
            }
        }
    }

    /// The kernel knows the names for ever and asks for nothing but the files themselves.
    @Test func whatIsOnlyReadLeavesMemoryToo() throws {
        let folder = FileManager.default.temporaryDirectory.path + "/boxfs-resident-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let system = try Self.fileSystem(folder, residentCount: 4), tree = system.tree, caller = Caller(uid: 0, gid: 0, pid: 1, umask: 0)
        let files = try (0..<100).map { number in
            let (attributes, open) = try system.create(.root, "f\(number)", mode: 0o644, flags: O_RDWR, caller: caller)
            try [1, 2, 3].withUnsafeBytes { try system.write(open.handle, offset: 0, $0) }
            try system.flush(open.handle)
            system.release(open.handle)
            system.release(try system.open(attributes.inode, flags: O_RDONLY, caller: caller).handle)       // its pages are the kernel's from here on
            return attributes.inode
        }
        try tree.lock.withLock { () throws(FileSystemError) in try tree.commit(); tree.trim(); tree.trim() }
        #expect(tree.inodes.count <= 20)
        func use(_ what: String, _ body: (InodeNumber) throws -> Void) throws {
            for file in files { try body(file) }
            #expect(tree.inodes.count <= 20, "after \(what)")
        }
        try use("reading") { file in
            let open = try system.open(file, flags: O_RDONLY, caller: caller)
            _ = try Self.bytes(system.read(open.handle, offset: 0, count: 8))
            system.release(open.handle)
        }
        try use("stat") { _ = try system.getattr($0) }
        try use("listxattr") { _ = try system.listxattr($0) }
        try use("getxattr") { _ = try? system.getxattr($0, "user.boxfs.state") }
    }

    /// A mount's file system on a fresh replica with nothing behind it.
    static func fileSystem(_ folder: String, residentCount: Int, fetcher: NothingElsewhere = NothingElsewhere()) throws -> MountedFileSystem {
        try FileManager.default.createDirectory(atPath: folder + "/dirty", withIntermediateDirectories: true)
        let tree = try Tree(
            database: ReplicaDatabase(path: folder + "/replica.db"), segments: SegmentStore(directory: folder + "/dirty", firstFile: 1),
            cache: ChunkCache(directory: folder + "/cache", limitBytes: 1 << 30), residentCount: residentCount)
        let now = Timestamp.now()
        let root = Node(
            id: .make(), sequence: 0, mode: 0o040755, uid: 0, gid: 0, device: 0, accessed: now, modified: now, changed: now, created: now,
            links: 1, target: nil, xattrs: [:])
        try tree.lock.withLock { () throws(FileSystemError) in
            try tree.makeRoot(root, namespace: .make(), cursor: 0)
            let made = try tree.inode(.root)
            made.hydration = .complete
            tree.markDirty(made)
        }
        return MountedFileSystem(tree: tree, options: FileSystemOptions(uid: 0, gid: 0), fetcher: fetcher)
    }

    static func bytes(_ pieces: [ReadPiece]) -> [UInt8] {
        pieces.flatMap { piece -> [UInt8] in
            switch piece {
            case .zeros(let count): return [UInt8](repeating: 0, count: count)
            case .bytes(let bytes): return Array(bytes)
            case .file(let descriptor, let offset, let count):
                var bytes = [UInt8](repeating: 0, count: count)
                return pread(descriptor.rawValue, &bytes, count, off_t(offset)) == count ? bytes : []
            }
        }
    }
}

/// A server that has nothing and is never asked.
final class NothingElsewhere: MissingFetcher {
    final class Token: FetchToken { func cancel() {} }
    func fetch(_ missing: Missing, since start: UInt64, done: @escaping @Sendable (FileSystemError?) -> Void) -> any FetchToken {
        done(.io)
        return Token()
    }
    func prefetch(_ chunks: [ChunkReference], for inode: InodeNumber) {}
    func attributesChanged(_ inode: InodeNumber) {}
    let movedNames = Mutex<[String]>([])
    func moved(_ places: [(InodeNumber, String)]) { movedNames.withLock { $0 += places.map(\.1) } }
    func versions(of file: NodeID) -> [VersionInformation]? { nil }
    func removed(from folder: NodeID) -> [TrashItem]? { nil }
    func takeContent(of version: VersionID) -> [ChunkReference]? { nil }
    let givenUp = Mutex(0)
    func changeGivenUp() { givenUp.withLock { $0 += 1 } }
    var acknowledgedLog: Int64 { 0 }
    func isUploaded(_ inode: InodeNumber) -> Bool { false }
    var quota: (limit: UInt64?, used: UInt64) { (nil, 0) }
}
