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
    /// A file that is only appended to, but for `piece(holding:)`. Its `length` is where the next piece goes.
    let log: Segment
    /// Sorted, without overlap.
    private(set) var pieces: [Piece]
    /// The end of the newest piece in the log; 0: none was put yet.
    private(set) var newest = 0
    /// Pieces from this position of the log on are no other patch's.
    private let own: Int

    /// A patched slot has at least this many bytes, so that less is copied than a patch costs.
    static let minimumBaseBytes = 256 << 10
    /// The longest write that becomes a piece, the bytes of a slot's pieces, and of the log: what goes beyond is copied into a segment.
    static let maximumWriteBytes = 64 << 10, maximumBytes = 512 << 10, maximumPieces = 1024, maximumLogBytes = 16 << 20

    /// - Parameter pieces: in any order; of another patch over the same base, or from rows.
    init(base: Segment, log: Segment, pieces: [Piece] = []) {
        self.base = base
        self.log = log
        self.pieces = pieces.sorted { $0.start < $1.start }
        own = log.length
    }

    var byteCount: Int { pieces.reduce(0) { $0 + $1.count } }

    /// Whether a write may become a piece.
    func hasRoom(for range: Range<Int>) -> Bool {
        range.count <= Self.maximumWriteBytes && pieces.count < Self.maximumPieces && log.length + range.count <= Self.maximumLogBytes
            && byteCount + range.count <= Self.maximumBytes
    }

    /// The piece that holds all of `range` and may be overwritten where it lies.
    func piece(holding range: Range<Int>) -> Piece? {
        guard let piece = pieces(in: range).first, piece.position >= own, piece.start <= range.lowerBound, piece.end >= range.upperBound else { return nil }
        return piece
    }

    /// Those that have bytes of `range`.
    func pieces(in range: Range<Int>) -> ArraySlice<Piece> {
        let first = firstIndex { $0.end > range.lowerBound }
        return pieces[first...].prefix { $0.start < range.upperBound }
    }

    /// The bytes of `range` are at `position` of the log from now on.
    mutating func put(_ range: Range<Int>, at position: Int) {
        newest = position + range.count
        let overlapped = pieces(in: range)
        var fresh: [Piece] = []
        if let first = overlapped.first, first.start < range.lowerBound {
            fresh.append(Piece(start: first.start, count: range.lowerBound - first.start, position: first.position))
        }
        fresh.append(Piece(start: range.lowerBound, count: range.count, position: position))
        if let last = overlapped.last, last.end > range.upperBound {
            fresh.append(Piece(start: range.upperBound, count: last.end - range.upperBound, position: last.position + range.upperBound - last.start))
        }
        pieces.replaceSubrange(overlapped.startIndex..<overlapped.endIndex, with: fresh)
        joinPiece(from: max(0, overlapped.startIndex - 1), count: fresh.count + 1)
    }

    /// Makes one piece of those that follow each other in the slot and in the log, as a sequential writer leaves them.
    private mutating func joinPiece(from index: Int, count: Int) {
        var at = index
        for _ in 0..<count where at + 1 < pieces.count {
            let (left, right) = (pieces[at], pieces[at + 1])
            // Never over the border of what is another patch's as well.
            guard left.end == right.start, left.position + left.count == right.position, right.position != own else {
                at += 1
                continue
            }
            pieces[at].count += right.count
            pieces.remove(at: at + 1)
        }
    }

    /// Binary search, as `pieces` is sorted: the first that fulfils what all behind it fulfil.
    private func firstIndex(where isBehind: (Piece) -> Bool) -> Int {
        var low = 0, high = pieces.count
        while low < high {
            let middle = (low + high) / 2
            if isBehind(pieces[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
