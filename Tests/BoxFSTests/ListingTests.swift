import Foundation
import GRDB
import Glibc
import Shared
import Testing
import TestSupport
@testable import BoxFS

/// Listings of the server reach the replica by a short way when they are new: the rows are those of the long way. `BOXFS_SEED` repeats a run.
@Suite struct ListingTests {
    private struct World {
        let system: MountedFileSystem
        let folder: String

        init() throws {
            folder = FileManager.default.temporaryDirectory.path + "/boxfs-listing-\(UUID().uuidString)"
            system = try ResidentInodesTests.fileSystem(folder, residentCount: 1000)
        }

        /// All rows, with identifiers in the place of inode numbers.
        func rows() throws -> [String] {
            let tree = system.tree
            return try tree.lock.withLock { () throws(FileSystemError) in
                try tree.commit()
                return try tree.database.read { database in
                    var rows: [String] = []
                    for query in [
                        "SELECT hex(id), mode, uid, gid, device, accessed, modified, changed, created, links, size, hex(version), hex(pages), target, hex(xattrs), hydrated, sequence FROM nodes WHERE inode > 1",
                        "SELECT (SELECT hex(id) FROM nodes WHERE inode = parent AND inode > 1), name, (SELECT hex(id) FROM nodes WHERE nodes.inode = entries.inode), sequence FROM entries",
                        "SELECT (SELECT hex(id) FROM nodes WHERE nodes.inode = manifests.inode), page, hex(packed) FROM manifests",
                    ] { rows += try Row.fetchAll(database, sql: query).map { "\(Array($0.databaseValues))" }.sorted() }
                    return rows
                }
            }
        }
    }

    private static func node(_ random: inout SeededGenerator, _ sequence: Int64) -> Node {
        func time() -> Timestamp { Timestamp(nanoseconds: Int64.random(in: 0...Int64.max / 4, using: &random)) }
        let kind = [FileType.regular, .regular, .regular, .directory, .symlink, .fifo].randomElement(using: &random)!
        var node = Node(
            id: .make(), sequence: sequence, mode: kind.rawValue | UInt32.random(in: 0...0o777, using: &random), uid: 3, gid: 4, accessed: time(),
            modified: time(), changed: time(), created: time(), links: 1)
        if kind == .symlink { node.target = "to somewhere" }
        if Bool.random(using: &random) { node.xattrs = ["user.a": Data([1, 2]), "user.b": Data()] }
        guard kind == .regular, Int.random(in: 0..<4, using: &random) > 0 else { return node }
        node.version = .make()
        func reference(_ length: Int) -> ChunkReference { ChunkReference(hash: SHA256.hash([UInt8.random(in: 0...255, using: &random)]), length: UInt32(length)) }
        let whole = Manifest.maximumChunkByteCount
        node.content = switch Int.random(in: 0..<4, using: &random) {
        case 0: .empty
        case 1: Content(Manifest(chunks: [reference(5)]))
        case 2: Content(Manifest(chunks: [reference(whole), ChunkReference(hash: .hole, length: UInt32(whole)), reference(77)]))
        default: Content(Manifest(chunks: (0..<70).map { _ in reference(whole) }))
        }
        return node
    }

    @Test func newEntriesAreWrittenAsByTheFeed() throws {
        var random = SeededGenerator("listing")
        for round in 0..<5 {
            let short = try World(), long = try World()
            defer { for world in [short, long] { try? FileManager.default.removeItem(atPath: world.folder) } }
            let root = try short.system.tree.lock.withLock { () throws(FileSystemError) in try short.system.tree.inode(.root).id }
            try long.system.tree.lock.withLock { () throws(FileSystemError) in
                let inode = try long.system.tree.inode(.root)
                inode.id = root
                long.system.tree.markDirty(inode)
                try long.system.tree.commit()
            }
            var entries: [Entry] = [], nodes: [Node] = []
            for index in 0..<Int.random(in: 1...60, using: &random) {
                if let other = nodes.indices.randomElement(using: &random), FileType(mode: nodes[other].mode) == .regular, Int.random(in: 0..<8, using: &random) == 0 {
                    nodes[other].links += 1
                    entries.append(Entry(parent: root, name: "link \(index)", node: nodes[other].id, sequence: Int64(index)))
                } else {
                    nodes.append(Self.node(&random, Int64(index)))
                    entries.append(Entry(parent: root, name: "name \(index)", node: nodes.last!.id, sequence: Int64(index)))
                }
            }
            // In two pages at times: the second meets what the first brought. Some names go on to be told twice.
            let cut = Int.random(in: 0...entries.count, using: &random)
            for part in [entries[..<cut], entries[max(0, cut - 3)...]] {
                let wanted = nodes.filter { node in part.contains { $0.node == node.id } }
                try short.system.tree.lock.withLock { () throws(FileSystemError) in
                    var applier = FeedApplier(tree: short.system.tree, namespace: short.system.tree.namespaces[Namespace.home]!)
                    try applier.list(.root, entries: Array(part), nodes: wanted)
                }
                try long.system.tree.lock.withLock { () throws(FileSystemError) in
                    var applier = FeedApplier(tree: long.system.tree, namespace: long.system.tree.namespaces[Namespace.home]!)
                    try applier.apply(entries: Array(part), nodes: wanted)
                }
            }
            #expect(try short.rows() == long.rows(), "round \(round)")
            #expect(try short.rows().count >= entries.count + nodes.count)
        }
    }

    @Test func theKernelHearsOfNewNamesWhereItMayRemember() throws {
        let world = try World()
        defer { try? FileManager.default.removeItem(atPath: world.folder) }
        var random = SeededGenerator("events")
        let tree = world.system.tree
        let folder = try world.system.mkdir(.root, "folder", mode: 0o755, caller: Caller(uid: 0, gid: 0, pid: 1, umask: 0)).inode
        func list(_ name: String) throws -> Int {
            try tree.lock.withLock { () throws(FileSystemError) in
                try tree.change { try $0.database.execute(sql: "DELETE FROM log; DELETE FROM entries WHERE parent = ?", arguments: [Int64(folder.rawValue)]) }
                let parent = try tree.inode(folder).id, node = Self.node(&random, 1)
                var applier = FeedApplier(tree: tree, namespace: tree.namespaces[Namespace.home]!)
                try applier.list(folder, entries: [Entry(parent: parent, name: name, node: node.id, sequence: 1)], nodes: [node])
                return applier.events.count
            }
        }
        #expect(try list("one") == 1)
        world.system.forget(folder, count: 1)
        #expect(try list("two") == 0)
    }
}
