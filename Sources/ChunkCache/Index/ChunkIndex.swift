import Foundation
import GRDB
import Shared
import Synchronization

/// Remembers across restarts what verified chunk files looked like. Written in batches by a queue of its own: what a crash loses
/// only costs a verification.
final class ChunkIndex: Sendable {
    private let queue: DatabaseQueue
    private let writer = DispatchQueue(label: "chunk index", qos: .utility)
    private let waiting = Mutex<[ChunkHash: FileMark?]>([:])

    init(path: String) throws {
        do {
            queue = try Self.open(path)
        } catch {   // damaged: the files are the truth
            for suffix in ["", "-wal", "-shm"] { unlink(path + suffix) }
            queue = try Self.open(path)
        }
    }

    private static func open(_ path: String) throws -> DatabaseQueue {
        let queue = try DatabaseQueue(path: path)
        try queue.inDatabase { database in
            try database.execute(sql: "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")
            try database.execute(sql: """
                CREATE TABLE IF NOT EXISTS chunks (
                    hash BLOB PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, inode INTEGER NOT NULL) WITHOUT ROWID
                """)
        }
        return queue
    }

    func load() throws -> [ChunkHash: FileMark] {
        try queue.read { database in
            var marks: [ChunkHash: FileMark] = [:]
            for row in try Row.fetchAll(database, sql: "SELECT hash, size, modified, inode FROM chunks") {
                guard let hash = ChunkHash(bytes: row[0] as Data) else { continue }
                marks[hash] = FileMark(size: row[1], modified: row[2], inode: UInt64(bitPattern: row[3] as Int64))
            }
            return marks
        }
    }

    func note(_ hash: ChunkHash, _ mark: FileMark) { enqueue(hash, mark) }
    func remove(_ hash: ChunkHash) { enqueue(hash, nil) }

    private func enqueue(_ hash: ChunkHash, _ mark: FileMark?) {
        let isFirst = waiting.withLock { waiting in
            defer { waiting[hash] = .some(mark) }
            return waiting.isEmpty
        }
        if isFirst { writer.asyncAfter(deadline: .now() + 0.5) { self.write() } }
    }

    private func write() {
        let batch = waiting.withLock { waiting in
            defer { waiting = [:] }
            return waiting
        }
        try? queue.write { database in
            for (hash, mark) in batch {
                if let mark {
                    try database.cachedStatement(sql: """
                        INSERT INTO chunks (hash, size, modified, inode) VALUES (?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET
                        size = excluded.size, modified = excluded.modified, inode = excluded.inode
                        """).execute(arguments: [Data(hash.bytes), mark.size, mark.modified, Int64(bitPattern: mark.inode)])
                } else {
                    try database.cachedStatement(sql: "DELETE FROM chunks WHERE hash = ?").execute(arguments: [Data(hash.bytes)])
                }
            }
        }
    }
}
