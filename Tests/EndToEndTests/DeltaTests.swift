import Foundation
import Glibc
import Testing
import TestSupport

/// A small edit of a large file travels as what it is.
@Suite(.serialized) struct DeltaTests {
    @Test func aSmallEditSendsLittle() throws {
        let drive = try Drive()
        defer { drive.end() }
        var random = SeededGenerator("delta")
        let one = try drive.mount("one")
        var expected = random.bytes(9_000_000)
        try one.write("big", expected)
        try one.flush()
        // A whole chunk would take 16 seconds over this link.
        let two = try drive.mount("two", ["--upload-limit", "256KiB"])
        #expect(two.read("big") == expected)
        for round in 0..<3 {
            let file = open(two("big"), O_RDWR)
            for at in [5_000_000 + round, 6_000_000, 7_999_990] {
                let piece = random.bytes(100)
                #expect(pwrite(file, piece, 100, off_t(at)) == 100)
                expected.replaceSubrange(at..<at + 100, with: piece)
            }
            close(file)
            let start = Date()
            try two.flush()
            #expect(Date().timeIntervalSince(start) < 8, "round \(round)")
        }
        try eventually("the other mount shows the edits") { one.read("big") == expected }
        // What is edited at the same places again concerns short chunks.
        let before = try drive.chunkBytes()
        for round in 0..<3 {
            let file = open(two("big"), O_RDWR), piece = random.bytes(100)
            #expect(pwrite(file, piece, 100, off_t(6_000_000 + round)) == 100)
            close(file)
            expected.replaceSubrange(6_000_000 + round..<6_000_100 + round, with: piece)
            try two.flush()
        }
        let stored = try drive.chunkBytes() - before
        #expect((1...3 * 64 << 10).contains(stored), "\(stored) bytes")
        try eventually("the other mount shows the later edits") { one.read("big") == expected }
        // A cut in the middle of a slot, and growth over it: zeros must not turn into what was there before.
        let file = open(two("big"), O_RDWR)
        #expect(ftruncate(file, 6_000_000) == 0 && pwrite(file, "end", 3, 7_000_000) == 3)
        close(file)
        expected = expected.prefix(6_000_000) + [UInt8](repeating: 0, count: 1_000_000) + Array("end".utf8)
        try two.flush()
        try eventually("the other mount shows the cut file") { one.read("big") == expected }
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }
}
