import Foundation
import Testing
import TestSupport
@testable import Server

/// Three-way merges beside git's own, and what counts as a text.
@Suite struct TextMergeTests {
    private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

    /// Hundreds of pairs of edits of one text: the same merge as `git merge-file`, or none where that finds a conflict. `BOXFS_SEED` repeats a run.
    @Test func mergesAsGitDoes() throws {
        var random = SeededGenerator()
        let folder = NSTemporaryDirectory() + "/boxfs-merge-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var clean = 0, conflicts = 0
        for round in 0..<300 {
            let base = Self.text(&random), ours = Self.edit(base, &random), theirs = Self.edit(base, &random)
            for (name, lines) in [("base", base), ("ours", ours), ("theirs", theirs)] { try Data(lines.joined().utf8).write(to: URL(filePath: folder + "/" + name)) }
            let (status, expected) = try Self.git(folder)
            let merged = TextMerge.merge(base: bytes(base.joined()), ours: bytes(ours.joined()), theirs: bytes(theirs.joined()))
            if status == 0 { clean += 1 } else { conflicts += 1 }
            #expect(merged == (status == 0 ? expected : nil), "round \(round)")
        }
        #expect(clean > 30 && conflicts > 30, "the corpus holds both: \(clean) clean, \(conflicts) conflicts")
    }

    private static func git(_ folder: String) throws -> (status: Int32, output: [UInt8]) {
        let process = Process(), output = Pipe()
        process.executableURL = URL(filePath: "/usr/bin/git")
        process.arguments = ["merge-file", "-p", "-q", folder + "/ours", folder + "/base", folder + "/theirs"]
        process.standardOutput = output
        try process.run()
        let bytes = Array(output.fileHandleForReading.readDataToEndOfFile())
        process.waitUntilExit()
        return (process.terminationStatus, bytes)
    }

    /// Lines with their ends, few different ones so that they repeat; the last one may have no end.
    private static func text(_ random: inout SeededGenerator) -> [String] {
        var lines = (0..<Int.random(in: 0...30, using: &random)).map { _ in "line \(Int.random(in: 0...60, using: &random))\n" }
        if !lines.isEmpty, Bool.random(using: &random) { lines[lines.count - 1].removeLast() }
        return lines
    }

    private static func edit(_ base: [String], _ random: inout SeededGenerator) -> [String] {
        var lines = base
        for _ in 0..<Int.random(in: 0...3, using: &random) {
            let at = Int.random(in: 0...lines.count, using: &random)
            switch Int.random(in: 0..<3, using: &random) {
            case 0:
                if at > 0, !lines[at - 1].hasSuffix("\n") { lines[at - 1] += "\n" }
                lines.insert("new \(Int.random(in: 0...9, using: &random)) ä\n", at: at)
            case 1 where at < lines.count: lines[at] = "edited \(Int.random(in: 0...9, using: &random))\n"
            case 2 where at < lines.count: lines.remove(at: at)
            default: break
            }
        }
        return lines
    }

    @Test func encodingsAreKept() throws {
        func merge(_ encode: (String) -> [UInt8]) -> [UInt8]? {
            TextMerge.merge(base: encode("ä\nb\nc\nd\ne\n"), ours: encode("ä1\nb\nc\nd\ne\n"), theirs: encode("ä\nb\nc\nd\nö\n"))
        }
        func utf16(_ text: String, _ encoding: String.Encoding, _ mark: [UInt8]) -> [UInt8] { mark + Array(text.data(using: encoding)!) }
        let wanted = "ä1\nb\nc\nd\nö\n"
        #expect(merge { bytes($0) } == bytes(wanted))
        #expect(merge { [0xEF, 0xBB, 0xBF] + bytes($0) } == [0xEF, 0xBB, 0xBF] + bytes(wanted))
        #expect(merge { Array($0.data(using: .isoLatin1)!) } == Array(wanted.data(using: .isoLatin1)!))
        #expect(merge { utf16($0, .utf16LittleEndian, [0xFF, 0xFE]) } == utf16(wanted, .utf16LittleEndian, [0xFF, 0xFE]))
        #expect(merge { utf16($0, .utf16BigEndian, [0xFE, 0xFF]) } == utf16(wanted, .utf16BigEndian, [0xFE, 0xFF]))
        // Line ends of DOS.
        #expect(merge { bytes($0.replacingOccurrences(of: "\n", with: "\r\n")) } == bytes(wanted.replacingOccurrences(of: "\n", with: "\r\n")))
    }

    @Test func whatIsNoTextIsNotMerged() {
        let base = bytes("a\nb\nc\nd\ne\n"), ours = bytes("x\nb\nc\nd\ne\n")
        #expect(TextMerge.merge(base: base, ours: ours, theirs: bytes("a\nb\nc\nd\n\0\n")) == nil)
        #expect(TextMerge.merge(base: base, ours: ours, theirs: bytes("a\nb\nc\nd\n\u{7F}ELF\n")) == nil)
        #expect(TextMerge.merge(base: base, ours: ours, theirs: [0xFF, 0xFE, 0x61]) == nil, "half a unit of UTF-16")
        #expect(TextMerge.merge(base: bytes("ä\nb\nc\nd\ne\n"), ours: bytes("ä\nb\nc\nd\nf\n"), theirs: [0xE4] + bytes("1\nb\nc\nd\ne\n")) == nil, "UTF-8 and Latin-1")
        #expect(TextMerge.merge(base: base, ours: ours, theirs: bytes("a\nb\nc\nd\nf\n")) == bytes("x\nb\nc\nd\nf\n"))
    }
}
