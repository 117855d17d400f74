import ChunkCache
import Glibc
import GRDB
import Shared
@testable import BoxFS

/// A mount's file system without a kernel and a server, on a state folder that process after process opens.
enum LocalReplica {
    /// SQL that takes a replica from format 7 to 6, and to 5.
    static let undoFormat7 = "ALTER TABLE segments RENAME COLUMN start TO slot; UPDATE segments SET slot = slot / 4194304"
    static let undoFormat6 = undoFormat7 + "; DROP INDEX nodes_unlogged; ALTER TABLE nodes DROP COLUMN unlogged"

    static func open(_ folder: String, _ namespace: NamespaceID, isNew: Bool, uid: UInt32 = 0) throws -> MountedFileSystem {
        let options = FileSystemOptions(uid: uid, gid: 0)
        let tree = try Replica.openLocal(ReplicaConfiguration(
            stateDirectory: folder, cacheLimitBytes: 1 << 30, deadlineSeconds: 1, namespace: namespace, device: "here", options: options)).2
        if isNew {
            let now = Timestamp.now()
            let root = Node(
                id: .make(), sequence: 0, mode: 0o040755, uid: 0, gid: 0, device: 0, accessed: now, modified: now, changed: now, created: now,
                links: 1, target: nil, xattrs: [:])
            try tree.lock.withLock { () throws(FileSystemError) in
                try tree.makeRoot(root, namespace: namespace, cursor: 0)
                let made = try tree.inode(.root)
                made.hydration = .complete
                tree.markDirty(made)
            }
        }
        return MountedFileSystem(tree: tree, options: options, fetcher: NothingElsewhere())
    }

    /// The server has all that was written. Nothing of it is left in the caller's hands, who may close the replica.
    static func answerAll(_ tree: Tree) async throws {
        if let batch = try tree.lock.withLock({ try Batch.cut(tree, Namespace.home) }) { _ = try await answer(batch, tree) }
    }

    /// Seals a batch as when it is sent, and forgets what the log says of it as when it is answered.
    /// - Returns: what the server has of each file.
    static func answer(_ batch: Batch, _ tree: Tree) async throws -> [Manifest] {
        let sealed = try await Sealer.seal(batch.files.flatMap { $0.slots.compactMap(\.segment) }, into: tree.cache)
        defer { Sealer.end(sealed, tree.cache) }
        return try tree.lock.withLock { () throws(FileSystemError) in
            let chunks = Dictionary(uniqueKeysWithValues: sealed.map { (ObjectIdentifier($0.segment), $0.chunks) })
            var manifests: [Manifest] = []
            for file in batch.files {
                manifests.append(FileContent.manifest(size: file.size, slots: file.slots) { chunks[ObjectIdentifier($0)] ?? [] })
                file.content.install(file.slots, chunks)
                tree.cache.markSent(file.content.takeClaims())
                tree.markContentDirty(file.inode)
            }
            tree.filesToRemove += sealed.flatMap(\.wholes).map(\.file)
            batch.release(tree)
            try tree.change { try $0.execute(sql: "DELETE FROM log WHERE id <= ?", arguments: [batch.lastLog]) }
            try tree.commit()
            return manifests
        }
    }

    /// A process takes its threads with it: what makes segment files and hashes in the background has to come to its end.
    /// - Parameter commits: false: as SIGKILL does it, what no transaction ended and no close kept is gone.
    static func close(_ system: inout MountedFileSystem?, commits: Bool = true) throws {
        if commits { try system?.tree.lock.withLock { () throws(FileSystemError) in try system?.tree.commit() } }
        weak let tree = system?.tree
        system = nil
        while tree != nil { usleep(1_000) }
        SegmentStore.making.sync {}
        FileContent.finishHashing()
    }
}
