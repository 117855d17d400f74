import ChunkCache
import Foundation
import GRDB
import Glibc
import Shared

/// Takes a state folder whose database is damaged apart, so that the next mount makes a new replica from the server.
///
/// Nothing is deleted. Order: 1. what the damaged database still says of unsent content is put together in `rescue/`; 2. where it cannot be
/// read whole, cached chunks that the server does not know are copied there, too; 3. the database and `dirty/` move to `damaged TIME/`. A
/// crash before 3 changes nothing but a folder in `rescue/`, and a database that can be written has what its journal held. The chunk cache stays: its files are the truth.
struct ReplicaRepair {
    struct Report: Codable, Sendable {
        /// Why the database cannot be used; nil: it can, and nothing was done.
        var damage: String?
        /// Where the unsent content lies now; nil: there was none.
        var rescue: String?
        /// Paths below `rescue` of files that are whole, and of those of which parts are only on the server or gone.
        var kept: [String] = [], incomplete: [String] = []
        /// Pieces of files that no readable row names, under `rescue`/segments.
        var loosePieces = 0
        /// Changes of names and attributes that were not sent: they are lost.
        var lostChanges = 0
        /// Tables that could not be read to their end: there may be more than what is said here.
        var unreadable: [String] = []
        /// The database, with what its journal held, and the segments.
        var aside: String?
    }

    private let folder: String
    private var places: [Int64: (parent: Int64, name: String)]?
    /// What the chunk cache holds: listed only once something is damaged.
    private lazy var cached = (try? ChunkCache.files(in: folder + "/cache")) ?? [:]
    /// Chunks that are part of what was kept.
    private var used: Set<ChunkHash> = []
    private let time = ISO8601DateFormatter().string(from: Date()).replacing(":", with: ".")
    private var report = Report()

    /// - Parameters:
    ///   - folder: a state folder that the caller has locked.
    ///   - unknown: which of these chunks the server does not have. Asked only when rows are missing; when it throws, nothing was changed.
    static func run(_ folder: String, unknown: ([ChunkReference]) throws -> Set<ChunkHash>) throws -> Report {
        var repair = ReplicaRepair(folder: folder)
        repair.report.damage = try damage(folder)
        guard repair.report.damage != nil else { return repair.report }
        try repair.rescue()
        if !repair.report.unreadable.isEmpty { try repair.keepChunks(unknown) }
        try repair.setAside()
        return repair.report
    }

    private init(folder: String) { self.folder = folder }

    /// Why the database cannot be used.
    static func damage(_ folder: String) throws -> String? {
        guard access(folder + "/replica.db", F_OK) == 0 else { return hasSegments(folder) ? "replica.db is missing." : nil }
        do {
            let database = try ReplicaDatabase(path: folder + "/replica.db")
            defer { database.close() }
            let found = try database.read { database in
                // Whoever damaged it may have left pages that are in order and say something else.
                guard try String.fetchOne(database, sql: "SELECT value FROM meta WHERE key = 'namespace'") != nil else { return "replica.db is empty." }
                return try String.fetchOne(database, sql: "PRAGMA integrity_check(1)") ?? ""
            }
            return found == "ok" ? nil : found
        } catch let error as ReplicaDatabase.ReplicaFormatError where error.found == ReplicaDatabase.formatVersion + 1 || error.found == 1 {
            throw error         // another version's, not damaged
        } catch { return "replica.db cannot be read (\((error as? DatabaseError)?.message ?? "\(error)"))." }
    }

    static func hasSegments(_ folder: String) -> Bool {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder + "/dirty")) ?? []
        return names.contains { size("\(folder)/dirty/\($0)") > 0 }
    }

    private static func size(_ path: String) -> Int {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_size) : 0
    }

    // MARK: What can be read

    /// Rows from both ends of a table, as far as each can be read.
    private mutating func rows(_ database: Database, _ table: String, _ columns: String, key: String) -> [Row] {
        var found: [Row] = [], isWhole = true
        for order in ["ASC", "DESC"] {
            do {
                let ordered = key.split(separator: ",").map { "\($0) \(order)" }.joined(separator: ",")
                let cursor = try Row.fetchCursor(database, sql: "SELECT \(columns) FROM \(table) ORDER BY \(ordered)")
                while let row = try cursor.next() { found.append(row.copy()) }
                break
            } catch { isWhole = false }
        }
        if !isWhole { note(unreadable: table) }
        return found
    }

    private mutating func note(unreadable table: String) {
        if !report.unreadable.contains(table) { report.unreadable.append(table) }
    }

    /// Sealed data that was not sent lies among the cached chunks, and nothing but the database said which.
    private mutating func keepChunks(_ unknown: ([ChunkReference]) throws -> Set<ChunkHash>) throws {
        let chunks = cached.filter { !used.contains($0.key) }.map { ChunkReference(hash: $0.key, length: UInt32($0.value.length)) }
        guard !chunks.isEmpty else { return }
        for hash in try unknown(chunks) {
            guard let file = cached[hash] else { continue }
            try Self.copy(file.path, from: file.offset, to: try target("segments/\(hash)"), at: 0, count: file.length)
            report.loosePieces += 1
        }
    }

    private mutating func rescue() throws {
        var segments: [Int64: [Int: SegmentRow]] = [:]
        var named: Set<Int64> = []
        do {
            let queue = try DatabaseQueue(path: folder + "/replica.db")
            defer { try? queue.close() }
            try queue.inDatabase { database in
                try? database.execute(sql: "PRAGMA locking_mode = EXCLUSIVE")
                StatementJournal.salvage(folder + "/replica.db-statements", database)
                for row in rows(database, "segments", "*", key: "1,2") {     // the second is `slot` before format 7
                    guard let segment = try? SegmentRow(row) else { continue }
                    segments[row[0], default: [:]][segment.start] = segment
                }
                var inodes = Set(segments.keys), changes: Set<Int64> = []
                for row in rows(database, "log", "id, kind, inode", key: "id") {
                    if row[1] as Int64 == LogKind.content.rawValue { inodes.insert(row[2]) } else { changes.insert(row[0]) }
                }
                report.lostChanges = changes.count
                for inode in inodes.sorted() {
                    let path = path(database, inode)
                    let files = segments[inode] ?? [:]
                    let node = try? Row.fetchOne(database, sql: "SELECT size, links FROM nodes WHERE inode = ?", arguments: [inode])
                    if let node, node[1] as Int64 == 0 { continue }      // removed
                    if node == nil { note(unreadable: "nodes") }
                    let isWhole = (try? put(path, inode, size: node.map { Int($0[0] as Int64) }, files, database)) ?? false
                    if isWhole, node != nil { report.kept.append(path) } else { report.incomplete.append(path) }
                    for segment in files.values { named.formUnion(segment.files) }
                }
            }
        } catch { note(unreadable: "replica.db") }
        for name in (try? FileManager.default.contentsOfDirectory(atPath: folder + "/dirty")) ?? [] {
            guard let file = Int64(name), !named.contains(file), Self.size("\(folder)/dirty/\(name)") > 0 else { continue }
            try Self.copy("\(folder)/dirty/\(name)", to: try target("segments/\(name)"), at: 0, count: nil)
            report.loosePieces += 1
        }
    }

    /// Where the inode stood, as far up as can be read.
    private mutating func path(_ database: Database, _ inode: Int64) -> String {
        var parts: [String] = [], at = inode
        while at != 1, parts.count < 100 {
            guard let (parent, name) = place(database, at) else {
                parts.append("inode \(at)")
                break
            }
            parts.append(name)
            at = parent
        }
        return parts.reversed().joined(separator: "/")
    }

    private mutating func place(_ database: Database, _ inode: Int64) -> (parent: Int64, name: String)? {
        if places == nil {
            do {
                let row = try Row.fetchOne(database, sql: "SELECT parent, name FROM entries WHERE inode = ?", arguments: [inode])
                return row.map { ($0[0], $0[1]) }
            } catch {   // the index is damaged: the table may tell
                let entries = rows(database, "entries", "inode, parent, name", key: "parent,name")
                places = Dictionary(entries.map { ($0[0], ($0[1], $0[2])) }, uniquingKeysWith: { first, _ in first })
            }
        }
        return places?[inode]
    }

    /// A path in the rescue folder whose folder is there.
    private mutating func target(_ path: String) throws -> String {
        let rescue = report.rescue ?? "\(folder)/rescue/repair \(time)"
        report.rescue = rescue
        let target = "\(rescue)/\(path)"
        try FileManager.default.createDirectory(
            atPath: (target as NSString).deletingLastPathComponent, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        return target
    }

    /// - Returns: whether all bytes were here.
    private mutating func put(
        _ path: String, _ inode: Int64, size: Int?, _ segments: [Int: SegmentRow], _ database: Database
    ) throws -> Bool {
        let target = try target(path)
        var isWhole = true, at = 0, size = size
        guard FileManager.default.createFile(atPath: target, contents: nil, attributes: [.posixPermissions: 0o600]) else { return false }
        do {
            for packed in try Data.fetchAll(database, sql: "SELECT packed FROM manifests WHERE inode = ? ORDER BY page", arguments: [inode]) {
                for chunk in try Manifest.unpack(packed) {
                    defer { at += Int(chunk.length) }
                    guard !chunk.isHole, segments[at] == nil else { continue }
                    guard let file = cached[chunk.hash], file.length == chunk.length, file.hash() == chunk.hash else {
                        isWhole = false
                        continue
                    }
                    try Self.copy(file.path, from: file.offset, to: target, at: at, count: file.length)
                    used.insert(chunk.hash)
                }
            }
        } catch {
            isWhole = false
            note(unreadable: "manifests")
        }
        var logs = PieceLogs { [folder] in PieceRecord.readAll("\(folder)/dirty/\($0)").byBase }
        for (start, segment) in segments {
            if let bytes = segment.bytes {
                try Self.write(bytes, to: target, at: start)
                continue
            }
            let beneath = segment.base ?? segment.file, held = Self.size("\(folder)/dirty/\(beneath)")
            var count = segment.base == nil ? segment.length : segment.baseLength
            if held < count { isWhole = false }
            if segment.base == nil, let whole = size {
                count = segment.length(held: held, size: UInt64(whole))
                if count > segment.length { size = start + count }
            }
            try Self.copy("\(folder)/dirty/\(beneath)", to: target, at: start, count: count)
            guard segment.base != nil else { continue }
            let log = "\(folder)/dirty/\(segment.file)", length = Self.size(log), records = logs.records(of: segment)
            if records.last?.end ?? 0 < segment.known || records.contains(where: { $0.end > length }) { isWhole = false }
            for record in records where record.end <= length {
                try Self.copy(log, from: record.position, to: target, at: start + record.range.lowerBound, count: record.range.count)
            }
        }
        if let size { guard truncate(target, off_t(size)) == 0 else { return false } }
        return isWhole
    }

    private static func write(_ bytes: Data, to target: String, at offset: Int) throws {
        let file = open(target, O_WRONLY | O_CLOEXEC)
        defer { if file >= 0 { close(file) } }
        guard file >= 0 else { throw FileSystemError.io }
        try bytes.withUnsafeBytes { try writeFully(file, $0, at: offset) }
        guard fsync(file) == 0 else { throw FileSystemError.io }
    }

    private static func copy(_ source: String, from start: Int = 0, to target: String, at offset: Int, count: Int?) throws {
        let from = open(source, O_RDONLY | O_CLOEXEC), to = open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        defer { for file in [from, to] where file >= 0 { close(file) } }
        guard from >= 0, to >= 0 else { throw FileSystemError.io }
        try copyBytes(from: from, at: start, to: to, at: offset, count: min(count ?? .max, size(source) - start))
        guard fsync(to) == 0 else { throw FileSystemError.io }
    }

    // MARK: Making way

    private mutating func setAside() throws {
        let aside = "\(folder)/damaged \(time)"
        try FileManager.default.createDirectory(atPath: aside, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        for name in ["replica.db-wal", "replica.db-shm", "replica.db-statements", "dirty", "replica.db"] where access("\(folder)/\(name)", F_OK) == 0 {
            guard rename("\(folder)/\(name)", "\(aside)/\(name)") == 0 else { throw FileSystemError.io }
        }
        report.aside = aside
    }
}
