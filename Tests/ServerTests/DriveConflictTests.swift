import Foundation
import Shared
import Testing
@testable import Server

/// The table "Conflicts" of the design, row by row: two devices that did not see each other's change.
@Suite struct DriveConflictTests {
    let fixture: DriveFixture

    init() throws { fixture = try DriveFixture() }

    private func devices() async throws -> (TestDevice, TestDevice) {
        try await fixture.account("ada")
        return (try await fixture.device("ada", "desk"), try await fixture.device("ada", "lap"))
    }

    private let copy = "note (conflicted copy, lap, 2027-01-15).txt"

    @Test func editAndEditKeepsBoth() async throws {
        let (one, two) = try await devices()
        let file = try await one.makeFile("note.txt", "first")
        try await one.commit([one.write(file.node, base: file.version, "by desk")], chunks: [Array("by desk".utf8)])
        let results = try await two.commit([two.write(file.node, base: file.version, "by lap")], chunks: [Array("by lap".utf8)])
        #expect(results[0].outcome == .conflicted)
        #expect(results[0].detail == copy)
        let listing = try await one.list()
        #expect(try await one.text(listing["note.txt"]) == "by desk")
        #expect(try await one.text(listing[copy]) == "by lap")
        try await fixture.expectClean()
    }

    /// The program that lost goes on saving before it is told: its later saves belong to its copy.
    @Test func laterEditsFollowTheCopy() async throws {
        let (one, two) = try await devices()
        let file = try await one.makeFile("note.txt", "first")
        try await one.commit([one.write(file.node, base: file.version, "by desk")], chunks: [Array("by desk".utf8)])
        let lost = VersionID.make()
        try await two.commit([two.write(file.node, base: file.version, "lap 1", as: lost)], chunks: [Array("lap 1".utf8)])
        let results = try await two.commit([two.write(file.node, base: lost, "lap 2")], chunks: [Array("lap 2".utf8)])
        #expect(results[0].outcome == .conflicted)
        let listing = try await one.list()
        #expect(listing.count == 2)
        #expect(try await one.text(listing["note.txt"]) == "by desk")
        #expect(try await one.text(listing[copy]) == "lap 2")
        try await fixture.expectClean()
    }

    @Test func equalEditsAreOne() async throws {
        let (one, two) = try await devices()
        let file = try await one.makeFile("note.txt", "first")
        try await one.commit([one.write(file.node, base: file.version, "same")], chunks: [Array("same".utf8)])
        let results = try await two.commit([two.write(file.node, base: file.version, "same")], chunks: [Array("same".utf8)])
        #expect(results[0].outcome == .applied)
        #expect(try await one.list().keys.sorted() == ["note.txt"])
        try await fixture.expectClean()
    }

    @Test func renameAndEditBothTakeEffect() async throws {
        let (one, two) = try await devices()
        let file = try await one.makeFile("note.txt", "first")
        try await one.commit([one.rename(file.node, "note.txt", to: "moved.txt")])
        let results = try await two.commit([two.write(file.node, base: file.version, "edited")], chunks: [Array("edited".utf8)])
        #expect(results[0].outcome == .applied)
        let listing = try await one.list()
        #expect(listing.keys.sorted() == ["moved.txt"])
        #expect(try await one.text(listing["moved.txt"]) == "edited")
        try await fixture.expectClean()
    }

    @Test func theEditWinsOverTheDeletion() async throws {
        let (one, two) = try await devices()
        let file = try await one.makeFile("note.txt", "first")
        fixture.clock.advance(seconds: 3600)
        try await one.commit([one.remove(file.node, "note.txt", version: file.version)])
        let results = try await two.commit([two.write(file.node, base: file.version, "edited")], chunks: [Array("edited".utf8)])
        #expect(results[0].outcome == .merged)
        #expect(try await two.text(try await one.list()["note.txt"]) == "edited")
        try await fixture.expectClean()
    }

    @Test func theEditWinsOverALaterDeletion() async throws {
        let (one, two) = try await devices()
        let file = try await one.makeFile("note.txt", "first")
        try await one.commit([one.write(file.node, base: file.version, "edited")], chunks: [Array("edited".utf8)])
        let results = try await two.commit([two.remove(file.node, "note.txt", version: file.version)])
        #expect(results[0].outcome == .conflicted)
        #expect(try await two.text(try await one.list()["note.txt"]) == "edited")
        try await fixture.expectClean()
    }

    /// The file's place is forgotten when its name was used again and again; what is written comes back all the same.
    @Test func anEditBringsBackAFileWhoseNameWasReused() async throws {
        let (one, two) = try await devices()
        let file = try await one.makeFile("note.txt", "first")
        fixture.clock.advance(seconds: 3600)
        try await one.commit([one.remove(file.node, "note.txt", version: file.version)])
        for _ in 0..<3 {
            let node = one.node(.regular)
            try await one.commit([.create(node: node, parent: one.root, name: "note.txt")])
            try await one.commit([one.remove(node.id, "note.txt")])
        }
        let results = try await two.commit([two.write(file.node, base: file.version, "edited")], chunks: [Array("edited".utf8)])
        #expect(results[0].outcome == .merged)
        #expect(try await two.text(try await one.list()["note.txt"]) == "edited")
        try await fixture.expectClean()
    }

    @Test func writingIntoARemovedDirectoryBringsItBack() async throws {
        let (one, two) = try await devices()
        let outer = try await one.makeDirectory("outer"), inner = try await one.makeDirectory("inner", in: outer)
        try await one.commit([one.remove(inner, "inner", from: outer), one.remove(outer, "outer")])
        #expect(try await one.list().isEmpty)
        let node = two.node(.regular)
        let results = try await two.commit(
            [.create(node: node, parent: inner, name: "new"), two.write(node.id, base: nil, "kept")], chunks: [Array("kept".utf8)])
        #expect(results.map(\.outcome) == [.merged, .applied])
        #expect(try await one.list()["outer"]?.id == outer)
        #expect(try await two.text(try await one.list(inner)["new"]) == "kept")
        try await fixture.expectClean()
    }

    @Test func directoriesOfOneNameAreMerged() async throws {
        let (one, two) = try await devices()
        let theirs = try await one.makeDirectory("photos")
        let ours = two.node(.directory), file = two.node(.regular)
        let operations: [Shared.Operation] = [.create(node: ours, parent: two.root, name: "photos"), .create(node: file, parent: ours.id, name: "a")]
        let results = try await two.commit(operations)
        #expect(results[0].outcome == .merged)
        #expect(results[0].detail == theirs.description)
        #expect(results[1].outcome == .applied)
        #expect(try await one.list(theirs).keys.sorted() == ["a"])
        // The same again under another commit's name, as after a lost answer and a lost log.
        #expect(try await two.commit(operations).allSatisfy { $0.outcome != .refused })
        // A later batch may still know the directory by the name that the device gave it.
        try await two.commit([.create(node: two.node(.regular), parent: ours.id, name: "b")])
        #expect(try await one.list(theirs).keys.sorted() == ["a", "b"])
        try await fixture.expectClean()
    }

    @Test func filesOfOneNameAreKeptBothUnlessEqual() async throws {
        let (one, two) = try await devices()
        try await one.makeFile("note.txt", "desk")
        let other = two.node(.regular)
        let results = try await two.commit(
            [.create(node: other, parent: two.root, name: "note.txt"), two.write(other.id, base: nil, "lap")], chunks: [Array("lap".utf8)])
        #expect(results.map(\.outcome) == [.conflicted, .applied])
        #expect(results[0].detail == copy)
        let equal = two.node(.regular)
        let second = try await two.commit(
            [.create(node: equal, parent: two.root, name: "note.txt"), two.write(equal.id, base: nil, "desk")], chunks: [Array("desk".utf8)])
        #expect(second.map(\.outcome) == [.merged, .applied])
        #expect(try await one.list().keys.sorted() == [copy, "note.txt"].sorted())
        try await fixture.expectClean()
    }

    @Test func aCycleIsRefused() async throws {
        let (one, two) = try await devices()
        let a = try await one.makeDirectory("a"), b = try await one.makeDirectory("b")
        #expect(try await one.commit([one.rename(a, "a", to: "a", in: b)])[0].outcome == .applied)
        let before = try await one.drive.namespaceInformation(one.session, one.namespace).sequence
        let results = try await two.commit([two.rename(b, "b", to: "b", in: a)])
        #expect(results[0].outcome == .refused)
        #expect(results[0].code == ProblemCode.cycle.rawValue)
        let page = try await one.drive.changes(one.session, one.namespace, after: before, limit: 1000)
        #expect(page.entries.contains { $0.node == b && $0.parent == one.root && !$0.deleted }, "the feed corrects the device that was refused")
        try await fixture.expectClean()
    }

    @Test func theLaterRenameWins() async throws {
        let (one, two) = try await devices()
        let file = try await one.makeFile("note.txt", "first")
        try await one.commit([one.rename(file.node, "note.txt", to: "desk.txt")])
        #expect(try await two.commit([two.rename(file.node, "note.txt", to: "lap.txt")])[0].outcome != .refused)
        #expect(try await one.list().keys.sorted() == ["lap.txt"])
        try await fixture.expectClean()
    }

    @Test func aRenameDoesNotReplaceWhatItsDeviceNeverSaw() async throws {
        let (one, two) = try await devices()
        let file = try await two.makeFile("draft", "mine")
        try await one.makeFile("note.txt", "theirs")
        let results = try await two.commit([two.rename(file.node, "draft", to: "note.txt")])
        #expect(results[0].outcome == .conflicted)
        let listing = try await one.list()
        #expect(try await one.text(listing["note.txt"]) == "theirs")
        #expect(try await one.text(listing[copy]) == "mine")
        try await fixture.expectClean()
    }

    @Test func aDirectoryThatOthersFilledStays() async throws {
        let (one, two) = try await devices()
        let directory = try await one.makeDirectory("d")
        try await one.commit([.create(node: one.node(.regular), parent: directory, name: "new")])
        let before = try await one.drive.namespaceInformation(one.session, one.namespace).sequence
        let results = try await two.commit([two.remove(directory, "d")])
        #expect(results[0].code == ProblemCode.notEmpty.rawValue)
        let page = try await two.drive.changes(two.session, two.namespace, after: before, limit: 1000)
        #expect(page.entries.contains { $0.node == directory && !$0.deleted })
        try await fixture.expectClean()
    }

    // MARK: Merges

    private let poem = (1...9).map { "line \($0)\n" }
    private func edited(_ line: Int, _ text: String) -> String {
        var lines = poem
        lines[line] = text + "\n"
        return lines.joined()
    }

    /// Two edits in different lines are one version whose parents are both; the loser's next save, based on its own edit, merges as well.
    @Test func textEditsMerge() async throws {
        let (one, two) = try await devices()
        let file = try await one.makeFile("poem", poem.joined())
        let desk = VersionID.make(), lap = VersionID.make()
        try await one.commit([one.write(file.node, base: file.version, edited(0, "by desk"), as: desk)], chunks: [Array(edited(0, "by desk").utf8)])
        let results = try await two.commit([two.write(file.node, base: file.version, edited(8, "by lap"), as: lap)], chunks: [Array(edited(8, "by lap").utf8)])
        #expect(results[0].outcome == .merged)
        let listing = try await one.list()
        #expect(listing.keys.sorted() == ["poem"])
        let both = edited(0, "by desk").replacingOccurrences(of: "line 9", with: "by lap")
        #expect(try await one.text(listing["poem"]) == both)
        let history = try await one.drive.versions(one.session, one.namespace, node: file.node, path: nil, after: nil, limit: 10).versions
        #expect(history[0].kind == .merge && history[0].parents == [desk, lap] && history[0].current)
        #expect(history.contains { $0.id == lap && $0.kind == .write })
        // Two saves in one batch before the device heard of it.
        let first = VersionID.make(), second = VersionID.make()
        let firstText = edited(8, "by lap, better"), secondText = edited(8, "by lap, best")
        let later = try await two.commit(
            [two.write(file.node, base: lap, firstText, as: first), two.write(file.node, base: first, secondText, as: second)],
            chunks: [Array(firstText.utf8), Array(secondText.utf8)])
        #expect(later.map(\.outcome) == [.merged, .merged])
        #expect(try await one.text(try await one.list()["poem"]) == both.replacingOccurrences(of: "by lap", with: "by lap, best"))
        try await fixture.expectClean()
    }

    /// A link that did not get its name is no copy of an empty file: the file's content comes later.
    @Test func aLinkIsNoCopyOfAnEmptyFile() async throws {
        let (one, two) = try await devices()
        _ = try await one.makeFile("f", "text")
        let link = two.node(.symlink, target: "elsewhere"), file = two.node(.regular)
        for node in [link, file] { #expect(try await two.commit([.create(node: node, parent: two.root, name: "f")])[0].outcome == .conflicted) }
        #expect(try await two.commit([two.write(file.id, base: nil, "later")], chunks: [Array("later".utf8)])[0].outcome == .applied)
        #expect(try await one.list().count == 3)
        try await fixture.expectClean()
    }

    /// The merge's bytes are freed with everything else.
    @Test func mergesAreCounted() async throws {
        let (one, two) = try await devices()
        let file = try await one.makeFile("poem", poem.joined())
        try await one.commit([one.write(file.node, base: file.version, edited(0, "x"))], chunks: [Array(edited(0, "x").utf8)])
        try await two.commit([two.write(file.node, base: file.version, edited(8, "y"))], chunks: [Array(edited(8, "y").utf8)])
        let node = try #require(try await one.list()["poem"])
        try await one.commit([one.remove(node.id, "poem", version: node.version)])
        _ = try await one.drive.purgeTrash(one.session, one.namespace, TrashRequest())
        fixture.clock.advance(seconds: 86_400 * 2)
        _ = try await one.drive.collectGarbage(graceSeconds: 0)
        #expect(try await one.drive.fsck(checkBytes: true).chunks == 0)
        try await fixture.expectClean()
    }

    @Test func editsOfTheSameLinesAndBinariesDoNotMerge() async throws {
        let (one, two) = try await devices()
        let file = try await one.makeFile("poem", poem.joined())
        try await one.commit([one.write(file.node, base: file.version, edited(4, "by desk"))], chunks: [Array(edited(4, "by desk").utf8)])
        #expect(try await two.commit([two.write(file.node, base: file.version, edited(4, "by lap"))], chunks: [Array(edited(4, "by lap").utf8)])[0].outcome == .conflicted)
        #expect(try await one.list().count == 2)
        let binary = try await one.makeFile("data", "\0" + poem.joined())
        try await one.commit([one.write(binary.node, base: binary.version, "\0" + edited(0, "x"))], chunks: [Array(("\0" + edited(0, "x")).utf8)])
        #expect(try await two.commit([two.write(binary.node, base: binary.version, "\0" + edited(8, "y"))], chunks: [Array(("\0" + edited(8, "y")).utf8)])[0].outcome == .conflicted)
        try await fixture.expectClean()
    }

    /// A save by rename, as mounts send it: the content at the end. It meets the other's edit like any edit.
    /// - Parameter isSlow: the content came in a commit before the rename.
    private func save(
        _ device: TestDevice, over file: (node: NodeID, version: VersionID), _ name: String, _ text: String, isSlow: Bool = false
    ) async throws -> [OperationResult] {
        let saved = device.node(.regular)
        if isSlow {
            try await device.commit(
                [.create(node: saved, parent: device.root, name: "save.tmp"), device.write(saved.id, base: nil, text)], chunks: [Array(text.utf8)])
            return try await device.commit([device.rename(saved.id, "save.tmp", to: name, replaced: file.node, version: file.version)])
        }
        return try await device.commit([
            .create(node: saved, parent: device.root, name: "save.tmp"),
            device.rename(saved.id, "save.tmp", to: name, replaced: file.node, version: file.version), device.write(saved.id, base: nil, text),
        ], chunks: [Array(text.utf8)])
    }

    @Test func aSaveByRenameIsAnEdit() async throws {
        let (one, two) = try await devices()
        let poemFile = try await one.makeFile("poem", poem.joined()), note = try await one.makeFile("note.txt", "first")
        fixture.clock.advance(seconds: 600)
        try await one.commit(
            [one.write(poemFile.node, base: poemFile.version, edited(0, "by desk")), one.write(note.node, base: note.version, "by desk")],
            chunks: [Array(edited(0, "by desk").utf8), Array("by desk".utf8)])
        #expect(try await save(two, over: poemFile, "poem", edited(8, "by lap")).map(\.outcome) == [.applied, .applied, .merged])
        #expect(try await save(two, over: note, "note.txt", "by lap").map(\.outcome) == [.applied, .applied, .conflicted])
        let listing = try await one.list()
        #expect(listing.keys.sorted() == ["note.txt", copy, "poem"].sorted())
        #expect(try await one.text(listing["poem"]) == edited(0, "by desk").replacingOccurrences(of: "line 9", with: "by lap"))
        #expect(try await one.text(listing["note.txt"]) == "by desk")
        #expect(try await one.text(listing[copy]) == "by lap")
        try await fixture.expectClean()
        // Nobody else in between: one history, one file.
        let current = try #require(listing["poem"]), version = try #require(current.version)
        fixture.clock.advance(seconds: 600)
        #expect(try await save(one, over: (current.id, version), "poem", "anew").map(\.outcome) == [.applied, .applied, .applied])
        let now = try #require(try await one.list()["poem"])
        let history = try await one.drive.versions(one.session, one.namespace, node: now.id, path: nil, after: nil, limit: 20).versions
        #expect(history.count == 5 && history[0].parents == [version])
        try await fixture.expectClean()
    }

    @Test func aSlowSaveByRenameIsAnEditToo() async throws {
        let (one, two) = try await devices()
        let poemFile = try await one.makeFile("poem", poem.joined()), note = try await one.makeFile("note.txt", "first")
        fixture.clock.advance(seconds: 600)
        try await one.commit(
            [one.write(poemFile.node, base: poemFile.version, edited(0, "by desk")), one.write(note.node, base: note.version, "by desk")],
            chunks: [Array(edited(0, "by desk").utf8), Array("by desk".utf8)])
        #expect(try await save(two, over: poemFile, "poem", edited(8, "by lap"), isSlow: true)[0].outcome == .applied)
        #expect(try await save(two, over: note, "note.txt", "by lap", isSlow: true)[0].outcome == .conflicted)
        let listing = try await one.list()
        #expect(listing.keys.sorted() == ["note.txt", copy, "poem"].sorted())
        #expect(try await one.text(listing["poem"]) == edited(0, "by desk").replacingOccurrences(of: "line 9", with: "by lap"))
        #expect(try await one.text(listing[copy]) == "by lap")
        let history = try await one.drive.versions(one.session, one.namespace, node: nil, path: "poem", after: nil, limit: 20).versions
        #expect(history.map(\.kind) == [.merge, .write, .write, .write] && history[1].parents == [poemFile.version])
        try await fixture.expectClean()
    }

    /// A file of its own that replaces one whose newest version its device never saw.
    @Test func aReplacedFileThatOthersEditedIsKept() async throws {
        let (one, two) = try await devices()
        let note = try await one.makeFile("note.txt", "first"), other = try await two.makeFile("other", "another")
        fixture.clock.advance(seconds: 600)
        try await one.commit([one.write(note.node, base: note.version, "by desk")], chunks: [Array("by desk".utf8)])
        let results = try await two.commit([two.rename(other.node, "other", to: "note.txt", replaced: note.node, version: note.version)])
        #expect(results[0].outcome == .conflicted)
        let listing = try await one.list()
        #expect(try await one.text(listing["note.txt"]) == "by desk")
        #expect(try await one.text(listing[copy]) == "another")
        try await fixture.expectClean()
    }

    // MARK: Copies, once

    /// The same edit again and again, by several devices: one copy; a copy of a copy is named after the file.
    @Test func copiesDoNotStorm() async throws {
        let (one, two) = try await devices()
        let three = try await fixture.device("ada", "tab")
        let file = try await one.makeFile("note.txt", "first")
        try await one.commit([one.write(file.node, base: file.version, "by desk")], chunks: [Array("by desk".utf8)])
        for device in [two, three, two, three] {
            let results = try await device.commit([device.write(file.node, base: file.version, "by others")], chunks: [Array("by others".utf8)])
            #expect(results[0].outcome == .conflicted && results[0].detail == copy)
        }
        #expect(try await one.list().keys.sorted() == [copy, "note.txt"].sorted())
        let equal = three.node(.regular)
        let created = try await three.commit(
            [.create(node: equal, parent: three.root, name: "note.txt"), three.write(equal.id, base: nil, "by others")], chunks: [Array("by others".utf8)])
        #expect(created.map(\.outcome) == [.merged, .applied])
        let node = try #require(try await one.list()[copy])
        try await one.commit([one.write(node.id, base: node.version, "copy by desk")], chunks: [Array("copy by desk".utf8)])
        let again = try await two.commit([two.write(node.id, base: node.version, "copy by lap")], chunks: [Array("copy by lap".utf8)])
        #expect(again[0].detail == "note (conflicted copy, lap, 2027-01-15 2).txt")
        try await fixture.expectClean()
    }

    private func conflict(_ one: TestDevice, _ two: TestDevice) async throws {
        let file = try await one.makeFile("note.txt", "first")
        try await one.commit([one.write(file.node, base: file.version, "by desk")], chunks: [Array("by desk".utf8)])
        try await two.commit([two.write(file.node, base: file.version, "by lap")], chunks: [Array("by lap".utf8)])
    }

    @Test(arguments: [("lap", ResolveRequest.Side.mine, "by lap"), ("lap", .theirs, "by desk"), ("desk", .mine, "by desk"), ("desk", .theirs, "by lap")])
    func resolvingKeepsOneUnderTheName(_ name: String, _ side: ResolveRequest.Side, _ text: String) async throws {
        let (one, two) = try await devices()
        try await conflict(one, two)
        let device = name == "lap" ? two : one
        let listed = try await device.drive.conflicts(device.session, device.namespace)
        #expect(listed.map(\.copy) == [copy] && listed[0].path == "note.txt" && listed[0].mine == (name == "lap"))
        let answer = try await device.drive.resolve(device.session, device.namespace, ResolveRequest(path: side == .mine ? copy : "note.txt", keep: side))
        #expect(answer.path == "note.txt")
        let listing = try await one.list()
        #expect(listing.keys.sorted() == ["note.txt"])
        #expect(try await one.text(listing["note.txt"]) == text)
        #expect(try await one.drive.conflicts(one.session, one.namespace).isEmpty)
        #expect(try await one.drive.trash(one.session, one.namespace, after: nil, limit: 10).items.map(\.path) == [copy])
        try await fixture.expectClean()
    }

    @Test func resolvingMayKeepBoth() async throws {
        let (one, two) = try await devices()
        try await conflict(one, two)
        _ = try await one.drive.resolve(one.session, one.namespace, ResolveRequest(path: "note.txt", keep: .both))
        #expect(try await one.list().count == 2)
        #expect(try await one.drive.conflicts(one.session, one.namespace).isEmpty)
        await #expect(throws: DriveError.self) { try await one.drive.resolve(one.session, one.namespace, ResolveRequest(path: "note.txt", keep: .both)) }
    }

    /// Two mounts on one machine have one host name and are two devices all the same.
    @Test func devicesOfOneNameAreTwo() async throws {
        try await fixture.account("ada")
        let one = try await fixture.device("ada", "host"), two = try await fixture.device("ada", "host")
        let file = try await one.makeFile("note.txt", "first")
        try await two.commit([two.write(file.node, base: file.version, "edited")], chunks: [Array("edited".utf8)])
        #expect(try await one.commit([one.remove(file.node, "note.txt", version: file.version)])[0].outcome == .conflicted)
        #expect(try await one.text(try await one.list()["note.txt"]) == "edited")
    }

    /// A copy's name stays within NAME_MAX and keeps the ending.
    @Test func longNamesGetShorterCopies() {
        let name = String(repeating: "ä", count: 120) + ".tar"
        let copy = ConflictedCopy.name(of: name, device: "host", time: Timestamp(nanoseconds: 0), number: 12)
        #expect(EntryName.problem(with: copy) == nil)
        #expect(copy.hasSuffix(" (conflicted copy, host, 1970-01-01 12).tar"))
    }
}
