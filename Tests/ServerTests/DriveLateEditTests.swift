import Shared
import Testing
@testable import Server

/// Edits of a file that was moved, renamed or saved by others meanwhile, however the program saves: they belong to the file, not to its old name.
@Suite struct DriveLateEditTests {
    let fixture: DriveFixture

    init() throws { fixture = try DriveFixture() }

    /// How programs save: into the file; into a new one that is renamed over it, in one commit or in two; vim's way, which moves the old one
    /// aside, makes a new one and removes the old one.
    enum Way: CaseIterable { case write, rename, slowRename, aside, slowAside }
    /// How an edit may come late: a mount that was away sends all of a save at once, but for a file that lay there from before.
    static let late: [Way] = [.write, .rename, .slowRename, .aside]

    private let poem = (1...9).map { "line \($0)\n" }

    private func edited(_ line: Int, _ text: String) -> String {
        var lines = poem
        lines[line] = text + "\n"
        return lines.joined()
    }

    private var both: String { edited(0, "by desk").replacingOccurrences(of: "line 9", with: "by lap") }

    private func devices() async throws -> (TestDevice, TestDevice) {
        try await fixture.account("ada")
        return (try await fixture.device("ada", "desk"), try await fixture.device("ada", "lap"))
    }

    /// Saves as a mount tells it, which knows the file as `name` in the root and has seen `version`.
    @discardableResult
    private func save(
        _ device: TestDevice, _ way: Way, _ node: NodeID, _ version: VersionID, _ text: String, name: String = "poem"
    ) async throws -> [OperationResult] {
        let new = device.node(.regular), bytes = [Array(text.utf8)]
        func commits(_ first: [Shared.Operation], _ then: [Shared.Operation], isSlow: Bool) async throws -> [OperationResult] {
            let content = device.write(new.id, base: nil, text)
            if !isSlow { return try await device.commit(first + then + [content], chunks: bytes) }
            try await device.commit(first + [content], chunks: bytes)
            return try await device.commit(then)
        }
        switch way {
        case .write: return try await device.commit([device.write(node, base: version, text)], chunks: bytes)
        case .rename, .slowRename:
            return try await commits(
                [.create(node: new, parent: device.root, name: "save.tmp")],
                [device.rename(new.id, "save.tmp", to: name, replaced: node, version: version)], isSlow: way == .slowRename)
        case .aside, .slowAside:
            return try await commits(
                [device.rename(node, name, to: name + "~"), .create(node: new, parent: device.root, name: name)],
                [device.remove(node, name + "~", version: version)], isSlow: way == .slowAside)
        }
    }

    private func history(_ device: TestDevice, _ path: String) async throws -> [VersionInformation] {
        try await device.drive.versions(device.session, device.namespace, node: nil, path: path, after: nil, limit: 50).versions
    }

    /// The file was moved to another folder and edited there.
    @Test(arguments: late)
    func editsOfAMovedFileMerge(_ way: Way) async throws {
        let (one, two) = try await devices()
        let archive = try await one.makeDirectory("archive"), file = try await one.makeFile("poem", poem.joined())
        fixture.clock.advance(seconds: 600)
        try await one.commit(
            [one.rename(file.node, "poem", to: "old poem", in: archive), one.write(file.node, base: file.version, edited(0, "by desk"))],
            chunks: [Array(edited(0, "by desk").utf8)])
        fixture.clock.advance(seconds: 600)
        let results = try await save(two, way, file.node, file.version, edited(8, "by lap"))
        #expect(results.allSatisfy { $0.outcome == .applied || $0.outcome == .merged }, "\(results)")
        let root = try await two.list(), moved = try await one.list(archive)
        #expect(root.keys.sorted() == ["archive"])
        #expect(moved.keys.sorted() == ["old poem"])
        #expect(try await one.text(moved["old poem"]) == both)
        let versions = try await history(one, "archive/old poem")
        #expect(versions.map(\.kind) == [.merge, .write, .write, .write])
        #expect(try await one.drive.trash(one.session, one.namespace, after: nil, limit: 10).items.isEmpty)
        try await fixture.expectClean()
    }

    /// Moved only: the edit is the file's next version. Another file may have its old name by now.
    @Test(arguments: late, [true, false])
    func editsGoWhereTheFileIs(_ way: Way, isNameTaken: Bool) async throws {
        if way == .aside, isNameTaken { return }        // what it makes under the taken name becomes a conflicted copy
        let (one, two) = try await devices()
        let archive = try await one.makeDirectory("archive"), file = try await one.makeFile("poem", "first")
        fixture.clock.advance(seconds: 600)
        try await one.commit([one.rename(file.node, "poem", to: "poem", in: archive)])
        if isNameTaken { try await one.makeFile("poem", "another") }
        fixture.clock.advance(seconds: 600)
        try await save(two, way, file.node, file.version, "second")
        #expect(try await one.text(try await one.list(archive)["poem"]) == "second")
        #expect(try await one.text(try await one.list()["poem"]) == (isNameTaken ? "another" : nil))
        #expect(try await history(one, "archive/poem").count == 2)
        // Who saved it believes it to be under its old name: the feed says what is there.
        let told = try await two.drive.changes(two.session, two.namespace, after: 0, limit: 1000).entries.filter { $0.parent == two.root && $0.name == "poem" }
        #expect(told.contains { !$0.deleted } == isNameTaken)
        if way != .write, !isNameTaken {
            let saved = try #require(try await one.list(archive)["poem"]).id
            #expect(told.contains { $0.node == saved && $0.deleted })
        }
        try await fixture.expectClean()
    }

    /// Edits that touch the same lines: the copy lies beside the file, where that is now.
    @Test(arguments: late)
    func copiesLieBesideTheMovedFile(_ way: Way) async throws {
        let (one, two) = try await devices()
        let archive = try await one.makeDirectory("archive"), file = try await one.makeFile("note.txt", "first")
        fixture.clock.advance(seconds: 600)
        try await one.commit(
            [one.rename(file.node, "note.txt", to: "note.txt", in: archive), one.write(file.node, base: file.version, "by desk")],
            chunks: [Array("by desk".utf8)])
        fixture.clock.advance(seconds: 600)
        try await save(two, way, file.node, file.version, "by lap", name: "note.txt")
        let moved = try await one.list(archive), copy = "note (conflicted copy, lap, 2027-01-15).txt"
        #expect(try await one.list().keys.sorted() == ["archive"])
        #expect(moved.keys.sorted() == [copy, "note.txt"])
        #expect(try await one.text(moved["note.txt"]) == "by desk")
        #expect(try await one.text(moved[copy]) == "by lap")
        try await fixture.expectClean()
    }

    /// Both save in ways of their own.
    @Test(arguments: Way.allCases, Way.allCases)
    func savesMerge(_ first: Way, _ second: Way) async throws {
        let (one, two) = try await devices()
        let file = try await one.makeFile("poem", poem.joined())
        fixture.clock.advance(seconds: 600)
        try await save(one, first, file.node, file.version, edited(0, "by desk"))
        fixture.clock.advance(seconds: 600)
        let results = try await save(two, second, file.node, file.version, edited(8, "by lap"))
        let listing = try await one.list()
        #expect(listing.keys.sorted() == ["poem"], "\(results)")
        #expect(try await one.text(listing["poem"]) == both)
        #expect(try await history(one, "poem").map(\.kind) == [.merge, .write, .write, .write])
        try await fixture.expectClean()
    }

    /// vim's way: one history, nothing in the trash, also within the minute in which a device's writes are one version.
    @Test func savesAsideKeepTheHistory() async throws {
        let (one, _) = try await devices()
        let file = try await one.makeFile("poem", "first")
        fixture.clock.advance(seconds: 600)
        var (node, version) = file
        for text in ["second", "third"] {
            try await save(one, .aside, node, version, text)
            let now = try #require(try await one.list()["poem"])
            (node, version) = (now.id, try #require(now.version))
        }
        #expect(try await history(one, "poem").count == 2)
        fixture.clock.advance(seconds: 600)
        try await save(one, .slowAside, node, version, "fourth")
        let versions = try await history(one, "poem")
        #expect(versions.count == 3 && versions[0].parents == [version])
        #expect(try await one.drive.trash(one.session, one.namespace, after: nil, limit: 10).items.isEmpty)
        try await fixture.expectClean()
    }

    /// What looks alike and is no save: the removed file goes to the trash.
    @Test func otherRemovalsAreNoSaves() async throws {
        let (one, two) = try await devices()
        let kept = try await one.makeFile("kept", "old"), another = try await one.makeDirectory("another")
        func trash() async throws -> [String] { try await one.drive.trash(one.session, one.namespace, after: nil, limit: 10).items.map(\.path).sorted() }
        fixture.clock.advance(seconds: 600)
        // Moved away, a new one made later.
        try await one.commit([one.rename(kept.node, "kept", to: "kept.old")])
        fixture.clock.advance(seconds: 600)
        try await one.makeFile("kept", "new")
        try await one.commit([one.remove(kept.node, "kept.old", version: kept.version)])
        #expect(try await trash() == ["kept.old"])
        // By somebody else, or out of another folder.
        let other = try await one.makeFile("other", "old"), third = try await one.makeFile("third", "old")
        fixture.clock.advance(seconds: 600)
        try await one.commit([one.rename(other.node, "other", to: "other~"), one.rename(third.node, "third", to: "third", in: another)])
        try await two.makeFile("other", "by lap")
        try await one.makeFile("third", "new")
        try await one.commit([one.remove(other.node, "other~", version: other.version), one.remove(third.node, "third", from: another, version: third.version)])
        #expect(try await trash() == ["another/third", "kept.old", "other~"])
        try await fixture.expectClean()
    }
}
