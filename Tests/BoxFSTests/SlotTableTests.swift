import Foundation
import Shared
import Testing
@testable import BoxFS

/// Slots and their borders, against a list of both; a failure prints the borders.
@Suite struct SlotTableTests {
    private static let stretch = SlotTable.stretch

    private func chunk(_ length: Int) -> ChunkReference { ChunkReference(hash: SHA256.hash((0..<8).map { _ in UInt8.random(in: 0...255) }), length: UInt32(length)) }

    /// Chunks and holes that fill some stretches, none across a border.
    private func chunks(_ stretches: Int) -> [ChunkReference] {
        (0..<stretches).flatMap { _ -> [ChunkReference] in
            var left = Self.stretch, parts: [ChunkReference] = []
            while left > 0 {
                let part = Bool.random() ? left : Int.random(in: 1...left)
                parts.append(Int.random(in: 0..<4) == 0 ? ChunkReference(hash: .hole, length: UInt32(part)) : chunk(part))
                left -= part
            }
            return parts
        }
    }

    private func check(_ table: SlotTable, _ lengths: [Int], sourceLocation: SourceLocation = #_sourceLocation) {
        var at = 0
        #expect(table.count == lengths.count, "\(lengths)", sourceLocation: sourceLocation)
        for (index, length) in lengths.enumerated() {
            #expect(table.start(index) == at && table.end(index) == at + length, "\(index) of \(lengths)", sourceLocation: sourceLocation)
            for offset in [at, at + length / 2, at + length - 1] {
                #expect(table.index(at: offset) == index, "\(offset) in \(lengths)", sourceLocation: sourceLocation)
            }
            at += length
        }
        #expect(table.count(size: UInt64(at)) == lengths.count && table.count(size: 0) == 0, sourceLocation: sourceLocation)
        #expect(table.start(lengths.count) == at, "whole stretches", sourceLocation: sourceLocation)
    }

    @Test func bordersAreWhereChunksEnd() throws {
        for _ in 0..<200 {
            let all = chunks(3), table = try #require(SlotTable(all))
            check(table, all.map { Int($0.length) })
            #expect(FileContent.manifest(size: UInt64(3 * Self.stretch), slots: table) { _ in [] }.chunks == all)
        }
        let long = ChunkReference(hash: .hole, length: UInt32(Self.stretch))
        #expect(SlotTable([chunk(5), chunk(Self.stretch)]) == nil, "no chunk crosses a multiple of 4 MiB")
        #expect(SlotTable([chunk(5), long])?.count == 3, "a hole may, and is parted")
    }

    @Test func aSlotIsReplacedByChunksAndAHoleCut() throws {
        for _ in 0..<200 {
            var all = chunks(3), table = try #require(SlotTable(all))
            for _ in 0..<10 {
                let index = Int.random(in: 0..<all.count), length = Int(all[index].length), start = table.start(index)
                if all[index].isHole, length > 1 {
                    let part = Int.random(in: 1..<length)
                    let isCut = table.cut(at: start + part)
                    #expect(isCut)
                    all.replaceSubrange(index...index, with: [part, length - part].map { ChunkReference(hash: .hole, length: UInt32($0)) })
                } else if length > 2 {
                    let isCut = table.cut(at: start + 1)
                    #expect(!isCut, "bytes are not parted")
                    let parts = [chunk(1), chunk(length / 2), chunk(length - 1 - length / 2)]
                    table.replace(index, by: parts)
                    all.replaceSubrange(index...index, with: parts)
                }
                let isBorder = table.cut(at: start)
                #expect(isBorder)
                check(table, all.map { Int($0.length) })
            }
            #expect(FileContent.manifest(size: UInt64(3 * Self.stretch), slots: table) { _ in [] }.chunks == all)
        }
    }

    @Test func partsOfOneTableGoOverAnothers() throws {
        for _ in 0..<200 {
            let sources = (0..<4).map { _ in chunks(1) }, targets = (0..<4).map { _ in chunks(1) }
            let source = try #require(SlotTable(sources.flatMap { $0 }))
            var target = try #require(SlotTable(targets.flatMap { $0 }))
            let from = Int.random(in: 0..<4), count = Int.random(in: 1...4 - from), to = Int.random(in: 0...4), bytes = count * Self.stretch
            let part = try #require(source.part(from * Self.stretch..<from * Self.stretch + bytes))
            let old = target.replace(from: to * Self.stretch, with: part, byteCount: bytes)
            #expect(old.count == targets.dropFirst(to).prefix(count).joined().count)
            let all = targets.prefix(to).flatMap { $0 } + sources[from..<from + count].flatMap { $0 } + targets.dropFirst(to + count).flatMap { $0 }
            check(target, all.map { Int($0.length) })
            #expect(FileContent.manifest(size: UInt64(target.start(target.count)), slots: target) { _ in [] }.chunks == all)
        }
        #expect(try #require(SlotTable(chunks(1))).part(0..<Self.stretch + 1) == nil)
    }

    @Test func aShorterFileForgetsItsCuts() throws {
        var table = try #require(SlotTable([chunk(100), chunk(200), chunk(Self.stretch - 300), chunk(7)]))
        while table.count > 2 { _ = table.removeLast() }
        table.forgetCuts(from: 100)
        #expect(table.end(0) == Self.stretch && table.count(size: 100) == 1)
    }
}
