import Foundation
import Glibc
import GRDB
import Shared
import Testing
import TestSupport
@testable import BoxFS

/// Few bytes lie in the row of their segment and not in a file of their own.
@Suite struct HeldBytesTests {
    private let folder = FileManager.default.temporaryDirectory.path + "/boxfs-held-\(UUID().uuidString)"
    private let namespace = NamespaceID.make()
    private let caller = Caller(uid: 0, gid: 0, pid: 1, umask: 0)
    private let most = Segment.maximumHeldBytes

    private func mount(isNew: Bool = false) throws -> MountedFileSystem { try LocalReplica.open(folder, namespace, isNew: isNew) }

    private func write(_ bytes: [UInt8], at offset: Int, to handle: HandleID, _ system: MountedFileSystem) throws {
        try bytes.withUnsafeBytes { try system.write(handle, offset: Int64(offset), $0) }
    }

    private func content(_ name: String, _ system: MountedFileSystem) throws -> [UInt8] {
        let inode = try system.lookup(.root, name), open = try system.open(inode.inode, flags: O_RDONLY, caller: caller)
        defer { system.release(open.handle) }
        return ResidentInodesTests.bytes(try system.read(open.handle, offset: 0, count: 1 << 20))
    }

    private func segmentFiles() throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: folder + "/dirty").count {
            (try FileManager.default.attributesOfItem(atPath: "\(folder)/dirty/\($0)")[.size] as? Int ?? 0) > 0
        }
    }

    @Test func aSmallFileNeedsNoneAndIsThereAfterTheProcessDied() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var system: MountedFileSystem? = try mount(isNew: true)
        let bytes = (0..<most).map { UInt8(truncatingIfNeeded: $0 &* 5 | 1) }
        let (_, file) = try system!.create(.root, "f", mode: 0o644, flags: O_RDWR, caller: caller)
        try write(Array(bytes.prefix(100)), at: 0, to: file.handle, system!)
        try write(Array(bytes.dropFirst(100)), at: 100, to: file.handle, system!)
        try system!.flush(file.handle)
        #expect(try segmentFiles() == 0)
        try LocalReplica.close(&system, commits: false)
        system = try mount()
        #expect(try content("f", system!) == bytes)
        // One byte more.
        let again = try system!.open(try system!.lookup(.root, "f").inode, flags: O_RDWR, caller: caller)
        try write([7], at: most, to: again.handle, system!)
        try system!.flush(again.handle)
        system!.release(again.handle)
        #expect(try segmentFiles() == 1)
        try LocalReplica.close(&system, commits: false)
        system = try mount()
        #expect(try content("f", system!) == bytes + [7])
        try LocalReplica.close(&system)
    }

    /// Writes, cuts, holes, commits that freeze, and processes that die, against an array of bytes.
    @Test func itHoldsWhatWasWritten() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var random = SeededGenerator()
        var system: MountedFileSystem? = try mount(isNew: true), right: [UInt8] = []
        var handle = try system!.create(.root, "f", mode: 0o644, flags: O_RDWR, caller: caller).1.handle
        for step in 0..<600 {
            let inode = try system!.lookup(.root, "f").inode
            switch Int.random(in: 0..<20, using: &random) {
            case 0..<9:
                let at = Int.random(in: 0...min(right.count + 500, most + 3000), using: &random)
                let bytes = (0..<Int.random(in: 1...3000, using: &random)).map { _ in UInt8.random(in: 1...255, using: &random) }
                try write(bytes, at: at, to: handle, system!)
                if right.count < at + bytes.count { right += [UInt8](repeating: 0, count: at + bytes.count - right.count) }
                right.replaceSubrange(at..<at + bytes.count, with: bytes)
            case 9..<12:
                let size = [0, right.count / 2, right.count + 700, Int.random(in: 0...most, using: &random)].randomElement(using: &random)!
                _ = try system!.setattr(inode, AttributeChanges(size: UInt64(size)), handle: handle, caller: caller)
                right = right.count > size ? Array(right.prefix(size)) : right + [UInt8](repeating: 0, count: size - right.count)
            case 12:
                let end = right.count, start = Int.random(in: 0...end, using: &random), stop = min(end, start + 2000)
                guard start < stop else { continue }
                try system!.fallocate(handle, mode: 3, offset: Int64(start), length: Int64(stop - start))
                for index in start..<stop { right[index] = 0 }
            case 13, 14:        // a commit is cut, and given up
                try system!.flush(handle)
                try cut(system!.tree, takesBack: Bool.random(using: &random))
            case 15: try system!.fsync(handle, dataOnly: Bool.random(using: &random))
            case 16, 17: try commit(system!.tree)
            default:
                try system!.flush(handle)
                try LocalReplica.close(&system, commits: false)
                system = try mount()
                handle = try system!.open(try system!.lookup(.root, "f").inode, flags: O_RDWR, caller: caller).handle
            }
            let found = ResidentInodesTests.bytes(try system!.read(handle, offset: 0, count: 1 << 20))
            try #require(found == right, "step \(step): \(found.count) bytes, \(right.count) written")
        }
        try LocalReplica.close(&system)
    }

    /// Nobody who waits for the tree's end may hold it: so these are functions.
    private func cut(_ tree: Tree, takesBack: Bool) throws {
        try tree.lock.withLock { () throws(FileSystemError) in
            guard let batch = try Batch.cut(tree, Namespace.home) else { return }
            if takesBack { batch.takeBack(tree) }
            batch.release(tree)
        }
    }

    private func commit(_ tree: Tree) throws { try tree.lock.withLock { () throws(FileSystemError) in try tree.commit() } }

    /// Many small files that are open and were written to do not make one transaction longer than the space that is set aside for it.
    @Test func aTransactionHasFewOfThem() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var system: MountedFileSystem? = try mount(isNew: true)
        let bytes = [UInt8](repeating: 3, count: most)
        for number in 0..<200 {
            let file = try system!.create(.root, "f\(number)", mode: 0o644, flags: O_RDWR, caller: caller).1
            try write(bytes, at: 0, to: file.handle, system!)
            #expect(system!.tree.dirtyContents.count < Tree.maximumDirtyContents)
        }
        try LocalReplica.close(&system)
    }

    /// The write that ends a transaction, as that holds enough, takes set-user-ID from the file none the less.
    @Test func aWriteThatEndsTheTransactionTakesPrivilegesAway() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let namespace = NamespaceID.make()
        var system: MountedFileSystem? = try LocalReplica.open(folder, namespace, isNew: true, uid: 1000)
        let (attributes, privileged) = try system!.create(.root, "s", mode: 0o4755, flags: O_RDWR, caller: caller)
        #expect(attributes.mode & 0o7777 == 0o4755)
        try system!.flush(privileged.handle)
        for number in 1..<Tree.maximumDirtyContents {
            try write([1], at: 0, to: try system!.create(.root, "f\(number)", mode: 0o644, flags: O_RDWR, caller: caller).1.handle, system!)
        }
        try write([2], at: 0, to: privileged.handle, system!)
        #expect(system!.tree.dirtyContents.isEmpty)
        try LocalReplica.close(&system)
        system = try LocalReplica.open(folder, namespace, isNew: false, uid: 1000)
        #expect(try system!.lookup(.root, "s").mode & 0o7777 == 0o755)
        try LocalReplica.close(&system)
    }

    /// Format 4: each segment had a file.
    @Test func aReplicaOfTheFormatBeforeIsRead() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var system: MountedFileSystem? = try mount(isNew: true)
        let bytes = [UInt8](repeating: 9, count: 3 * most)
        let file = try system!.create(.root, "f", mode: 0o644, flags: O_RDWR, caller: caller).1
        try write(bytes, at: 0, to: file.handle, system!)
        try system!.flush(file.handle)
        system!.release(file.handle)
        try LocalReplica.close(&system)
        try DatabaseQueue(path: folder + "/replica.db").writeWithoutTransaction { try $0.execute(sql: "\(LocalReplica.undoFormat6); ALTER TABLE segments DROP COLUMN bytes; PRAGMA user_version = 4") }
        system = try mount()
        #expect(try content("f", system!) == bytes)
        try LocalReplica.close(&system)
    }
}
