import Foundation
import GRDB
import Shared

/// A row of the table `segments`.
struct SegmentRow {
    let slot: Int
    /// In `dirty/`: the segment, or a patch's log.
    let file: Int64
    var length: Int
    /// Of a patch.
    var pieces: [Patch.Piece]?
    let base: Int64?
    let baseLength: Int
    let origin: ChunkReference?
    /// Where the newest piece lies, as far as this process put it there: no two changes of a patch leave the same.
    private let newest: Int

    private static let columns = "slot, file, length, pieces, base, base_length, origin"

    static func fetchAll(_ database: Database, inode: Int64) throws -> [SegmentRow] {
        try Row.fetchAll(database.cachedStatement(sql: "SELECT \(columns) FROM segments WHERE inode = ?"), arguments: [inode]).map(Self.init)
    }

    static func fetchAll(_ database: Database, namespace: Int64) throws -> [SegmentRow] {
        try Row.fetchAll(database, sql: "SELECT \(columns) FROM segments WHERE inode IN (SELECT inode FROM nodes WHERE namespace = ?)", arguments: [namespace])
            .map(Self.init)
    }

    /// - Parameter row: the columns of the table behind `inode`, in their order.
    init(_ row: Row) throws {
        slot = Int(row["slot"] as Int64)
        file = row["file"]
        length = Int(row["length"] as Int64)
        pieces = try (row["pieces"] as Data?).map(Self.unpack)
        base = row["base"]
        baseLength = Int(row["base_length"] as Int64? ?? 0)
        origin = try (row["origin"] as Data?).flatMap { try Manifest.unpack($0).first }
        newest = 0
    }

    init(_ slot: Int, _ segment: Segment) {
        (self.slot, file, length) = (slot, segment.file, segment.length)
        (pieces, base, baseLength) = (segment.patch?.pieces, segment.patch?.base.file, segment.patch?.base.length ?? 0)
        newest = segment.patch?.newest ?? 0
        origin = segment.origin
    }

    var files: [Int64] { [file] + (base.map { [$0] } ?? []) }
    /// What its owner asks the cache's room for.
    var reservedBytes: Int64 { Int64(pieces.map { $0.reduce(0) { $0 + $1.count } } ?? length) + Int64(baseLength) }
    /// What differs when the row has to be written.
    var saved: FileContent.SavedSegment { FileContent.SavedSegment(file: file, length: length, base: base, newest: newest, origin: origin?.hash) }

    /// How far a segment that is no patch goes: no further than its file, but as far as that if it holds the end of the whole. What was
    /// appended since the row was written, fdatasync(2) may have promised (`FileContent.areRowsEnough`).
    /// - Parameters:
    ///   - held: bytes of the segment's file.
    ///   - size: of the whole, as its own row says.
    func length(held: Int, size: UInt64) -> Int {
        let mayGrow = origin == nil && FileContent.mayGrow(slot: slot, length: length, size: size)
        return min(held, mayGrow ? FileContent.slotByteCount : length)
    }

    func save(_ database: Database, inode: Int64) throws {
        try database.cachedStatement(sql: """
            INSERT INTO segments (inode, slot, file, length, pieces, base, base_length, origin) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (inode, slot) DO UPDATE SET file = excluded.file, length = excluded.length, pieces = excluded.pieces, base = excluded.base,
                base_length = excluded.base_length, origin = excluded.origin
            """).execute(arguments: [inode, slot, file, length, pieces.map(Self.pack), base, base.map { _ in baseLength }, origin.map { Data(Manifest.pack([$0])) }])
    }

    /// - Parameters:
    ///   - extent: bytes of the slot in the file. A commit may have caught a write half-way: what it added beyond was never answered.
    ///   - logs: by file, those of the rows before.
    func segment(_ store: SegmentStore, extent: Int, _ logs: inout [Int64: Segment]) -> Segment {
        let length = min(length, extent)
        guard let pieces, let base else {
            let segment = Segment(file: file, length: length, store: store)
            segment.reserved = length       // counted since it was written, or since `Tree.recover`
            segment.isFrozen = true         // it may have been linked into the cache before this process began
            (segment.wasSynced, segment.origin) = (origin == nil, origin)
            return segment
        }
        let log = logs[file] ?? Segment(file: file, length: 0, store: store)
        logs[file] = log
        log.isSuperseded = true
        log.length = max(log.length, pieces.map { $0.position + $0.count }.max() ?? 0)
        let bottom = Segment(file: base, length: min(baseLength, extent), store: store)
        (bottom.isFrozen, bottom.isSuperseded, bottom.reserved) = (true, true, baseLength)
        let within = pieces.compactMap { piece in
            piece.start < extent ? Patch.Piece(start: piece.start, count: min(piece.count, extent - piece.start), position: piece.position) : nil
        }
        let segment = Segment(Patch(base: bottom, log: log, pieces: within), length: length)
        segment.reserved = within.reduce(0) { $0 + $1.count }
        (log.wasSynced, segment.origin) = (log.wasSynced || origin == nil, origin)
        return segment
    }

    // MARK: Pieces: start, count and position, four bytes each, little-endian

    private static func pack(_ pieces: [Patch.Piece]) -> Data {
        var data = Data(capacity: pieces.count * 12)
        for piece in pieces {
            for number in [piece.start, piece.count, piece.position] { withUnsafeBytes(of: UInt32(number).littleEndian) { data.append(contentsOf: $0) } }
        }
        return data
    }

    private static func unpack(_ data: Data) throws -> [Patch.Piece] {
        guard data.count.isMultiple(of: 12) else { throw FileSystemError.io }
        return data.withUnsafeBytes { bytes in
            func number(_ at: Int) -> Int { Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self))) }
            return stride(from: 0, to: bytes.count, by: 12).map { Patch.Piece(start: number($0), count: number($0 + 4), position: number($0 + 8)) }
        }
    }
}
