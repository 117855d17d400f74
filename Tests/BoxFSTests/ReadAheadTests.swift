import Testing
@testable import BoxFS

@Suite struct ReadAheadTests {
    private static let slot = Int64(SlotTable.stretch)

    /// Whoever wants a file's head, or one place in it, makes nobody fetch more; not even by asking again for what was not here.
    @Test(arguments: [0, 40 * slot]) func theFirstReadStartsNone(at offset: Int64) {
        var reader = ReadAhead()
        #expect(reader.window(offset: offset, count: 16 << 10) == nil)
        #expect(reader.window(offset: offset, count: 16 << 10) == nil, "the same read, once its chunk is here")
        let slot = Int(offset / Self.slot)
        #expect(reader.window(offset: offset + (16 << 10), count: 16 << 10) == slot..<slot + 3, "what is cut off the 4 MiB that it began with, too")
    }

    @Test func theWindowGrowsWithASequentialReaderAndClosesWhenItSeeks() {
        var reader = ReadAhead()
        var announced: [Int] = []
        for offset in stride(from: Int64(0), to: 12 * Self.slot, by: 1 << 20) { announced += reader.window(offset: offset, count: 1 << 20) ?? 0..<0 }
        #expect(announced == Array(0..<announced.count), "each chunk once, in order")
        #expect(announced.count >= 12 + 8 && announced.count <= 13 + ReadAhead.maximumChunks, "\(announced.count)")
        #expect(reader.window(offset: 100 * Self.slot, count: 4096) == nil)
        #expect(reader.window(offset: 3 * Self.slot, count: 4096) == nil)
    }

    /// A database's reads, here and there in a file, are none of a sequential reader, however often one lies near the one before.
    @Test func whoReadsHereAndThereMakesNobodyReadAhead() {
        var reader = ReadAhead(), generator = SystemRandomNumberGenerator()
        for _ in 0..<4000 {
            let page = Int64.random(in: 16..<1024, using: &generator)
            let isNear = Bool.random(using: &generator)
            let offset = (isNear ? 0 : 100 * Self.slot) + page * 64 * 1024
            #expect(reader.window(offset: offset, count: 4096) == nil)
        }
    }
}
