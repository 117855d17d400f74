import Foundation
import Glibc
import Shared
import Testing
@testable import BoxFS

/// The process dies within a call, whether the transaction that other calls share was just ended or not: the file is as it was before the call,
/// or as it is after it.
@Suite struct InterruptedCallTests {
    enum Call: CaseIterable { case empty, cut, grow, append, overwrite, punch }

    private let caller = Caller(uid: 0, gid: 0, pid: 1, umask: 0)

    /// What the call does to the content, before it tells the inode.
    private func begin(_ call: Call, _ file: FileContent, _ inode: InodeNumber, _ bytes: [UInt8]) throws(FileSystemError) -> [UInt8] {
        let mark: [UInt8] = [1, 2, 3]
        func write(_ offset: Int) throws(FileSystemError) {
            try mark.withBytes { mark throws(FileSystemError) in try file.write(offset: offset, mark, inode: inode) }
        }
        switch call {
        case .empty:
            try file.truncate(to: 0, inode: inode)
            return []
        case .cut:
            try file.truncate(to: 10, inode: inode)
            return Array(bytes.prefix(10))
        case .grow:
            try file.truncate(to: UInt64(bytes.count + 1000), inode: inode)
            return bytes + [UInt8](repeating: 0, count: 1000)
        case .append:
            try write(bytes.count)
            return bytes + mark
        case .overwrite:
            try write(7)
            return bytes[..<7] + mark + bytes[10...]
        case .punch:
            try file.punchHole(0..<4000, inode: inode)
            return [UInt8](repeating: 0, count: 4000) + bytes[4000...]
        }
    }

    /// What has a row alone, and what has a file in `dirty/`.
    private static let byteCounts = [5000, 3 * Segment.maximumHeldBytes]

    @Test(arguments: Call.allCases, byteCounts.flatMap { [($0, true), ($0, false)] })
    func theFileIsAsBeforeOrAsAfter(_ call: Call, _ variant: (byteCount: Int, endsTransaction: Bool)) throws {
        let folder = FileManager.default.temporaryDirectory.path + "/boxfs-interrupted-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let namespace = NamespaceID.make()
        var system: MountedFileSystem? = try LocalReplica.open(folder, namespace, isNew: true)
        let before = [UInt8](unsafeUninitializedCapacity: variant.byteCount) { buffer, count in
            for index in buffer.indices { buffer[index] = UInt8(truncatingIfNeeded: index &* 7 | 1) }
            count = buffer.count
        }
        let (attributes, open) = try system!.create(.root, "f", mode: 0o644, flags: O_RDWR, caller: caller)
        try before.withUnsafeBytes { try system!.write(open.handle, offset: 0, $0) }
        try system!.flush(open.handle)
        // A write that nothing has ended yet: the content's rows will be written.
        try before.prefix(1).withUnsafeBytes { try system!.write(open.handle, offset: 0, $0) }
        let after = try begin(call, try #require(system!.tree.inodes[attributes.inode]?.file), attributes.inode, before)
        try LocalReplica.close(&system, commits: variant.endsTransaction)

        system = try LocalReplica.open(folder, namespace, isNew: false)
        let inode = try system!.lookup(.root, "f"), again = try system!.open(inode.inode, flags: O_RDONLY, caller: caller)
        let found = ResidentInodesTests.bytes(try system!.read(again.handle, offset: 0, count: 1 << 16))
        #expect(found == before || found == after, "\(found.count) bytes, \(found.count { $0 == 0 }) of them zeros")
        #expect(inode.size == found.count)
        system!.release(again.handle)
        try LocalReplica.close(&system)
    }

    /// What was changed in a file that the server has, and never closed, is what is here after the next start: so the server has to hear of it,
    /// even of a change that left no bytes.
    @Test(arguments: Call.allCases + [nil]) func whatIsHereAfterTheNextStartIsSent(_ call: Call?) async throws {
        let folder = FileManager.default.temporaryDirectory.path + "/boxfs-interrupted-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let namespace = NamespaceID.make(), bytes = [UInt8](repeating: 1, count: 5000)
        var system: MountedFileSystem? = try LocalReplica.open(folder, namespace, isNew: true)
        let (attributes, open) = try system!.create(.root, "f", mode: 0o644, flags: O_RDWR, caller: caller)
        try bytes.withUnsafeBytes { try system!.write(open.handle, offset: 0, $0) }
        try system!.flush(open.handle)
        try await LocalReplica.answerAll(system!.tree)
        if let call {
            let inode = try #require(system!.tree.inodes[attributes.inode])
            try system!.changing(inode) { file throws(FileSystemError) in
                _ = try begin(call, file, inode.number, bytes)
                return true
            }
        }
        try LocalReplica.close(&system, commits: true)

        system = try LocalReplica.open(folder, namespace, isNew: false)
        let batch = try system!.tree.lock.withLock { try Batch.cut(system!.tree, Namespace.home) }
        #expect(batch?.files.map(\.inode.number) == (call == nil ? nil : [attributes.inode]))
        if let batch { system!.tree.lock.withLock { batch.release(system!.tree) } }
        try LocalReplica.close(&system)
    }
}
