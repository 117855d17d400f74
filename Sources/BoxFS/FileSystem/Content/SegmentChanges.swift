import Shared

/// Where a segment differs from the sealed chunk that it was made from: what has to travel when the server has that chunk.
struct SegmentChanges: Sendable, Equatable {
    let base: ChunkReference
    /// Rising, with gaps between them. Bytes from the segment's start.
    private(set) var ranges: [Range<Int>] = []

    init(base: ChunkReference) { self.base = base }

    /// Ranges that are kept apart, and bytes in all of them; what goes beyond is sent as a whole chunk.
    static let maximumRanges = 64, maximumBytes = 512 << 10

    /// - Returns: false when the changes have become too many to be worth telling.
    mutating func add(_ range: Range<Int>) -> Bool {
        let first = ranges.firstIndex { $0.upperBound >= range.lowerBound } ?? ranges.count
        var last = first, merged = range
        while last < ranges.count, ranges[last].lowerBound <= range.upperBound {
            merged = min(merged.lowerBound, ranges[last].lowerBound)..<max(merged.upperBound, ranges[last].upperBound)
            last += 1
        }
        ranges.replaceSubrange(first..<last, with: CollectionOfOne(merged))
        return ranges.count <= Self.maximumRanges && ranges.reduce(0) { $0 + $1.count } <= Self.maximumBytes
    }

    /// What makes the chunk of a part of the segment of the base (`ChunkDelta`).
    func delta(of range: Range<Int>, in segment: Segment) throws(FileSystemError) -> [UInt8] {
        var body: [UInt8] = []
        for changed in ranges where changed.overlaps(range) {
            let piece = changed.clamped(to: range)
            body += ChunkDelta.header(piece.lowerBound - range.lowerBound..<piece.upperBound - range.lowerBound)
            body += try segment.bytes(piece)
        }
        return body
    }
}
