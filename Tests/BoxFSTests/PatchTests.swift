import Testing
@testable import BoxFS

/// A patch against an array of bytes; a failure prints the writes.
@Suite struct PatchTests {
    @Test func showsWhatWasWritten() {
        for _ in 0..<300 {
            let store = SegmentStore(directory: "/nonexistent", firstFile: 1)
            let base = Segment(file: 1, length: 1000, store: store), log = Segment(file: 2, length: 0, store: store)
            var slot = [UInt8](repeating: 0, count: 1000), written: [UInt8] = [], shared = 0
            var patch = Patch(base: base, log: log)
            var ranges: [Range<Int>] = []
            for step in 1...60 {
                if step == 30 {     // a commit froze the first: what it has is not the second's alone
                    patch = Patch(base: base, log: log, pieces: patch.pieces)
                    shared = written.count
                }
                let start = Int.random(in: 0..<1000), range = start..<min(1000, start + Int.random(in: 1...80))
                ranges.append(range)
                let bytes = range.map { _ in UInt8.random(in: 1...255) }
                slot.replaceSubrange(range, with: bytes)
                if let piece = patch.piece(holding: range) {
                    let position = piece.position + range.lowerBound - piece.start
                    #expect(position >= shared, "\(ranges)")
                    written.replaceSubrange(position..<position + range.count, with: bytes)
                } else {
                    patch.put(range, at: written.count)
                    written += bytes
                    log.length = written.count
                    #expect(patch.newest == written.count)
                }
                var shown = [UInt8](repeating: 0, count: 1000), end = 0
                for piece in patch.pieces {
                    #expect(piece.start >= end && piece.count > 0, "\(ranges)")
                    end = piece.end
                    shown.replaceSubrange(piece.range, with: written[piece.position..<piece.position + piece.count])
                }
                #expect(shown == slot, "\(ranges)")
                let asked = Int.random(in: 0..<900), part = asked..<asked + 100
                #expect(Array(patch.pieces(in: part)) == patch.pieces.filter { $0.range.overlaps(part) }, "\(ranges), asked \(part)")
            }
        }
    }

    /// What a sequential writer leaves is one piece.
    @Test func piecesThatFollowEachOtherAreOne() {
        let store = SegmentStore(directory: "/nonexistent", firstFile: 1)
        let log = Segment(file: 2, length: 0, store: store)
        var patch = Patch(base: Segment(file: 1, length: 1000, store: store), log: log)
        for start in stride(from: 0, to: 500, by: 50) {
            patch.put(start..<start + 50, at: start)
            log.length = start + 50
        }
        #expect(patch.pieces == [Patch.Piece(start: 0, count: 500, position: 0)])
        patch = Patch(base: patch.base, log: log, pieces: patch.pieces)
        patch.put(500..<550, at: 500)
        #expect(patch.pieces.count == 2, "the first is another's as well")
        #expect(patch.piece(holding: 510..<520)?.position == 500 && patch.piece(holding: 10..<20) == nil)
    }
}
