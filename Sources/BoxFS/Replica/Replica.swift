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
        let store = SegmentStore(directory: folder + "/dirty", firstFile: last + 1) { [database] in database.hasRoom }
        let tree = try Tree(database: database, segments: store, cache: cache, residentCount: residentCount)
        try tree.lock.withLock { () throws(FileSystemError) in try tree.recover() }
        return (database, cache, tree)
    }
}
