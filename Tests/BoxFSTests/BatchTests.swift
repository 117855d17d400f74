import Shared
import Testing
@testable import BoxFS

/// What a batch leaves out of the log, and what it must not.
@Suite struct BatchTests {
    private let root = NodeID.make()
    private var records: [LogRecord] = []

    private mutating func add(_ kind: LogKind, _ node: NodeID, in parent: NodeID, _ name: String, to target: NodeID? = nil) {
        records.append(LogRecord(
            id: Int64(records.count + 1), namespace: Namespace.home, kind: kind, inode: InodeNumber(rawValue: 2), node: node, parent: parent, name: name, otherParent: target,
            otherName: target.map { _ in name }, time: .now()))
    }

    private var kept: [Int64] { Batch.withoutTemporaries(records).map(\.id) }

    @Test mutating func temporariesGo() {
        let file = NodeID.make(), stays = NodeID.make()
        add(.create, file, in: root, "swap")
        add(.create, stays, in: root, "stays")
        add(.content, file, in: root, "swap")
        add(.remove, file, in: root, "swap")
        #expect(kept == [2])
    }

    @Test mutating func aFolderGoesWithTheTemporariesInIt() {
        let folder = NodeID.make(), inner = NodeID.make(), file = NodeID.make()
        add(.create, folder, in: root, "folder")
        add(.create, inner, in: folder, "inner")
        add(.create, file, in: inner, "file")
        add(.remove, file, in: inner, "file")
        add(.remove, inner, in: folder, "inner")
        add(.remove, folder, in: root, "folder")
        #expect(kept == [])
    }

    /// Otherwise the server is told to move something into a folder that it never heard of, and refuses.
    @Test mutating func aFolderThroughWhichSomethingWentStays() {
        let outer = NodeID.make(), inner = NodeID.make(), moved = NodeID.make()
        add(.create, outer, in: root, "outer")
        add(.create, inner, in: outer, "inner")
        add(.rename, moved, in: root, "moved", to: inner)
        add(.rename, moved, in: inner, "moved", to: root)
        add(.remove, inner, in: outer, "inner")
        add(.remove, outer, in: root, "outer")
        #expect(kept == [1, 2, 3, 4, 5, 6])
    }
}
