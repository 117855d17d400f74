import Foundation
import Shared
import Testing
@testable import BoxFS

/// The times of a folder in which programs work do not jump back and forth when the feed tells what they were a moment ago.
@Suite struct FolderTimesTests {
    @Test func theFeedOfEarlierChangesMovesNoTimes() throws {
        let folder = FileManager.default.temporaryDirectory.path + "/boxfs-times-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let system = try ResidentInodesTests.fileSystem(folder, residentCount: 100), tree = system.tree
        let home = try #require(tree.namespaces[Namespace.home]), caller = Caller(uid: 0, gid: 0, pid: 1, umask: 0)
        let number = try system.mkdir(.root, "d", mode: 0o755, caller: caller).inode
        let inode = try tree.lock.withLock { () throws(FileSystemError) in try tree.inode(number) }
        _ = try system.mkdir(number, "first", mode: 0o755, caller: caller)
        let told = try system.getattr(number).modified
        // That was sent and answered; now there is a change that was not.
        try tree.lock.withLock { () throws(FileSystemError) in try tree.change { try $0.execute(sql: "DELETE FROM log") } }
        usleep(1000)
        _ = try system.mkdir(number, "second", mode: 0o755, caller: caller)
        let attributes = try system.getattr(number)
        #expect(attributes.modified > told)
        func apply(_ sequence: Int64, _ time: Timestamp) throws {
            let row = Node(
                id: inode.id, sequence: sequence, mode: 0o40700, uid: 0, gid: 0, accessed: time, modified: time, changed: time, created: time, links: 1)
            try tree.lock.withLock { () throws(FileSystemError) in
                var applier = FeedApplier(tree: tree, namespace: home)
                try applier.apply(entries: [], nodes: [row])
            }
        }
        try apply(10, told)
        let now = try system.getattr(number)
        #expect(now.modified == attributes.modified && now.changed == attributes.changed)
        #expect(now.mode & 0o7777 == 0o700, "what others changed is seen")
        // Once the server has answered, it says what the times are.
        try tree.lock.withLock { () throws(FileSystemError) in try tree.change { try $0.execute(sql: "DELETE FROM log") } }
        try apply(11, told)
        #expect(try system.getattr(number).modified == told)
    }
}
