import Foundation
import Shared

/// Counts who refers to which chunk, within a commit's transaction.
///
/// Invariants (what `fsck` proves): a version refers to its inline chunks, or to its pages; a page with a reference refers to its chunks,
/// once however many versions name the page. `chunks.reference_count` counts all these. `namespace_chunks` counts the same for the
/// namespace alone, and a namespace's `used` is the sum of the lengths of the chunks that it has there.
final class ChunkLedger {
    private let sql: any SQLConnection
    private let namespace: NamespaceID
    private let counts: ChunkCounts

    init(_ sql: any SQLConnection, _ namespace: NamespaceID) {
        self.sql = sql
        self.namespace = namespace
        counts = ChunkCounts(sql, namespace)
    }

    // MARK: Validation

    /// Throws unless every content of the operations is well formed and made of what the namespace holds or the upload brought.
    func validate(_ operations: [NumberedOperation], _ upload: UploadID?, _ carried: [ChunkHash: UInt32]) throws {
        var missing: [ChunkHash] = []
        var checked: Set<ChunkReference> = [], checkedPages: Set<ChunkHash> = []
        func check(_ references: [ChunkReference]) throws {
            for reference in references where !reference.isHole && checked.insert(reference).inserted {
                if try carried[reference.hash] != reference.length && !isHeld(reference, upload) { missing.append(reference.hash) }
            }
        }
        for numbered in operations {
            guard case .content(_, let base, _, let content, _, _) = numbered.operation else { continue }
            var size: UInt64 = 0
            if let base { checked.formUnion(try references(of: base)) }
            if let inline = content.inline, content.pages == nil {
                let references = try unpack(Array(inline))
                guard references.count <= Manifest.maximumInlineCount else { throw DriveError.badRequest("A manifest of more than \(Manifest.maximumInlineCount) chunks needs pages.") }
                size = references.reduce(0) { $0 + UInt64($1.length) }
                try check(references)
            } else if let pages = content.pages, content.inline == nil {
                for (index, page) in pages.enumerated() {
                    guard let (references, isTrusted) = try pageReferences(page, upload) else {
                        missing.append(page)
                        continue
                    }
                    guard index == pages.count - 1 || references.count == Manifest.pageCount else { throw DriveError.badRequest("Only the last page may be short.") }
                    size += references.reduce(0) { $0 + UInt64($1.length) }
                    if !isTrusted, checkedPages.insert(page).inserted { try check(references) }
                }
                if !missing.isEmpty { continue }
            } else {
                throw DriveError.badRequest("A content is either inline or in pages.")
            }
            guard size == content.size else { throw DriveError.badRequest("The chunks' lengths do not add up to the size.") }
        }
        if !missing.isEmpty { throw DriveError.chunksMissing(missing) }
    }

    /// The inline chunks of one of the namespace's versions: it holds them.
    private func references(of version: VersionID) throws -> [ChunkReference] {
        guard let inline = try sql.first("""
            SELECT v.inline FROM versions v JOIN nodes n ON n.id = v.node WHERE v.id = $1 AND n.namespace = $2
            """, [.id(version), .id(namespace)])?.blob(0) else { return [] }
        return try unpack(inline)
    }

    private func unpack(_ packed: [UInt8]) throws -> [ChunkReference] {
        do { return try Manifest.unpack(packed) } catch { throw DriveError.badRequest("The manifest is malformed.") }
    }

    private func isHeld(_ reference: ChunkReference, _ upload: UploadID?) throws -> Bool {
        if let row = try sql.first("""
            SELECT c.length FROM namespace_chunks n JOIN chunks c ON c.hash = n.hash WHERE n.namespace = $1 AND n.hash = $2
            """, [.id(namespace), .hash(reference.hash)]) { return row.int(0) == Int64(reference.length) }
        guard let upload else { return false }
        return try sql.first("""
            SELECT u.length FROM upload_chunks u JOIN chunks c ON c.hash = u.hash WHERE u.upload = $1 AND u.hash = $2 AND u.is_stored = 1
            """, [.id(upload), .hash(reference.hash)])?.int(0) == Int64(reference.length)
    }

    private func pageReferences(_ page: ChunkHash, _ upload: UploadID?) throws -> (references: [ChunkReference], isTrusted: Bool)? {
        let isTrusted = try sql.first("SELECT 1 FROM namespace_pages WHERE namespace = $1 AND hash = $2", [.id(namespace), .hash(page)]) != nil
        if !isTrusted {
            guard let upload, try sql.first(
                "SELECT 1 FROM upload_pages WHERE upload = $1 AND hash = $2 AND is_stored = 1", [.id(upload), .hash(page)]) != nil else { return nil }
        }
        guard let data = try sql.first("SELECT data FROM manifest_pages WHERE hash = $1", [.hash(page)])?.blob(0) else { return nil }
        return (try unpack(data), isTrusted)
    }

    // MARK: Versions

    /// - Parameter windowStart: when the run of writes began that this version belongs to (`coalesce`).
    func addVersion(
        _ version: VersionID, of node: NodeID, _ content: Content, _ session: Session, _ device: String, _ time: Timestamp, modified: Timestamp,
        windowStart: Timestamp? = nil, kind: VersionInformation.Kind = .write, parents: [VersionID] = []
    ) throws {
        // Several of one commit, and those of a clock that was set back, keep their order.
        let last = try sql.first("SELECT max(created) FROM versions WHERE node = $1", [.id(node)]).flatMap { $0.isNull(0) ? nil : $0.time(0) }
        let created = max(time, last.map { Timestamp(nanoseconds: $0.nanoseconds + 1) } ?? time)
        try sql.execute("""
            INSERT INTO versions (id, node, size, inline, pages, author, device, device_id, created, modified, window_start, kind, parents)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
            """, [
                .id(version), .id(node), .int(content.size), content.inline.map { .blob(Array($0)) } ?? .null,
                content.pages.map { .blob($0.flatMap(\.bytes)) } ?? .null, .id(session.account), .text(device), .id(session.device), .time(created),
                .time(modified), .time(windowStart ?? time), .text(kind.rawValue), .blob(parents.flatMap(\.bytes)),
            ])
        try count(content, by: 1)
    }

    /// Versions up to this size that others took the place of stay a while, unseen: another device may have edited one of them, and a
    /// merge needs it. Bytes.
    static let mergeBaseBytes: Int64 = 256 << 10

    /// Of the versions that one device writes one after the other, one for each window of `seconds` stays in the history: files that are
    /// written again and again do not fill the disk.
    ///
    /// - Returns: when the window began that the next version belongs to, and what the next version's parents are.
    func coalesce(_ version: VersionID, device: DeviceID, _ time: Timestamp, seconds: Int64) throws -> (windowStart: Timestamp, parents: [VersionID]) {
        guard let row = try sql.first("SELECT device_id, window_start, name, kind, size, parents FROM versions WHERE id = $1", [.id(version)]),
              row.blob(0) == device.bytes, row.isNull(2), row.text(3) == VersionInformation.Kind.write.rawValue,
              time >= row.time(1), time < row.time(1).adding(seconds: seconds) else { return (time, [version]) }     // a clock that was set back ends it
        let answer = (row.time(1), VersionInformation.parents(row.blob(5) ?? []))
        let isKept = try row.int(4) <= Self.mergeBaseBytes || sql.first("""
            SELECT 1 FROM recent_changes WHERE version = $1 UNION ALL SELECT 1 FROM event_changes WHERE version = $1 LIMIT 1
            """, [.id(version)]) != nil
        if isKept {
            try sql.execute("UPDATE versions SET superseded = $1 WHERE id = $2", [.time(time), .id(version)])
        } else {
            try drop(version)
        }
        return answer
    }

    func dropVersions(of node: NodeID) throws {
        for row in try sql.query("SELECT id FROM versions WHERE node = $1", [.id(node)]) { try drop(try row.id(0)) }
    }

    func drop(_ version: VersionID) throws {
        guard let content = try NodeRow.content(sql, version) else { return }
        try sql.execute("DELETE FROM versions WHERE id = $1", [.id(version)])
        try count(content, by: -1)
    }

    // MARK: Counting

    /// Lets a version's content go from this namespace to another's; how often it is stored stays the same.
    func move(_ version: VersionID, to other: ChunkLedger) throws {
        guard let content = try NodeRow.content(sql, version) else { return }
        try hold(content, by: -1)
        try other.hold(content, by: 1)
    }

    private func hold(_ content: Content, by change: Int64) throws {
        if let inline = content.inline { counts.addHeld(try unpack(Array(inline)), change) }
        for page in content.pages ?? [] {
            guard let data = try sql.first("SELECT data FROM manifest_pages WHERE hash = $1", [.hash(page)])?.blob(0) else {
                throw DriveError.internalError("page \(page) is not there")
            }
            let held = try increase("namespace_pages", page, by: change)
            if held == 0 || held == 1 && change > 0 { counts.addHeld(try unpack(data), change) }
        }
    }

    private func count(_ content: Content, by change: Int64) throws {
        if let inline = content.inline {
            let chunks = try unpack(Array(inline))
            counts.addStored(chunks, change)
            counts.addHeld(chunks, change)
        }
        for page in content.pages ?? [] {
            guard let row = try sql.first("SELECT data, reference_count FROM manifest_pages WHERE hash = $1", [.hash(page)]), let data = row.blob(0) else {
                throw DriveError.internalError("page \(page) is not there")
            }
            let chunks = try unpack(data)
            let references = row.int(1) + change
            try sql.execute("UPDATE manifest_pages SET reference_count = $1 WHERE hash = $2", [.integer(references), .hash(page)])
            if references == 0 || references == 1 && change > 0 { counts.addStored(chunks, change) }
            let held = try increase("namespace_pages", page, by: change)
            if held == 0 || held == 1 && change > 0 { counts.addHeld(chunks, change) }
        }
    }

    /// Writes the counts of chunks. The last that a transaction does with a ledger.
    /// - Returns: the change of the namespace's used bytes.
    func settle() throws -> Int64 { try counts.settle() }

    /// - Returns: the count after the change; a row of 0 is removed.
    private func increase(_ table: String, _ hash: ChunkHash, by change: Int64) throws -> Int64 {
        let now = try sql.first("SELECT count FROM \(table) WHERE namespace = $1 AND hash = $2", [.id(namespace), .hash(hash)])?.int(0)
        let count = (now ?? 0) + change
        if now == nil {
            try sql.execute("INSERT INTO \(table) (namespace, hash, count) VALUES ($1, $2, $3)", [.id(namespace), .hash(hash), .integer(count)])
        } else if count == 0 {
            try sql.execute("DELETE FROM \(table) WHERE namespace = $1 AND hash = $2", [.id(namespace), .hash(hash)])
        } else {
            try sql.execute("UPDATE \(table) SET count = $1 WHERE namespace = $2 AND hash = $3", [.integer(count), .id(namespace), .hash(hash)])
        }
        return count
    }
}

extension VersionInformation {
    /// As the column holds them: 16 bytes each.
    static func parents(_ packed: [UInt8]) -> [VersionID] {
        stride(from: 0, to: packed.count, by: 16).compactMap { VersionID(bytes: packed[$0..<min($0 + 16, packed.count)]) }
    }
}
