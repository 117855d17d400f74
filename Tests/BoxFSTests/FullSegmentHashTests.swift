import Foundation
import Glibc
import Shared
import Testing
import TestSupport
@testable import BoxFS

/// The hash of a full segment, made beside the writer, is the hash of what the segment holds or is not there.
@Suite final class FullSegmentHashTests {
    private let folder = FileManager.default.temporaryDirectory.path + "/boxfs-hash-\(UUID().uuidString)"
    private let caller = Caller(uid: 0, gid: 0, pid: 1, umask: 0)
    private var random = SeededGenerator()
    private var system: MountedFileSystem?
    private let inode: InodeNumber, handle: HandleID
    private var bytes: [UInt8] = []

    init() throws {
        let system = try LocalReplica.open(folder, .make(), isNew: true)
        let (attributes, open) = try system.create(.root, "f", mode: 0o644, flags: O_RDWR, caller: caller)
        (self.system, inode, handle) = (system, attributes.inode, open.handle)
    }

    deinit { try? FileManager.default.removeItem(atPath: folder) }

    private func write(_ piece: [UInt8], at offset: Int) throws {
        try piece.withUnsafeBytes { try system!.write(handle, offset: Int64(offset), $0) }
        bytes += [UInt8](repeating: 0, count: max(0, offset + piece.count - bytes.count))
        bytes.replaceSubrange(offset..<offset + piece.count, with: piece)
    }

    private func truncate(_ size: Int) throws {
        _ = try system!.setattr(inode, AttributeChanges(size: UInt64(size)), handle: handle, caller: caller)
        bytes.removeLast(bytes.count - size)
    }

    /// - Returns: whether there was one.
    @discardableResult private func check(_ index: Int) throws -> Bool {
        let file = try system!.tree.lock.withLock { () throws(FileSystemError) in try system!.tree.content(of: system!.tree.inode(inode)) }
        let segment = try #require(file.lock.withLock { file.slots[index].segment })
        guard let hash = file.lock.withLock({ segment.fullHash }) else { return false }
        let start = index * SlotTable.stretch
        #expect(hash == SHA256.hash(Array(bytes[start..<start + SlotTable.stretch])))
        return true
    }

    @Test func fullSegmentsAreHashedAndForgetItWhenTheyChange() async throws {
        let piece = random.bytes(1 << 20)
        for at in stride(from: 0, to: 13 << 20, by: 1 << 20) { try write(piece, at: at) }
        FileContent.finishHashing()
        #expect(try !check(0) && check(1) && check(2) && !check(3), "not the first, which is cut, nor what is not full")

        try write([1, 2, 3], at: 5 << 20)
        #expect(try !check(1))
        try system!.fallocate(handle, mode: 3, offset: 9 << 20, length: 100)
        bytes.replaceSubrange(9 << 20..<(9 << 20) + 100, with: [UInt8](repeating: 0, count: 100))
        #expect(try !check(2))
        try truncate(12 << 20)
        try truncate((12 << 20) - 1)
        try write([7], at: (12 << 20) - 1)
        FileContent.finishHashing()
        #expect(try check(2), "full again")

        try system!.flush(handle)
        let batch = try #require(try system!.tree.lock.withLock { try Batch.cut(system!.tree, Namespace.home) })
        let manifest = try #require(try await LocalReplica.answer(batch, system!.tree).first)
        var at = 0
        for chunk in manifest.chunks {
            #expect(chunk.hash == SHA256.hash(Array(bytes[at..<at + Int(chunk.length)])))
            at += Int(chunk.length)
        }
        #expect(at == bytes.count)
        system!.release(handle)
        try LocalReplica.close(&system)
    }

    @Test func whatIsWrittenMeanwhileIsNotMissed() throws {
        let stretch = SlotTable.stretch
        try write(random.bytes(stretch), at: 0)
        var found = 0
        for _ in 0..<150 {
            try write(random.bytes(stretch), at: stretch)
            usleep(.random(in: 0..<6000, using: &random))
            let place = stretch + .random(in: 0..<stretch - 8, using: &random)
            switch Int.random(in: 0..<3, using: &random) {
            case 0: try write(random.bytes(8), at: place)
            case 1:
                try truncate(place)
                try write(random.bytes(2 * stretch - place), at: place)
            default: break
            }
            FileContent.finishHashing()
            if try check(1) { found += 1 }
            try truncate(stretch)
        }
        #expect(found > 50)
        system!.release(handle)
        try LocalReplica.close(&system)
    }
}
