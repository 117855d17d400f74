/// Decides how far to fetch ahead of one reader: the window starts when a read follows the one before, doubles with each chunk that
/// is entered in order, and closes when the reader seeks. The first read starts none: what it waits for comes the sooner, and
/// many a reader wants no more than a file's head.
struct ReadAhead: Sendable {
    static let maximumChunks = 16
    /// How many requests of its own length a sequential reader's request may lie away from where the one before ended.
    private static let outOfOrderRequests: Int64 = 8

    private var nextOffset: Int64 = 0
    /// Where the last read began: one that waited for its chunk comes a second time.
    private var lastOffset: Int64 = 0
    private var chunks = 0
    private var announced = 0

    /// - Returns: numbers of the 4 MiB to fetch now, nil when there is nothing to do.
    mutating func window(offset: Int64, count: Int) -> Range<Int>? {
        let stretch = Int(offset) / SlotTable.stretch
        defer { lastOffset = offset }
        if offset == lastOffset { return nil }
        // The kernel sends its own read-ahead in parallel, so that requests, which are long then, come a little out of order.
        let isSequential = abs(offset - nextOffset) <= min(Self.outOfOrderRequests * Int64(count), Int64(SlotTable.stretch))
        nextOffset = max(offset + Int64(count), isSequential ? nextOffset : 0)
        guard isSequential else {
            (chunks, announced) = (0, stretch)
            return nil
        }
        if chunks == 0 { (chunks, announced) = (2, max(announced, stretch)) }
        let end = stretch + 1 + chunks
        guard end > announced else { return nil }
        defer {
            announced = end
            chunks = min(chunks * 2, Self.maximumChunks)
        }
        return announced..<end
    }
}
