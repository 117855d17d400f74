import Shared
import Testing
@testable import BoxFS

/// Random writes against a set of bytes; a failure prints the ranges.
@Suite struct SegmentChangesTests {
    private let base = ChunkReference(hash: .hole, length: 4096)

    @Test func rangesAreTheUnionOfWhatWasWritten() {
        for _ in 0..<300 {
            var changes = SegmentChanges(base: base)
            var written: Set<Int> = []
            for _ in 0..<Int.random(in: 1...40) {
                let start = Int.random(in: 0..<900), range = start..<start + Int.random(in: 1...60)
                let isWorth = changes.add(range)
                #expect(isWorth)
                written.formUnion(range)
            }
            #expect(changes.ranges.flatMap { Array($0) } == written.sorted())
            #expect(zip(changes.ranges, changes.ranges.dropFirst()).allSatisfy { $0.upperBound < $1.lowerBound })
        }
    }

    @Test func tooManyOrTooLongIsNotWorthTelling() {
        var changes = SegmentChanges(base: base)
        let worth = (0...SegmentChanges.maximumRanges).map { changes.add($0 * 10..<$0 * 10 + 1) }
        #expect(worth == [Bool](repeating: true, count: SegmentChanges.maximumRanges) + [false])
        var long = SegmentChanges(base: base)
        let isWorth = [long.add(0..<SegmentChanges.maximumBytes), long.add(SegmentChanges.maximumBytes..<SegmentChanges.maximumBytes + 1)]
        #expect(isWorth == [true, false])
    }
}
