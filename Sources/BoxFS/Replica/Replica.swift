import ChunkCache
import Foundation
import GRDB
import Glibc
import Shared

/// What a mount needs to begin, whoever asks for it.
struct ReplicaConfiguration: Sendable {
    /// Holds replica.db, dirty/ and cache/, all on one file system.
    var stateDirectory: String
    var cacheLimitBytes: UInt64
    var deadlineSeconds: Double
    var namespace: NamespaceID
    /// Named in versions and conflicted copies.
    var device: String
    var options: FileSystemOptions
    var scrubRestSeconds = Scrubber.standardRestSeconds
}

/// The parts of one mount, from the replica up to the file system: what the kernel adapter and the control socket stand on.
final class Replica: Sendable {
    let tree: Tree
    let cache: ChunkCache
    let synchronizer: Synchronizer
    let fileSystem: MountedFileSystem
    let remote: Remote
    let configuration: ReplicaConfiguration
    let scrubber: Scrubber

    enum StartError: Error, CustomStringConvertible {
        case firstMountNeedsServer(RemoteError)
        case local(String)
        case damaged(String)
        case wrongNamespace

        var description: String {
            switch self {
            case .firstMountNeedsServer(let error): "The first mount of a folder needs the server, which cannot be reached: \(error)."
            case .local(let reason): "The state folder cannot be used: \(reason)"
            case .damaged(let reason): "The local database is damaged (\(reason)). Run boxfs doctor --repair with the mount point: it keeps what was not sent."
            case .wrongNamespace: "The state folder belongs to another account. Give another --cache-dir."
            }
        }
    }

    /// Opens or makes the replica, and mends what a crash left: segment files that no row names become clean chunks, nodes that were
    /// unlinked while open are forgotten, claims on chunks that are still to be sent are stated again.
    static func open(_ configuration: ReplicaConfiguration, remote: Remote) async throws(StartError) -> Replica {
        let parts: (ReplicaDatabase, ChunkCache, Tree)
        do { parts = try openLocal(configuration) } catch { throw error as? StartError ?? .local("\(error)") }
        let (_, cache, tree) = parts
        do {
            if let known = try tree.meta("namespace") {
                guard known == configuration.namespace.description else { throw StartError.wrongNamespace }
            } else {
                let information = try await remote.namespace(configuration.namespace)
                let root = try await remote.node(configuration.namespace, information.root)
                try tree.lock.withLock { () throws(FileSystemError) in
                    try tree.makeRoot(root, namespace: configuration.namespace, cursor: information.sequence)
                }
            }
            let chunks = ChunkFetcher(remote: remote, cache: cache)
            let synchronizer = try Synchronizer(
                tree: tree, remote: remote, chunks: chunks, device: configuration.device,
                deadlineSeconds: configuration.deadlineSeconds, rescueFolder: configuration.stateDirectory + "/rescue")
            return Replica(tree: tree, cache: cache, synchronizer: synchronizer, remote: remote, configuration: configuration)
        } catch let error as StartError {
            throw error
        } catch let error as RemoteError {
            throw .firstMountNeedsServer(error)
        } catch {
            throw .local("\(error)")
        }
    }

    private init(tree: Tree, cache: ChunkCache, synchronizer: Synchronizer, remote: Remote, configuration: ReplicaConfiguration) {
        self.tree = tree
        self.cache = cache
        self.synchronizer = synchronizer
        self.remote = remote
        self.configuration = configuration
        scrubber = Scrubber(cache: cache, restSeconds: configuration.scrubRestSeconds) { [weak synchronizer] reference, isUnsent in
            synchronizer?.chunkIsDamaged(reference, isUnsent: isUnsent)
        }
        fileSystem = MountedFileSystem(tree: tree, options: configuration.options, fetcher: synchronizer)
    }

    static func openLocal(_ configuration: ReplicaConfiguration, residentCount: Int = Tree.standardResidentCount) throws -> (ReplicaDatabase, ChunkCache, Tree) {
        let folder = configuration.stateDirectory
        for directory in [folder, folder + "/dirty"] {
            try FileManager.default.createDirectory(
                atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        }
        if access(folder + "/replica.db", F_OK) != 0, ReplicaRepair.hasSegments(folder) { throw StartError.damaged("it is missing, though unsent data are there") }
        let database: ReplicaDatabase
        do { database = try ReplicaDatabase(path: folder + "/replica.db") } catch let error as DatabaseError
            where [.SQLITE_CORRUPT, .SQLITE_NOTADB].contains(error.resultCode) { throw StartError.damaged("\(error)") }
        let cache = try ChunkCache(directory: folder + "/cache", limitBytes: configuration.cacheLimitBytes)
        try database.syncInherited()     // before files go that its rows do not name
        let named = Set(try database.read { try Int64.fetchAll($0, sql: "SELECT file FROM segments UNION SELECT base FROM segments WHERE base IS NOT NULL") })
        var last: Int64 = named.max() ?? 0
        for name in try FileManager.default.contentsOfDirectory(atPath: folder + "/dirty") {
            if let file = Int64(name), named.contains(file) { continue }
            last = max(last, Int64(name) ?? 0)
            // After a power cut rows may name a chunk whose file has its old name only.
            if Int64(name) == nil { unlink("\(folder)/dirty/\(name)") } else { cache.takeOver(fileAt: "\(folder)/dirty/\(name)") }
        }
        let store = SegmentStore(directory: folder + "/dirty", firstFile: last + 1)
        let tree = try Tree(database: database, segments: store, cache: cache, residentCount: residentCount)
        try tree.lock.withLock { () throws(FileSystemError) in try tree.recover() }
        return (database, cache, tree)
    }
}

extension Tree {
    /// The first row of a new replica. Under the lock.
    func makeRoot(_ node: Node, namespace: NamespaceID, cursor: Int64) throws(FileSystemError) {
        let root = Inode(number: .root, id: node.id, mode: node.mode, uid: node.uid, gid: node.gid, time: node.modified)
        root.assign(node)
        root.hydration = .unknown
        register(root)
        try setMeta("namespace", namespace.description)
        try save(Namespace(number: Namespace.home, id: namespace, root: .root, junction: nil, role: .owner, cursor: cursor))
        try commit()
    }

    /// A process that ended between a write and the close left bytes of which no record speaks: they are here, so the server shall have them.
    private func logInterruptedWrites() throws(FileSystemError) {
        let written = try database.read { database in
            try Int64.fetchAll(database, sql: """
                SELECT DISTINCT inode FROM segments WHERE NOT EXISTS (
                    SELECT 1 FROM log WHERE log.inode = segments.inode AND log.kind = ? AND log.id > ?)
                """, arguments: [LogKind.content.rawValue, lastCut])
        }
        for number in written {
            guard let inode = try? inode(InodeNumber(rawValue: UInt64(number))), inode.links > 0 else { continue }
            try content(of: inode).hasUnlogged = true
            try logContent(inode)
        }
    }

    /// A power cut may have kept a row and lost what was written to its segment without fsync: the slot has again what it had before,
    /// or, if there was nothing, what is there and zeros. A content is loaded only when all rows are right.
    private func recoverSegments() throws(FileSystemError) {
        let rows = try database.read {
            try Row.fetchAll($0, sql: "SELECT s.*, n.size FROM segments s JOIN nodes n ON n.inode = s.inode")
                .map { (inode: $0["inode"] as Int64, size: UInt64($0["size"] as Int64), row: try SegmentRow($0)) }
        }
        func status(_ file: Int64) -> (size: Int, modified: Timestamp) {
            var status = stat()
            return stat(segments.path(file), &status) == 0 ? (Int(status.st_size), Timestamp(status.st_mtim)) : (0, Timestamp(nanoseconds: 0))
        }
        var lost: [(inode: Int64, slot: Int)] = []
        for (inode, size, row) in rows {
            let (held, modified) = status(row.file)
            var kept = row
            if let pieces = row.pieces {
                kept.pieces = pieces.filter { $0.position + $0.count <= held }
            } else {
                kept.length = row.length(held: held, size: size)
            }
            let isBaseLost = row.base.map { status($0).size < row.baseLength } ?? false
            if isBaseLost || kept.length < row.length, row.origin != nil {
                // Nothing of it was synced, or it would have no origin.
                cache.count(reservedBytes: row.reservedBytes)
                lost.append((inode, row.slot))
                continue
            }
            if isBaseLost, let base = row.base { try segments.lengthen(base, to: row.baseLength) }
            cache.count(reservedBytes: kept.reservedBytes)
            guard kept.length != row.length || kept.pieces != row.pieces else { continue }
            try change {
                if kept.length > row.length {
                    try $0.execute(
                        sql: "UPDATE nodes SET size = ?, modified = max(modified, ?), changed = max(changed, ?) WHERE inode = ?",
                        arguments: [row.slot * FileContent.slotByteCount + kept.length, modified.nanoseconds, modified.nanoseconds, inode])
                }
                if kept.length == 0 {
                    try $0.execute(sql: "DELETE FROM segments WHERE inode = ? AND slot = ?", arguments: [inode, row.slot])
                } else {
                    try kept.save($0, inode: inode)
                }
            }
        }
        for (number, slot) in lost {
            let inode = try self.inode(InodeNumber(rawValue: UInt64(number)))
            try content(of: inode).restoreOrigin(slot)
            markContentDirty(inode)
        }
    }

    /// Brings the rows of an earlier process into a state that this one may build on. Under the lock.
    func recover() throws(FileSystemError) {
        try change { database in
            // Each by a partial index, whose condition the last one repeats: a replica may have a million rows.
            try database.execute(sql: """
                DELETE FROM segments WHERE inode IN (SELECT inode FROM nodes WHERE links = 0);
                DELETE FROM manifests WHERE inode IN (SELECT inode FROM nodes WHERE links = 0);
                DELETE FROM nodes WHERE links = 0 AND NOT EXISTS (SELECT 1 FROM log WHERE log.node = nodes.id);
                UPDATE nodes SET hydrated = 0 WHERE hydrated = 1 AND hydrated < 2 AND mode & 61440 = 16384
                """)
        }
        let outgoing = try Outgoing.loadAll(self)
        lastCut = outgoing.map(\.lastLog).max() ?? 0
        try recoverSegments()
        var claims: [ChunkHash: Int] = [:]
        for chunk in outgoing.flatMap(\.claims) { claims[chunk.hash, default: 0] += 1 }
        cache.resetUnsentClaims(claims)
        try logInterruptedWrites()
        // What lies in the outbox has its claims already, and nobody would take a second one back.
        let changed = try database.read {
            try Int64.fetchAll($0, sql: """
                SELECT DISTINCT inode FROM log WHERE kind = ? AND id > coalesce((SELECT last_log FROM outbox o WHERE o.namespace = log.namespace), 0)
                """, arguments: [LogKind.content.rawValue])
        }
        for number in changed {
            guard let inode = try? inode(InodeNumber(rawValue: UInt64(number))), inode.links > 0 else { continue }
            try content(of: inode).restateClaims()
        }
        try commit()
    }
}
