import Shared

/// What lies in one stretch of a file, the slot.
enum Slot: Sendable {
    case hole
    /// Sealed data; what the chunk does not fill up to the slot's end is zeros.
    case chunk(ChunkReference)
    /// Written since.
    case segment(Segment)

    var segment: Segment? { if case .segment(let segment) = self { segment } else { nil } }
    var chunk: ChunkReference? { if case .chunk(let chunk) = self { chunk } else { nil } }
}

/// A file's slots in order, and where they begin: at each multiple of 4 MiB, and at cuts in between, which sealing makes around what was edited
/// in place (`Patch.parts`). So the next edit there concerns a short chunk.
///
/// Borders are where they are whether there are as many slots yet or not; each cut lies within the file.
struct SlotTable: RandomAccessCollection, MutableCollection, Sendable {
    static let stretch = Manifest.maximumChunkByteCount

    private var slots: [Slot] = []
    /// Bytes from the file's start, rising; none is a multiple of `stretch`.
    private(set) var cuts: [Int] = []

    init() {}

    /// - Returns: nil if a chunk crosses a multiple of 4 MiB: no BoxFS of this version writes such a manifest.
    init?(_ chunks: [ChunkReference]) {
        var at = 0
        for chunk in chunks {
            let end = at + Int(chunk.length)
            while at < end {
                let part = Swift.min(end, Self.stretchEnd(at)) - at
                guard chunk.isHole || part == chunk.length else { return nil }
                if !at.isMultiple(of: Self.stretch) { cuts.append(at) }
                slots.append(chunk.isHole ? .hole : .chunk(chunk))
                at += part
            }
        }
    }

    var startIndex: Int { 0 }
    var endIndex: Int { slots.count }
    subscript(index: Int) -> Slot {
        get { slots[index] }
        set { slots[index] = newValue }
    }

    // MARK: Borders

    /// The first multiple of 4 MiB behind a byte.
    static func stretchEnd(_ offset: Int) -> Int { (offset / stretch + 1) * stretch }

    /// Bytes of a file of `size` bytes from `start` on that one slot may have at most.
    static func extent(from start: Int, size: UInt64) -> Int { Swift.max(0, Swift.min(Int(size), stretchEnd(start)) - start) }

    /// The slot that has the byte at an offset.
    func index(at offset: Int) -> Int { offset / Self.stretch + cuts.partitioningIndex { $0 > offset } }

    /// Where a slot begins. Before a cut's own slot there are as many multiples of 4 MiB as fit, and the cuts before it.
    func start(_ index: Int) -> Int {
        let before = cuts.indices.partitioningIndex { self.index(ofCut: $0) > index }
        return before > 0 && self.index(ofCut: before - 1) == index ? cuts[before - 1] : (index - before) * Self.stretch
    }

    private func index(ofCut cut: Int) -> Int { cuts[cut] / Self.stretch + cut + 1 }

    /// Where the next slot begins.
    func end(_ index: Int) -> Int { start(index + 1) }

    /// Bytes of a slot in a file of `size` bytes.
    func extent(_ index: Int, size: UInt64) -> Int { Swift.max(0, Swift.min(Int(size), end(index)) - start(index)) }

    /// How many slots a file of `size` bytes has.
    func count(size: UInt64) -> Int { size == 0 ? 0 : index(at: Int(size) - 1) + 1 }

    /// How many slots lie between the same multiples of 4 MiB.
    func stretchCount(_ index: Int) -> Int {
        let stretch = start(index) / Self.stretch
        return self.index(at: (stretch + 1) * Self.stretch) - self.index(at: stretch * Self.stretch)
    }

    /// The slot that has a segment, of which it is known where it began.
    func index(of segment: Segment, at start: Int) -> Int? {
        let index = index(at: start)
        return index < count && slots[index].segment === segment ? index : nil
    }

    // MARK: Changes

    /// Adds holes up to a slot.
    mutating func grow(to count: Int) {
        while slots.count < count { slots.append(.hole) }
    }

    /// Takes the last slot away.
    mutating func removeLast() -> Slot { slots.removeLast() }

    /// The file ends at `size` now, and so has no cut there or behind.
    mutating func forgetCuts(from size: UInt64) { cuts.removeSubrange(cuts.partitioningIndex { $0 >= size }...) }

    /// Makes a slot begin at an offset: of a hole two, of nothing a border.
    /// - Returns: false if that would part a slot that has bytes.
    mutating func cut(at offset: Int) -> Bool {
        let index = index(at: offset)
        guard start(index) != offset else { return true }
        if index < count {
            guard case .hole = slots[index] else { return false }
            slots.insert(.hole, at: index)
        }
        cuts.insert(offset, at: cuts.partitioningIndex { $0 > offset })
        return true
    }

    /// Puts chunks in the place of a slot, one behind the other.
    mutating func replace(_ index: Int, by chunks: [ChunkReference]) {
        guard !chunks.isEmpty else { return slots[index] = .hole }
        var borders: [Int] = [], at = start(index)
        for chunk in chunks.dropLast() {
            at += Int(chunk.length)
            borders.append(at)
        }
        slots.replaceSubrange(index...index, with: chunks.map(Slot.chunk))
        cuts.insert(contentsOf: borders, at: cuts.partitioningIndex { $0 > at })
    }

    /// The slots of a part of the file, which begins at a multiple of 4 MiB; nil if not all are there.
    func part(_ range: Range<Int>) -> SlotTable? {
        let indices = index(at: range.lowerBound)..<index(at: range.upperBound - 1) + 1
        guard indices.upperBound <= count else { return nil }
        var part = SlotTable()
        part.slots = Array(slots[indices])
        part.cuts = cuts.filter(range.contains).map { $0 - range.lowerBound }
        return part
    }

    /// Puts another table's slots over those from a multiple of 4 MiB on. Where they do not fill the last 4 MiB, nothing is left behind them.
    /// - Returns: what was there.
    mutating func replace(from start: Int, with other: SlotTable, byteCount: Int) -> [Slot] {
        let range = start..<Self.stretchEnd(start + byteCount - 1)
        grow(to: index(at: start))
        let indices = index(at: range.lowerBound)..<Swift.min(count, index(at: range.upperBound))
        let old = Array(slots[indices])
        slots.replaceSubrange(indices, with: other.slots)
        let first = cuts.partitioningIndex { $0 >= range.lowerBound }, last = cuts.partitioningIndex { $0 >= range.upperBound }
        cuts.replaceSubrange(first..<last, with: other.cuts.map { $0 + start })
        return old
    }
}
