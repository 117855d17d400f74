import Foundation
import GRDB
import Shared

/// A batch ready to be sent. It lies in the table `outbox` from before the first attempt until the answer, so that every attempt,
/// after a crash too, is the same commit word for word.
struct Outgoing: Sendable {
    var lastLog: Int64
    /// The number of the namespace that it goes to.
    var namespace: Int64
    var request: CommitRequest
    /// Chunks that the server may not have: each holds a claim on the cache until the answer.
    var claims: [ChunkReference] = []
    /// Those of the claims that were made for this batch; nil: not known, after a crash. The others are of files that the server has had:
    /// it says so if they are gone.
    var fresh: Set<ChunkHash>?
    /// They are short, and go with the commit; nil: they are sent before it. Not kept: after a crash they are sent before it, too.
    var carried: [CarriedChunk]?
    /// Packed manifest pages of long files.
    var pages: [[UInt8]] = []
    /// The upload session that brings its chunks.
    var upload: UploadID { Self.upload(of: request.commit) }

    static func upload(of commit: CommitID) -> UploadID { UploadID(high: commit.high, low: commit.low) }

    private struct Sealed: Codable {
        var claims: Data
        var pages: [Data]
    }

    mutating func add(_ file: Batch.File, _ manifest: Manifest) {
        let content = Content(manifest)
        if content.pages != nil { pages += manifest.pages.map(\.packed) }
        request.operations.append(NumberedOperation(
            id: lastLog + Int64(request.operations.count) + 1,
            operation: .content(
                node: file.node, base: file.base, version: .make(), content: content, modified: file.modified, changed: file.changed)))
    }

    /// With every chunk that its contents name, for a server that lost some.
    func withAllChunks() throws -> Outgoing {
        var all = self
        all.fresh = nil
        var known = Set(claims.map(\.hash))
        for numbered in request.operations {
            guard case .content(_, _, _, let content, _, _) = numbered.operation, let inline = content.inline else { continue }
            for chunk in try Manifest.unpack(inline) where !chunk.isHole && known.insert(chunk.hash).inserted { all.claims.append(chunk) }
        }
        for page in pages {
            for chunk in try Manifest.unpack(page) where !chunk.isHole && known.insert(chunk.hash).inserted { all.claims.append(chunk) }
        }
        return all
    }

    static func load(_ tree: Tree, _ namespace: Int64) throws(FileSystemError) -> Outgoing? {
        try tree.database.read { database in
            try Row.fetchOne(database, sql: "SELECT last_log, namespace, request, sealed FROM outbox WHERE namespace = ?", arguments: [namespace]).map(Self.init)
        }
    }

    static func loadAll(_ tree: Tree) throws(FileSystemError) -> [Outgoing] {
        try tree.database.read { database in
            try Row.fetchAll(database, sql: "SELECT last_log, namespace, request, sealed FROM outbox").map(Self.init)
        }
    }

    private init(_ row: Row) throws {
        let sealed = try JSONDecoder().decode(Sealed.self, from: row[3] as Data)
        self.init(
            lastLog: row[0], namespace: row[1], request: try JSONDecoder().decode(CommitRequest.self, from: row[2] as Data),
            claims: try Manifest.unpack(sealed.claims), pages: sealed.pages.map { Array($0) })
    }

    init(
        lastLog: Int64, namespace: Int64, request: CommitRequest, claims: [ChunkReference] = [], pages: [[UInt8]] = []
    ) {
        (self.lastLog, self.namespace, self.request, self.claims, self.pages) = (lastLog, namespace, request, claims, pages)
    }

    func save(_ tree: Tree) throws {
        let body = try JSONEncoder().encode(request)
        let sealed = try JSONEncoder().encode(Sealed(claims: Data(Manifest.pack(claims)), pages: pages.map { Data($0) }))
        try tree.lock.withLock { () throws(FileSystemError) in
            try tree.change {
                try $0.execute(
                    sql: """
                        INSERT INTO outbox (namespace, last_log, request, sealed) VALUES (?, ?, ?, ?)
                        ON CONFLICT (namespace) DO UPDATE SET last_log = excluded.last_log, request = excluded.request, sealed = excluded.sealed
                        """, arguments: [namespace, lastLog, body, sealed])
            }
            try tree.commit()
        }
    }
}
