import Foundation
import Shared
import Testing
import TestSupport
@testable import Server

/// Trash, folders as of a time, mass changes.
@Suite struct DriveRecoveryTests {
    let fixture: DriveFixture

    init() throws { fixture = try DriveFixture() }

    private func device() async throws -> TestDevice {
        try await fixture.account("ada")
        return try await fixture.device("ada", "desk")
    }

    private func trash(_ device: TestDevice) async throws -> [TrashItem] {
        var found: [TrashItem] = [], after: String?
        repeat {
            let page = try await device.drive.trash(device.session, device.namespace, after: after, limit: 2)
            found += page.items
            after = page.next
        } while after != nil
        return found
    }

    private func makeFile(_ device: TestDevice, _ name: String, in directory: NodeID, _ text: String) async throws -> (node: NodeID, version: VersionID) {
        let node = device.node(.regular), version = VersionID.make()
        try await device.commit([.create(node: node, parent: directory, name: name), device.write(node.id, base: nil, text, as: version)], chunks: [Array(text.utf8)])
        return (node.id, version)
    }

    private func restore(_ device: TestDevice, _ path: String) async throws -> RestoreAnswer {
        try await device.drive.restoreTrash(device.session, device.namespace, TrashRequest(path: path))
    }

    // MARK: Trash

    /// Also what lived for seconds only.
    @Test func whatIsRemovedComesBack() async throws {
        let one = try await device()
        let file = try await one.makeFile("note.txt", "text")
        try await one.commit([one.remove(file.node, "note.txt", version: file.version)])
        let items = try await trash(one)
        #expect(items.map(\.path) == ["note.txt"] && items[0].size == 4 && !items[0].directory)
        let answer = try await restore(one, "note.txt")
        #expect(answer.files == 1 && answer.path == "note.txt" && answer.notes.isEmpty)
        #expect(try await one.text(try await one.list()["note.txt"]) == "text")
        #expect(try await trash(one).isEmpty)
        await #expect(throws: DriveError.self) { try await restore(one, "note.txt") }
        try await fixture.expectClean()
    }

    @Test func aTakenNameAndAMissingParentAreSaid() async throws {
        let one = try await device()
        let folder = try await one.makeDirectory("folder")
        let file = try await makeFile(one, "note.txt", in: folder, "old")
        fixture.clock.advance(seconds: 5)
        try await one.commit([one.remove(file.node, "note.txt", from: folder, version: file.version)])
        _ = try await makeFile(one, "note.txt", in: folder, "new")
        let taken = try await restore(one, "folder/note.txt")
        #expect(taken.path == "folder/note (restored).txt" && taken.notes.count == 1)
        #expect(try await one.text(try await one.list(folder)["note (restored).txt"]) == "old")
        // The folder is removed with all that is in it, hours after another file of it was.
        let listing = try await one.list(folder)
        let first = try #require(listing["note.txt"]), second = try #require(listing["note (restored).txt"])
        try await one.commit([one.remove(first.id, "note.txt", from: folder, version: first.version)])
        fixture.clock.advance(seconds: 7200)
        try await one.commit([one.remove(second.id, "note (restored).txt", from: folder, version: second.version), one.remove(folder, "folder")])
        #expect(try await trash(one).filter { !$0.parentDeleted }.map(\.path) == ["folder"])
        let parent = try await restore(one, "folder/note.txt")
        #expect(parent.notes.count == 1 && parent.path == "folder/note.txt")
        #expect(try await one.list(folder).keys.sorted() == ["note.txt"])
        try await fixture.expectClean()
    }

    @Test func aFolderComesBackWithWhatWasRemovedWithIt() async throws {
        let one = try await device()
        let outer = try await one.makeDirectory("outer"), inner = try await one.makeDirectory("inner", in: outer)
        let long = try await makeFile(one, "before", in: inner, "x"), file = try await makeFile(one, "file", in: inner, "y")
        try await one.commit([one.remove(long.node, "before", from: inner, version: long.version)])
        fixture.clock.advance(seconds: 7200)
        try await one.commit([
            one.remove(file.node, "file", from: inner, version: file.version), one.remove(inner, "inner", from: outer), one.remove(outer, "outer"),
        ])
        let answer = try await restore(one, "outer")
        #expect(answer.files == 1)
        #expect(try await one.list(inner).keys.sorted() == ["file"])
        try await fixture.expectClean()
    }

    @Test func purgingFreesAndIsForGood() async throws {
        let one = try await device()
        let file = try await one.makeFile("note", "text"), other = try await one.makeFile("other", "long text")
        try await one.commit([one.remove(file.node, "note", version: file.version), one.remove(other.node, "other", version: other.version)])
        let answer = try await one.drive.purgeTrash(one.session, one.namespace, TrashRequest(path: "note"))
        #expect(answer.files == 1 && answer.bytes == 4)
        await #expect(throws: DriveError.self) { try await restore(one, "note") }
        #expect(try await trash(one).map(\.path) == ["other"])
        // By itself: files that lived less than a minute go after an hour, the others when the account says so.
        let old = try await one.makeFile("old", "older")
        fixture.clock.advance(seconds: 90)
        try await one.commit([one.remove(old.node, "old", version: old.version)])
        fixture.clock.advance(seconds: 3700)
        #expect(try await one.drive.thin().purged == 1)
        #expect(try await trash(one).map(\.path) == ["old"])
        fixture.clock.advance(seconds: 31 * 86_400)
        #expect(try await one.drive.thin().purged == 1)
        #expect(try await trash(one).isEmpty)
        #expect(try await one.drive.namespaceInformation(one.session, one.namespace).used == 0)
        _ = try await one.drive.collectGarbage(graceSeconds: 0)
        #expect(try await one.drive.fsck(checkBytes: true).chunks == 0)
        try await fixture.expectClean()
    }

    /// Dropped for good while a device still wrote it, which then removed it, all in one commit: what it wrote lies in the trash.
    @Test func whatIsWrittenAfterThePurgeAndRemovedIsInTheTrash() async throws {
        let one = try await device(), other = try await fixture.device("ada", "other")
        let file = try await one.makeFile("note", "text")
        try await one.commit([one.remove(file.node, "note", version: file.version)])
        _ = try await one.drive.purgeTrash(one.session, one.namespace, TrashRequest())
        let late = VersionID.make()
        let outcomes = try await other.commit(
            [other.write(file.node, base: file.version, "late", as: late), other.remove(file.node, "note", version: late)], chunks: [Array("late".utf8)])
        #expect(outcomes.map(\.outcome) == [.merged, .applied])
        #expect(try await trash(one).map(\.path) == ["note"])
        _ = try await restore(one, "note")
        #expect(try await one.text(try await one.list()["note"]) == "late")
        try await fixture.expectClean()
    }

    // MARK: Folders as of a time

    /// Everything that can happen to a tree, and then back.
    @Test func aFolderComesBackAsItWas() async throws {
        let one = try await device()
        let folder = try await one.makeDirectory("folder"), sub = try await one.makeDirectory("sub", in: folder)
        let edited = try await makeFile(one, "edited", in: folder, "1"), removed = try await makeFile(one, "removed", in: sub, "2")
        let renamed = try await makeFile(one, "renamed", in: folder, "3"), out = try await makeFile(one, "out", in: sub, "4")
        let swapped = try await makeFile(one, "a", in: folder, "5"), other = try await makeFile(one, "b", in: folder, "6")
        fixture.clock.advance(seconds: 100)
        let then = fixture.clock.now
        fixture.clock.advance(seconds: 100)
        let outside = try await one.makeDirectory("outside")
        try await one.commit([
            one.write(edited.node, base: edited.version, "1 edited"), one.remove(removed.node, "removed", from: sub, version: removed.version),
            one.rename(renamed.node, "renamed", to: "other name", from: folder, in: folder),
            one.rename(out.node, "out", to: "out", from: sub, in: outside),
            .exchange(node: swapped.node, parent: folder, name: "a", otherNode: other.node, otherParent: folder, otherName: "b", time: fixture.clock.now),
        ], chunks: [Array("1 edited".utf8)])
        try await one.commit([one.remove(sub, "sub", from: folder)])
        _ = try await makeFile(one, "sub", in: folder, "a file where a folder was")
        _ = try await makeFile(one, "new", in: folder, "7")
        fixture.clock.advance(seconds: 100)
        let answer = try await one.drive.restoreFolder(one.session, one.namespace, FolderRestoreRequest(path: "folder", at: then))
        #expect(answer.notes == [] && answer.removed == 2)
        let listing = try await one.list(folder)
        #expect(listing.keys.sorted() == ["a", "b", "edited", "renamed", "sub"])
        var texts: [String: String?] = [:]
        for (name, node) in listing where name != "sub" { texts[name] = try await one.text(node) }
        #expect(texts == ["a": "5", "b": "6", "edited": "1", "renamed": "3"])
        #expect(listing["renamed"]?.id == renamed.node && listing["sub"]?.id == sub)
        let below = try await one.list(sub)
        #expect(below.keys.sorted() == ["out", "removed"])
        #expect(try await one.text(below["out"]) == "4")
        #expect(try await one.list(outside)["out"]?.id == out.node, "what left the folder stays where it is")
        #expect(try await trash(one).map(\.path).sorted() == ["folder/new", "folder/sub"])
        try await fixture.expectClean()
        // The same again changes nothing but the copy of what left the folder.
        let again = try await one.drive.restoreFolder(one.session, one.namespace, FolderRestoreRequest(path: "folder", at: then))
        #expect(again.files == 1 && again.removed == 1)
        // A time when it was not there.
        await #expect(throws: DriveError.self) {
            try await one.drive.restoreFolder(one.session, one.namespace, FolderRestoreRequest(path: "folder", at: then.adding(seconds: -1000)))
        }
    }

    /// Random trees and changes; the root as it was at random times. `BOXFS_SEED` repeats a run.
    @Test func randomTreesComeBack() async throws {
        let seed = SeededGenerator.seed()
        let one = try await device()
        var settings = NamespaceSettings()
        (settings.versionSeconds, settings.guardFiles) = (0, 0)
        try await one.drive.setNamespaceSettings(one.session, one.namespace, settings)
        var world = DriveRandomTests.World(generator: SeededGenerator(state: seed), root: one.root)
        var states: [(time: Timestamp, tree: [String: String])] = []
        for round in 0..<40 {
            var operations: [Shared.Operation] = [], bodies: [[UInt8]] = []
            for _ in 0..<20 {
                let operation = world.draw(one, &bodies)
                if case .link = operation { continue }      // two names of one file come back as two names or as two files
                operations.append(operation)
            }
            try await one.commit(operations, chunks: bodies)
            fixture.clock.advance(seconds: 100)
            states.append((fixture.clock.now, try await tree(one)))
            fixture.clock.advance(seconds: 100)
            guard round % 4 == 3, let state = states.randomElement(using: &world.generator) else { continue }
            let answer = try await one.drive.restoreFolder(one.session, one.namespace, FolderRestoreRequest(path: "", at: state.time))
            let now = try await tree(one)
            #expect(answer.notes == [], "round \(round)")
            let wrong = Set(now.keys).union(state.tree.keys).filter { now[$0] != state.tree[$0] }
            #expect(wrong == [], "round \(round)")
            try await fixture.expectClean()
        }
    }

    /// Path → text of each file, and of each directory "/".
    private func tree(_ device: TestDevice, _ directory: NodeID? = nil, _ path: String = "") async throws -> [String: String] {
        var found: [String: String] = [:]
        for (name, node) in try await device.list(directory) {
            if node.mode & 0o170000 == FileType.directory.rawValue {
                found[path + name] = "/"
                found.merge(try await tree(device, node.id, path + name + "/")) { first, _ in first }
            } else {
                found[path + name] = try await device.text(node)
            }
        }
        return found
    }

    // MARK: Mass changes

    /// A folder of files in subfolders, made some time ago.
    private func fill(_ device: TestDevice, _ count: Int) async throws -> (folder: NodeID, files: [(node: NodeID, version: VersionID)]) {
        let folder = try await device.makeDirectory("photos")
        var operations: [Shared.Operation] = [], bodies: [[UInt8]] = [], files: [(node: NodeID, version: VersionID)] = []
        for index in 0..<count {
            let node = device.node(.regular), version = VersionID.make(), text = "picture \(index)"
            operations += [.create(node: node, parent: folder, name: "p\(index)"), device.write(node.id, base: nil, text, as: version)]
            bodies.append(Array(text.utf8))
            files.append((node.id, version))
        }
        try await device.commit(operations, chunks: bodies)
        return (folder, files)
    }

    private func events(_ device: TestDevice) async throws -> [MassChange] { try await device.drive.massChanges(device.session, device.namespace) }

    /// `rm -rf`, in several commits, right after the files were made.
    @Test func aMassDeletionIsTakenBackWhole() async throws {
        let one = try await device()
        let (folder, files) = try await fill(one, 300)
        let note = try await one.makeFile("note", "text")
        try await one.commit([one.write(note.node, base: note.version, "edited")], chunks: [Array("edited".utf8)])
        for start in stride(from: 0, to: 300, by: 50) {
            try await one.commit((start..<start + 50).map { one.remove(files[$0].node, "p\($0)", from: folder, version: files[$0].version) })
            fixture.clock.advance(seconds: 10)
            #expect(try await events(one).count == (start < 150 ? 0 : 1))
        }
        try await one.commit([one.remove(folder, "photos")])
        let event = try #require(try await events(one).first)
        #expect(event.removed == 300 && event.rewritten == 0 && event.path == "photos" && event.device == "desk" && event.author == "ada")
        fixture.clock.advance(seconds: 5 * 3600)
        _ = try await one.drive.thin()     // short-lived files are kept while they can be undone
        let answer = try await one.drive.undo(one.session, one.namespace, event.id)
        #expect(answer.files == 300 && answer.notes == [])
        let listing = try await one.list(folder)
        #expect(listing.count == 300)
        #expect(try await one.text(listing["p7"]) == "picture 7")
        #expect(try await one.text(try await one.list()["note"]) == "edited", "what happened elsewhere stays")
        #expect(try await events(one).first?.undone != nil)
        await #expect(throws: DriveError.self) { try await one.drive.undo(one.session, one.namespace, event.id) }
        try await fixture.expectClean()
    }

    /// Every file rewritten within a minute of its making, twice, and some under another name; one was repaired by another device since.
    @Test func aMassRewriteIsTakenBackButNotOthersWork() async throws {
        let one = try await device(), two = try await fixture.device("ada", "lap")
        let (folder, files) = try await fill(one, 250)
        var operations: [Shared.Operation] = [], bodies: [[UInt8]] = [], versions: [VersionID] = []
        for (index, file) in files.enumerated() {
            let first = VersionID.make(), second = VersionID.make()
            operations += [one.write(file.node, base: file.version, "locked \(index)", as: first), one.write(file.node, base: first, "locked twice \(index)", as: second)]
            bodies += [Array("locked \(index)".utf8), Array("locked twice \(index)".utf8)]
            versions.append(second)
            if index < 100 { operations.append(one.rename(file.node, "p\(index)", to: "p\(index).locked", from: folder, in: folder)) }
        }
        try await one.commit(operations, chunks: bodies)
        let event = try #require(try await events(one).first)
        #expect(event.rewritten == 250 && event.removed == 0)
        try await two.commit([two.write(files[200].node, base: versions[200], "repaired")], chunks: [Array("repaired".utf8)])
        let answer = try await one.drive.undo(one.session, one.namespace, event.id)
        #expect(answer.files == 249 && answer.notes.count == 1)
        let listing = try await one.list(folder)
        #expect(Set(listing.keys) == Set((0..<250).map { "p\($0)" }))
        for index in [0, 99, 100, 249] { #expect(try await one.text(listing["p\(index)"]) == "picture \(index)") }
        #expect(try await one.text(listing["p200"]) == "repaired")
        try await fixture.expectClean()
    }

    /// Many files, but a small part of the folder; or a large part of few files; or slowly: no mass change.
    @Test func ordinaryWorkIsNoMassChange() async throws {
        let one = try await device()
        let (folder, files) = try await fill(one, 900)
        try await one.commit((0..<250).map { one.remove(files[$0].node, "p\($0)", from: folder, version: files[$0].version) })
        #expect(try await events(one).isEmpty, "250 of 900")
        fixture.clock.advance(seconds: 700)
        try await one.commit((250..<440).map { one.remove(files[$0].node, "p\($0)", from: folder, version: files[$0].version) })
        #expect(try await events(one).isEmpty, "190")
        try await one.commit((440..<490).map { one.remove(files[$0].node, "p\($0)", from: folder, version: files[$0].version) })
        #expect(try await events(one).count == 1, "240 of 650")
        try await fixture.expectClean()
    }
}
