import ChunkCache
import Foundation
import Glibc
import GRDB
import NIOCore
import Shared
import Testing
@testable import BoxFS
@testable import Server

/// A mount without a kernel and a network: its file system, replica and synchronizer, against the drive itself. Every step of the exchange
/// is a call of its own, so that a test decides in which order things meet.
final class SimulatedMount {
    let name: String
    private struct Process { let system: MountedFileSystem, synchronizer: Synchronizer }
    private var process: Process?
    var system: MountedFileSystem { process!.system }
    var synchronizer: Synchronizer { process!.synchronizer }
    let device: TestDevice
    private let folder: String
    var tree: Tree { system.tree }
    /// A commit on its way to the server, and the answer on its way back.
    private struct Exchange { let namespace: Namespace, request: Outgoing, batch: Batch?; var answer: CommitAnswer? }
    private var exchange: Exchange?
    private var pages: [(namespace: Namespace, after: Int64, page: ChangePage)]?
    private var listing: (directory: InodeNumber, place: Synchronizer.Place, page: TreePage)?
    // Of what programs do (`SimulatedMount+Programs.swift`).
    /// By the file's inode: what a close returned for and this mount did not take back.
    var owed: [InodeNumber: (hash: ChunkHash, what: String)] = [:]
    let written: WrittenContents
    /// What programs read that nobody wrote.
    var inventions: [String] = []
    var count = 0
    var held: [HeldFile] = []
    /// What programs here made of the files that they opened.
    var contents: [InodeNumber: [UInt8]] = [:]
    /// Inodes whose last name this mount took away.
    var unlinked: Set<InodeNumber> = []

    init(_ device: TestDevice, _ folder: String, _ written: WrittenContents) async throws {
        (self.device, self.folder, self.written, name) = (device, folder, written, device.name)
        let root = try await device.drive.node(device.session, device.namespace, device.root)
        let sequence = try await device.drive.namespaceInformation(device.session, device.namespace).sequence
        process = try begin { tree throws(FileSystemError) in try tree.makeRoot(root, namespace: device.namespace, cursor: sequence) }
    }

    private func begin(_ first: (Tree) throws(FileSystemError) -> Void = { _ in }) throws -> Process {
        let options = FileSystemOptions(uid: 0, gid: 0)
        let (_, cache, tree) = try Replica.openLocal(ReplicaConfiguration(
            stateDirectory: folder, cacheLimitBytes: 1 << 30, deadlineSeconds: 1, namespace: device.namespace, device: device.name, options: options), residentCount: 4)
        try tree.lock.withLock { () throws(FileSystemError) in try first(tree) }
        let remote = Remote(ConnectionSettings(server: "http://127.0.0.1:9"))
        let synchronizer = try Synchronizer(
            tree: tree, remote: remote, chunks: ChunkFetcher(remote: remote, cache: cache), device: device.name, deadlineSeconds: 1,
            rescueFolder: folder + "/rescue")
        return Process(system: MountedFileSystem(tree: tree, options: options, fetcher: synchronizer), synchronizer: synchronizer)
    }

    /// SIGKILL and a new mount: what no transaction ended is gone, as is what was on its way; the outbox is sent again.
    func restart() async throws {
        weak let tree = tree
        (exchange, pages, listing, process) = (nil, nil, nil, nil)
        (held, contents, unlinked) = ([], [:], [])
        // A process takes its threads with it: here, what removes and makes segment files in the background has to come to its end.
        while tree != nil { try await Task.sleep(for: .milliseconds(1)) }
        SegmentStore.making.sync {}
        process = try begin()
    }

    // MARK: What is exchanged

    var namespaces: [Namespace] { tree.lock.withLock { tree.namespacesHomeFirst.filter { !$0.isLost } } }

    /// - Returns: whether there was something to do.
    func cut() async throws -> Bool {
        guard exchange == nil else { return false }
        for namespace in namespaces {
            if let left = try Outgoing.load(tree, namespace.number) {
                exchange = Exchange(namespace: namespace, request: left, batch: nil)
                return true
            }
            guard let batch = try tree.lock.withLock({ () throws(FileSystemError) in try Batch.cut(tree, namespace.number) }) else { continue }
            let request = try await synchronizer.seal(batch, .make())
            try request.save(tree)
            exchange = Exchange(namespace: namespace, request: request, batch: batch)
            return true
        }
        return false
    }

    /// The commit reaches the server; whether the answer reaches the mount is another matter.
    func commit() async throws -> Bool {
        guard let exchange, exchange.answer == nil || count.isMultiple(of: 2) else { return false }
        guard tree.namespaces[exchange.namespace.number] === exchange.namespace else {      // left meanwhile
            tree.lock.withLock { exchange.batch?.release(tree) }
            self.exchange = nil
            return true
        }
        count += 1
        do {
            self.exchange!.answer = try await commit(exchange.request, exchange.namespace.id)
            return true
        } catch DriveError.notFound, DriveError.forbidden { return false }      // no right, for the time being
    }

    /// As `Synchronizer` does it: short chunks go with the commit, by turns, others before it.
    private func commit(_ outgoing: Outgoing, _ namespace: NamespaceID) async throws -> CommitAnswer {
        var request = outgoing.request
        if let carried = outgoing.carried, !count.isMultiple(of: 3) {
            request.chunks = carried
            do { return try await device.drive.commit(device.session, namespace, request) } catch DriveError.chunksMissing { request.chunks = nil }
        }
        let bodies = try outgoing.withAllChunks().claims.map { chunk in
            let open = try #require(tree.cache.open(chunk))
            var bytes = [UInt8](repeating: 0, count: Int(chunk.length))
            #expect(pread(open.fileDescriptor, &bytes, bytes.count, off_t(open.offset)) == bytes.count)
            return bytes
        }
        if !bodies.isEmpty { request.upload = try await device.upload(bodies, in: namespace) }
        return try await device.drive.commit(device.session, namespace, request)
    }

    func receive() async throws -> Bool {
        guard let exchange, let answer = exchange.answer else { return false }
        if tree.namespaces[exchange.namespace.number] === exchange.namespace { try await synchronizer.answered(exchange.request, exchange.namespace, answer) }
        tree.lock.withLock { exchange.batch?.release(tree) }
        self.exchange = nil
        return true
    }

    func poll() async throws -> Bool {
        guard pages == nil else { return false }
        let followed = namespaces.map { ($0, $0.cursor) }
        let request = FollowRequest(cursors: followed.map { .init(namespace: $0.id, after: $1) }, limit: 100, wait: 0)
        let answer = try await device.drive.follow(device.session, request)
        pages = followed.compactMap { namespace, after in answer.pages.first { $0.namespace == namespace.id }.map { (namespace, after, $0.page) } }
        return pages!.contains { $0.page.cursor > $0.after || !$0.page.nodes.isEmpty }
    }

    func apply() async throws -> Bool {
        guard let pages else { return false }
        for (namespace, _, page) in pages { try synchronizer.apply(page, to: namespace, isNews: true) }
        await synchronizer.leaveLostFolders()
        self.pages = nil
        return true
    }

    func list() async throws -> Bool {
        guard listing == nil else { return false }
        let next = try tree.lock.withLock { () throws(FileSystemError) in
            try tree.commit()
            return try tree.database.read { try Int64.fetchOne($0, sql: "SELECT inode FROM nodes WHERE hydrated < 2 AND mode & 61440 = 16384 AND links > 0 LIMIT 1") }
        }
        guard let next else { return false }
        let directory = InodeNumber(rawValue: UInt64(next))
        guard let place = try synchronizer.expect([directory])[directory] else { return false }
        do {
            listing = (directory, place, try await device.drive.children(device.session, place.namespace.id, place.id, after: nil, limit: 1000))
            return true
        } catch {
            synchronizer.release([directory])
            guard case .notFound = error else { throw error }
            return false        // not on the server yet, or no more
        }
    }

    func takeListing() throws -> Bool {
        guard let (directory, place, page) = listing else { return false }
        let nodes = Dictionary(page.nodes.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        _ = try synchronizer.take(page.sequence, place.namespace, directory, page.entries, nodes, isLast: true)
        synchronizer.release([directory])
        listing = nil
        return true
    }

    /// Exchanges until there is nothing left to say.
    func drain() async throws {
        for _ in 0..<200 {
            var isBusy = false
            for step in [list, cut, commit, receive, poll, apply] { isBusy = try await step() || isBusy }
            isBusy = try takeListing() || isBusy
            // A page without news.
            let isSettled = try !isUnsettled()
            if isSettled || !isBusy, try await !poll() {
                _ = try await apply()
                return
            }
        }
        Issue.record("\(name) does not come to rest")
    }

    private func isUnsettled() throws -> Bool {
        try tree.lock.withLock { () throws(FileSystemError) in
            try tree.commit()
            return try tree.database.read {
                try Int64.fetchOne($0, sql: """
                    SELECT 1 FROM log UNION ALL SELECT 1 FROM deferred UNION ALL SELECT 1 FROM nodes WHERE hydrated < 2 AND mode & 61440 = 16384 AND links > 0 LIMIT 1
                    """) != nil
            }
        }
    }

    // MARK: What is seen

    /// Path to node, mode, links, version, bytes, target or mtime, and extended attributes, of all that can be reached.
    func seenTree() throws -> [String: String] {
        try told { inode throws(FileSystemError) in
            Self.text(Node(inode), links: inode.links, inode.version, size: inode.size, try chunks(of: inode))
        }
    }

    /// Path to what is told of the node there, of all that can be reached. Ends no transaction.
    func told<Value>(_ tell: (Inode) throws(FileSystemError) -> Value) throws -> [String: Value] {
        try tree.lock.withLock { () throws(FileSystemError) in
            var seen: [String: Value] = [:], folders: [(InodeNumber, String)] = [(.root, "")]
            while let (folder, path) = folders.popLast() {
                let rows = try tree.database.read { try Row.fetchAll($0, sql: "SELECT name, inode FROM entries WHERE parent = ?", arguments: [Int64(folder.rawValue)]) }
                for row in rows {
                    let inode = try tree.inode(InodeNumber(rawValue: UInt64(row[1] as Int64))), place = path + "/" + (row[0] as String)
                    seen[place] = try tell(inode)
                    if inode.isDirectory { folders.append((inode.number, place)) }
                }
            }
            return seen
        }
    }

    /// Every name leads to a node that counts it: otherwise programs would meet ESTALE. Ends no transaction.
    func expectSound() throws -> String? {
        try tree.lock.withLock { () throws(FileSystemError) in
            let rows = try tree.database.read {
                try Row.fetchAll($0, sql: "SELECT e.name, e.inode, ifnull(n.links, 0) FROM entries e LEFT JOIN nodes n ON n.inode = e.inode")
            }
            for row in rows where tree.inodes[InodeNumber(rawValue: UInt64(row[1] as Int64))].map({ Int64($0.links) }) ?? row[2] == 0 {
                return "\(row[0] as String) of \(row[1] as Int64) counts nothing"
            }
            return nil
        }
    }

    /// Rows that lead nowhere: no program and no answer will ever ask for them again. To be asked once all has been said and nothing is open.
    func leaks() throws -> [String] {
        try tree.lock.withLock { () throws(FileSystemError) in
            try tree.commit()
            return try tree.database.read { database in
                let nodes = try Row.fetchAll(database, sql: """
                    WITH RECURSIVE reached (inode) AS (SELECT 1 UNION SELECT e.inode FROM reached r JOIN entries e ON e.parent = r.inode)
                    SELECT inode, mode, links, EXISTS (SELECT 1 FROM entries e WHERE e.inode = nodes.inode), id FROM nodes
                    WHERE inode NOT IN (SELECT inode FROM reached)
                    """).map { "node \($0[0] as Int64) \(NodeID(bytes: $0[4] as Data)!), mode \(String($0[1] as UInt32, radix: 8)), \($0[2] as Int64) links, \($0[3] ? "named" : "nameless")" }
                let others = try [("entries", "parent"), ("manifests", "inode"), ("segments", "inode")].flatMap { table, column in
                    try Int64.fetchAll(database, sql: "SELECT \(column) FROM \(table) WHERE \(column) NOT IN (SELECT inode FROM nodes)").map { "\(table) of \($0)" }
                }
                return nodes + others
            }
        }
    }

    /// What is written and not sealed yet has no hash.
    private func chunks(of inode: Inode) throws(FileSystemError) -> [ChunkReference] {
        guard inode.isRegular else { return [] }
        let file = try tree.content(of: inode)
        return FileContent.manifest(size: file.byteCount, slots: file.lock.withLock { file.slots }) { _ in [] }.chunks
    }

    static func text(_ node: Node, links: UInt32, _ version: VersionID?, size: UInt64, _ chunks: [ChunkReference]) -> String {
        let isDirectory = FileType(mode: node.mode) == .directory
        let more = [node.target.map { "-> \($0)" }, isDirectory ? nil : "\(node.modified.nanoseconds)"].compactMap { $0 }
            + node.xattrs.sorted { $0.key < $1.key }.map { "\($0.key)=\(String(decoding: $0.value, as: UTF8.self))" }
        return "\(node.id) \(String(node.mode, radix: 8)) \(isDirectory ? 1 : links) \(version.map { "\($0)" } ?? "-") \(size) \(chunks.map { "\($0.hash)".prefix(8) }.joined(separator: "+")) \(more.joined(separator: " "))"
    }

    /// Contents that were put beside the tree.
    func rescued() -> [ChunkHash: [UInt8]] {
        let files = FileManager.default.enumerator(atPath: folder + "/rescue")?.compactMap { $0 as? String } ?? []
        let contents = files.compactMap { FileManager.default.contents(atPath: folder + "/rescue/" + $0).map { Array($0) } }
        return Dictionary(contents.map { (SHA256.hash($0), $0) }) { $1 }
    }
}
