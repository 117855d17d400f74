/// A slot's few changes over bytes that stay as they are: pieces, which lie in a log that the slots of a file share.
///
/// A write of some kilobytes into a sealed or frozen slot would otherwise copy all of it, and fsync(2) would wait for the copies.
struct Patch: Sendable {
    struct Piece: Sendable, Equatable {
        /// Bytes from the slot's start.
        var start: Int
        var count: Int
        /// Where they lie in the log.
        var position: Int

        var end: Int { start + count }
        var range: Range<Int> { start..<end }
    }

    /// An unchanging file with the bytes beneath: a frozen segment, or one more name of a chunk's file.
    let base: Segment
    /// A file of `PieceRecord`s that is only appended to. Its `length` is where the next one goes.
    let log: Segment
    /// Sorted, without overlap.
    private(set) var pieces: [Piece] = []
    /// The end of the newest record in the log; 0: there is none.
    private(set) var newest = 0

    /// A patched slot has at least this many bytes, so that less is copied than a patch costs.
    static let minimumBaseBytes = 256 << 10
    /// The longest write that becomes a piece, the bytes of a slot's pieces, and of the log: what goes beyond is copied into a segment.
    static let maximumWriteBytes = 64 << 10, maximumBytes = 512 << 10, maximumPieces = 1024, maximumLogBytes = 16 << 20

    /// - Parameter records: what the log holds for the base.
    init(base: Segment, log: Segment, records: [PieceRecord] = []) {
        (self.base, self.log) = (base, log)
        for record in records { put(record) }
    }

    var byteCount: Int { pieces.reduce(0) { $0 + $1.count } }

    /// Whether a write may become a piece.
    func hasRoom(for range: Range<Int>) -> Bool {
        range.count <= Self.maximumWriteBytes && pieces.count < Self.maximumPieces && Self.hasRoom(in: log, for: range)
            && byteCount + range.count <= Self.maximumBytes
    }

    static func hasRoom(in log: Segment, for range: Range<Int>) -> Bool {
        log.length + PieceRecord.headByteCount + range.count <= maximumLogBytes
    }

    /// Those that have bytes of `range`.
    func pieces(in range: Range<Int>) -> ArraySlice<Piece> {
        let first = pieces.partitioningIndex { $0.end > range.lowerBound }
        return pieces[first...].prefix { $0.start < range.upperBound }
    }

    /// A record of the log counts from now on.
    mutating func put(_ record: PieceRecord) {
        let range = record.range
        newest = record.end
        let overlapped = pieces(in: range)
        var fresh: [Piece] = []
        if let first = overlapped.first, first.start < range.lowerBound {
            fresh.append(Piece(start: first.start, count: range.lowerBound - first.start, position: first.position))
        }
        fresh.append(Piece(start: range.lowerBound, count: range.count, position: record.position))
        if let last = overlapped.last, last.end > range.upperBound {
            fresh.append(Piece(start: range.upperBound, count: last.end - range.upperBound, position: last.position + range.upperBound - last.start))
        }
        pieces.replaceSubrange(overlapped.startIndex..<overlapped.endIndex, with: fresh)
    }

    // MARK: Sealing

    /// What was edited becomes chunks of multiples of this, bytes: about what a request costs anyway.
    static let grainBytes = 64 << 10
    /// Shorter slots stay whole, and those of which more than this share was edited.
    static let minimumSplitBytes = 1 << 20, maximumEditedShare = 1.0 / 8

    /// The chunks that a slot becomes: what was edited apart from what was not, so that the next edit at the same place concerns a short chunk.
    /// One, if the slot is short or was edited all over.
    /// - Parameters:
    ///   - length: of the slot, bytes.
    ///   - count: chunks at most.
    func parts(length: Int, atMost count: Int) -> [Range<Int>] {
        let whole = [0..<length]
        guard length >= Self.minimumSplitBytes else { return whole }
        var edited = RangeSet<Int>()
        for piece in pieces where piece.start < length {
            var range = piece.start / Self.grainBytes * Self.grainBytes..<min(length, (piece.end + Self.grainBytes - 1) / Self.grainBytes * Self.grainBytes)
            if length - range.upperBound < Self.grainBytes { range = range.lowerBound..<length }
            edited.insert(contentsOf: range)
        }
        guard Double(edited.ranges.reduce(0) { $0 + $1.count }) <= Double(length) * Self.maximumEditedShare else { return whole }
        let borders = Set(edited.ranges.flatMap { [$0.lowerBound, $0.upperBound] } + [0, length]).sorted()
        let parts = zip(borders, borders.dropFirst()).map { $0..<$1 }
        return parts.count <= count ? parts : whole
    }
}
