import Foundation
import GRDB
import Shared

/// A row of the table `segments`.
struct SegmentRow {
    /// Where its slot begins, bytes from the file's start.
    let start: Int
    /// In `dirty/`: the segment, or a patch's log; 0: `bytes` are the segment.
    var file: Int64
    let bytes: Data?
    private let revision: Int
    var length: Int
    /// Of a patch: how far its log had come with it when the row was written. What follows there counts as well.
    var known: Int
    let base: Int64?
    let baseLength: Int
    let origin: ChunkReference?
    /// Of a patch that a version before format 4 wrote: its log has no records (`Tree.recoverSegments` writes them).
    let before4: [PieceRecord]?

    private static let columns = "start, file, length, known, base, base_length, origin, bytes"

    static func fetchAll(_ database: Database, inode: Int64) throws -> [SegmentRow] {
        try Row.fetchAll(database.cachedStatement(sql: "SELECT \(columns) FROM segments WHERE inode = ?"), arguments: [inode]).map(Self.init)
    }

    static func fetchAll(_ database: Database, namespace: Int64) throws -> [SegmentRow] {
        try Row.fetchAll(database, sql: "SELECT \(columns) FROM segments WHERE inode IN (SELECT inode FROM nodes WHERE namespace = ?)", arguments: [namespace])
            .map(Self.init)
    }

    /// - Parameter row: the columns of the table behind `inode`, in their order.
    init(_ row: Row) throws {
        // A damaged replica of format 6 or before names a slot by its number (`ReplicaRepair`).
        start = (row["start"] as Int64?).map { Int($0) } ?? Int(row["slot"] as Int64) * SlotTable.stretch
        file = row["file"]
        (bytes, revision) = (row["bytes"], 0)
        length = Int(row["length"] as Int64)
        known = Int(row["known"] as Int64? ?? 0)
        base = row["base"]
        baseLength = Int(row["base_length"] as Int64? ?? 0)
        origin = try (row["origin"] as Data?).flatMap { try Manifest.unpack($0).first }
        before4 = try (row["pieces"] as Data?).flatMap { [base] pieces in try base.map { try Self.unpack(pieces, $0) } }
    }

    init(_ start: Int, _ segment: Segment) {
        (self.start, file, length) = (start, segment.file, segment.length)
        (known, base, baseLength) = (segment.patch?.newest ?? 0, segment.patch?.base.file, segment.patch?.base.length ?? 0)
        // What is replaced goes with the row that holds the bytes, or stays with the row that was before.
        origin = segment.held == nil ? segment.origin : nil
        (bytes, revision) = (segment.held.map { Data($0) }, segment.revision)
        before4 = nil
    }

    var files: [Int64] { bytes == nil ? [file] + (base.map { [$0] } ?? []) : [] }
    /// What a patch's log holds of it.
    /// - Parameter log: by base.
    func records(_ log: [Int64: [PieceRecord]]) -> [PieceRecord] { before4 ?? base.flatMap { log[$0] } ?? [] }
    /// What its owner asks the cache's room for.
    /// - Parameter records: of a patch.
    func reservedBytes(_ records: [PieceRecord]) -> Int64 { Int64(base == nil ? length : records.reduce(baseLength) { $0 + $1.range.count }) }
    /// What differs when the row has to be written.
    var saved: FileContent.SavedSegment { FileContent.SavedSegment(file: file, length: length, base: base, known: known, origin: origin?.hash, revision: revision) }

    /// How far a segment that is no patch goes: no further than its file, but as far as that if it holds the end of the whole. What was
    /// appended since the row was written, fdatasync(2) may have promised (`FileContent.areRowsEnough`).
    /// - Parameters:
    ///   - held: bytes of the segment's file.
    ///   - size: of the whole, as its own row says.
    func length(held: Int, size: UInt64) -> Int {
        let mayGrow = origin == nil && FileContent.mayGrow(from: start, length: length, size: size)
        return min(held, mayGrow ? SlotTable.stretchEnd(start) - start : length)
    }

    func save(_ rows: RowChanges, inode: Int64) throws {
        try rows.execute(sql: """
            INSERT INTO segments (inode, start, file, length, known, base, base_length, origin, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (inode, start) DO UPDATE SET file = excluded.file, length = excluded.length, known = excluded.known, base = excluded.base,
                base_length = excluded.base_length, origin = excluded.origin, bytes = excluded.bytes
            """, arguments: [
                inode, start, file, length, base.map { _ in known }, base, base.map { _ in baseLength }, origin.map { Data(Manifest.pack([$0])) }, bytes,
            ])
    }

    /// - Parameters:
    ///   - extent: bytes of the slot in the file. A commit may have caught a write half-way: what it added beyond was never answered.
    ///   - logs: by file, those of the rows before.
    func segment(_ store: SegmentStore, extent: Int, _ logs: inout [Int64: Log]) -> Segment {
        let length = min(length, extent)
        if let bytes {
            let segment = Segment(holding: Array(bytes.prefix(length)), store: store, revision: 0)
            (segment.reserved, segment.wasSynced) = (length, true)
            return segment
        }
        guard let base else {
            let segment = Segment(file: file, length: length, store: store)
            segment.reserved = length       // counted since it was written, or since `Tree.recover`
            segment.isFrozen = true         // it may have been linked into the cache before this process began
            (segment.wasSynced, segment.origin) = (origin == nil, origin)
            return segment
        }
        let log = logs[file] ?? Log(file, store)
        logs[file] = log
        let bottom = Segment(file: base, length: min(baseLength, extent), store: store)
        (bottom.isFrozen, bottom.isSuperseded, bottom.reserved) = (true, true, baseLength)
        let records = records(log.byBase)
        let segment = Segment(Patch(base: bottom, log: log.segment, records: records), length: length)
        segment.reserved = records.reduce(0) { $0 + $1.range.count }
        (log.segment.wasSynced, segment.origin) = (log.segment.wasSynced || origin == nil, origin)
        return segment
    }

    /// A log of pieces that is read again.
    struct Log {
        let segment: Segment
        let byBase: [Int64: [PieceRecord]]

        init(_ file: Int64, _ store: SegmentStore) {
            let (byBase, end) = PieceRecord.readAll(store.path(file))
            self.byBase = byBase
            segment = Segment(file: file, length: end, store: store)
            segment.isSuperseded = true
        }
    }

    /// Start, count and position, four bytes each, little-endian.
    private static func unpack(_ data: Data, _ base: Int64) throws -> [PieceRecord] {
        guard data.count.isMultiple(of: 12) else { throw FileSystemError.io }
        return data.withUnsafeBytes { bytes in
            func number(_ at: Int) -> Int { Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self))) }
            return stride(from: 0, to: bytes.count, by: 12).map {
                PieceRecord(base: base, range: number($0)..<number($0) + number($0 + 4), time: Timestamp(nanoseconds: 0), position: number($0 + 8))
            }
        }
    }
}

/// The logs that rows name, each read once: the slots of a file share one.
struct PieceLogs {
    /// What a log's file holds, by base.
    private let read: (Int64) -> [Int64: [PieceRecord]]
    private var known: [Int64: [Int64: [PieceRecord]]] = [:]

    init(_ read: @escaping (Int64) -> [Int64: [PieceRecord]]) { self.read = read }

    /// What the log holds of a row's patch; nothing of a row that is none.
    mutating func records(of row: SegmentRow) -> [PieceRecord] {
        guard row.base != nil, row.before4 == nil else { return row.records([:]) }
        let log = known[row.file] ?? read(row.file)
        known[row.file] = log
        return row.records(log)
    }
}
