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

    /// A copy's name stays within NAME_MAX and keeps the ending.
    @Test func longNamesGetShorterCopies() {
        let name = String(repeating: "ä", count: 120) + ".tar"
        let copy = ConflictedCopy.name(of: name, device: "host", time: Timestamp(nanoseconds: 0), number: 12)
        #expect(EntryName.problem(with: copy) == nil)
        #expect(copy.hasSuffix(" (conflicted copy, host, 1970-01-01 12).tar"))
    }
}
