import Foundation
import Shared
import Testing
import TestSupport
@testable import Server

/// Versions: what is kept, for how long, and how it comes back.
@Suite struct DriveHistoryTests {
    let fixture: DriveFixture
    let day: Int64 = 86_400

    init() throws { fixture = try DriveFixture() }

    private func device(_ name: String = "desk") async throws -> TestDevice {
        if name == "desk" { try await fixture.account("ada") }
        return try await fixture.device("ada", name)
    }

    private func history(_ device: TestDevice, _ path: String) async throws -> [VersionInformation] {
        var found: [VersionInformation] = [], after: String?
        repeat {
            let page = try await device.drive.versions(device.session, device.namespace, node: nil, path: path, after: after, limit: 2)
            found += page.versions
            after = page.next
        } while after != nil
        return found
    }

    /// Writes one version after the other, each based on the last.
    private func write(_ device: TestDevice, _ node: NodeID, _ base: VersionID, _ texts: [String], every seconds: Int64) async throws -> VersionID {
        var base = base
        for text in texts {
            fixture.clock.advance(seconds: seconds)
            let version = VersionID.make()
            let results = try await device.commit([device.write(node, base: base, text, as: version)], chunks: [Array(text.utf8)])
            #expect(results[0].outcome == .applied)
            base = version
        }
        return base
    }

    /// A file that is written every 20 seconds for ten minutes keeps a version a minute, not each and not only the last.
    @Test func writesAreCoalesced() async throws {
        let one = try await device()
        let file = try await one.makeFile("log", "0")
        _ = try await write(one, file.node, file.version, (1...30).map { "line \($0)" }, every: 20)
        let kept = try await history(one, "log")
        #expect((9...11).contains(kept.count), "\(kept.count)")
        for (newer, older) in zip(kept.dropFirst(), kept.dropFirst(2)) { #expect(newer.created.nanoseconds - older.created.nanoseconds >= 60_000_000_000) }
        #expect(kept[0].current && kept.dropFirst().allSatisfy { !$0.current })
        try await fixture.expectClean()
        // What others took the place of helps merges for an hour; then its bytes go as well.
        let before = try await one.drive.namespaceInformation(one.session, one.namespace).used
        fixture.clock.advance(seconds: 2 * Drive.transientSeconds + day)
        _ = try await one.drive.thin()
        #expect(try await one.drive.namespaceInformation(one.session, one.namespace).used < before)
        try await fixture.expectClean()
    }

    @Test func coalescingIsASettingOfTheNamespace() async throws {
        let one = try await device()
        var settings = NamespaceSettings()
        settings.versionSeconds = 0
        try await one.drive.setNamespaceSettings(one.session, one.namespace, settings)
        let file = try await one.makeFile("log", "0")
        _ = try await write(one, file.node, file.version, ["1", "2", "3"], every: 1)
        #expect(try await history(one, "log").count == 4)
    }

    /// Another device's version is never coalesced, nor is a named one.
    @Test func othersVersionsStay() async throws {
        let one = try await device(), two = try await device("lap")
        let file = try await one.makeFile("note", "0")
        let theirs = try await write(two, file.node, file.version, ["by lap"], every: 1)
        try await two.drive.nameVersion(two.session, two.namespace, theirs, "draft")
        _ = try await write(two, file.node, theirs, ["by lap again"], every: 1)
        #expect(try await history(one, "note").map(\.name) == [nil, "draft", nil])
        let other = try await history(one, "note")[0].id
        await #expect(throws: DriveError.self) { try await two.drive.nameVersion(two.session, two.namespace, other, "draft") }
    }

    /// Random times of writing, ages and settings: each hour and each day keeps its last, whatever the order of the runs.
    @Test func retentionKeepsTheLastOfEachPeriod() {
        var random = SeededGenerator()
        let settings = RetentionSettings()
        let start: Int64 = 1_800_000_000
        var versions = (0..<3000).map { _ in start + Int64.random(in: 0..<120 * 86_400, using: &random) }.sorted()
            .map { (id: VersionID.make(), created: Timestamp(nanoseconds: $0 * 1_000_000_000)) }
        let all = versions
        let now = Timestamp(nanoseconds: (start + 120 * 86_400) * 1_000_000_000)
        // As the server does: again and again while time goes on. The result is that of one run at the end.
        for passed in stride(from: Int64(1), through: 120, by: 1) {
            let time = Timestamp(nanoseconds: (start + passed * 86_400) * 1_000_000_000)
            let gone = Set(Retention.expired(versions.filter { $0.created <= time }, now: time, settings))
            versions.removeAll { gone.contains($0.id) }
        }
        let once = Set(Retention.expired(all, now: now, settings))
        #expect(versions.map(\.id) == all.map(\.id).filter { !once.contains($0) })
        func seconds(_ version: (id: VersionID, created: Timestamp)) -> Int64 { version.created.nanoseconds / 1_000_000_000 }
        let kept = Set(versions.map(\.id))
        for version in all {
            let age = (now.nanoseconds - version.created.nanoseconds) / 1_000_000_000
            let period: Int64? = age < 86_400 ? 1 : age < 7 * 86_400 ? 3600 : age < 90 * 86_400 ? 86_400 : nil
            guard let period, period > 1 else {
                #expect(kept.contains(version.id) == (period == 1))
                continue
            }
            let last = all.last { other in
                let otherAge = (now.nanoseconds - other.created.nanoseconds) / 1_000_000_000
                return seconds(other) / period == seconds(version) / period && (otherAge < 7 * 86_400) == (age < 7 * 86_400) && otherAge >= 86_400
            }
            #expect(kept.contains(version.id) == (last?.id == version.id))
        }
    }

    /// The same on the server: named and current versions stay for ever, the chunks of the others are freed.
    @Test func thinningFreesWhatNobodyKeeps() async throws {
        let one = try await device()
        let file = try await one.makeFile("note", "first")
        try await one.drive.nameVersion(one.session, one.namespace, file.version, "1.0")
        let last = try await write(one, file.node, file.version, (0..<48).map { "text \($0)" }, every: 1800)
        #expect(try await history(one, "note").count == 49)
        fixture.clock.advance(seconds: 2 * day)
        _ = try await one.drive.thin()
        #expect((24...27).contains(try await history(one, "note").count))
        fixture.clock.advance(seconds: 100 * day)
        let report = try await one.drive.thin()
        #expect(report.versions > 20 && report.bytes > 0)
        #expect(try await history(one, "note").map(\.id) == [last, file.version])
        _ = try await one.drive.collectGarbage(graceSeconds: 0)
        #expect(try await one.drive.fsck(checkBytes: true).chunks == 2)
        try await fixture.expectClean()
    }

    @Test func restoringMakesANewVersion() async throws {
        let one = try await device()
        let file = try await one.makeFile("note", "old")
        let new = try await write(one, file.node, file.version, ["new"], every: 120)
        let before = try await one.drive.namespaceInformation(one.session, one.namespace).sequence
        let answer = try await one.drive.restoreVersion(one.session, one.namespace, file.version, to: nil)
        #expect(answer.files == 1 && answer.path == "note")
        #expect(try await one.text(try await one.list()["note"]) == "old")
        let versions = try await history(one, "note")
        #expect(versions.count == 3 && versions[0].kind == .restore && versions[0].parents == [new, file.version])
        let page = try await one.drive.changes(one.session, one.namespace, after: before, limit: 100)
        #expect(page.nodes.contains { $0.id == file.node && $0.version == versions[0].id }, "the feed tells the mounts")
        // To a new file; a taken name and a missing folder are refused.
        _ = try await one.drive.restoreVersion(one.session, one.namespace, new, to: "copy")
        #expect(try await one.text(try await one.list()["copy"]) == "new")
        await #expect(throws: DriveError.self) { try await one.drive.restoreVersion(one.session, one.namespace, new, to: "copy") }
        await #expect(throws: DriveError.self) { try await one.drive.restoreVersion(one.session, one.namespace, new, to: "no/copy") }
        try await fixture.expectClean()
    }

    /// What editors do: a new file is written and renamed over the old one. The history goes on, and so does another device's edit.
    @Test func savingByRenameKeepsTheHistory() async throws {
        let one = try await device(), two = try await device("lap")
        let lines = (1...9).map { "line \($0)\n" }
        let file = try await one.makeFile("note", lines.joined())
        fixture.clock.advance(seconds: 300)
        let then = fixture.clock.now
        fixture.clock.advance(seconds: 300)
        let saved = one.node(.regular), version = VersionID.make(), text = "by desk\n" + lines.dropFirst().joined()
        let results = try await one.commit([
            .create(node: saved, parent: one.root, name: "note.tmp"), one.write(saved.id, base: nil, text, as: version),
            one.rename(saved.id, "note.tmp", to: "note", replaced: file.node),
        ], chunks: [Array(text.utf8)])
        #expect(results.map(\.outcome) == [.applied, .applied, .applied])
        #expect(try await history(one, "note").map(\.id) == [version, file.version])
        #expect(try await history(one, "note")[0].parents == [file.version])
        #expect(try await one.drive.trash(one.session, one.namespace, after: nil, limit: 10).items.isEmpty)
        // The other device edited the old file meanwhile, and renames it.
        let edit = lines.dropLast().joined() + "by lap\n"
        #expect(try await two.commit([two.write(file.node, base: file.version, edit)], chunks: [Array(edit.utf8)])[0].outcome == .merged)
        #expect(try await one.text(try await one.list()["note"]) == "by desk\n" + lines.dropFirst().dropLast().joined() + "by lap\n")
        try await two.commit([two.rename(file.node, "note", to: "poem")])
        #expect(try await one.list().mapValues(\.id) == ["poem": saved.id])
        // As it was before all that.
        _ = try await one.drive.restoreFolder(one.session, one.namespace, FolderRestoreRequest(path: "", at: then))
        #expect(try await one.text(try await one.list()["note"]) == lines.joined())
        #expect(try await one.list().count == 1)
        try await fixture.expectClean()
    }

    /// Saved so every few seconds, a file keeps a version a minute; a file of its own that replaces another keeps the two apart.
    @Test func savesByRenameAreCoalesced() async throws {
        let one = try await device()
        var old = try await one.makeFile("note", "0").node
        for round in 1...12 {
            fixture.clock.advance(seconds: 10)
            let saved = one.node(.regular), text = "\(round)"
            try await one.commit([
                .create(node: saved, parent: one.root, name: "note.tmp"), one.write(saved.id, base: nil, text),
                one.rename(saved.id, "note.tmp", to: "note", replaced: old),
            ], chunks: [Array(text.utf8)])
            old = saved.id
        }
        #expect((2...4).contains(try await history(one, "note").count))
        let other = try await one.makeFile("other", "another text")
        fixture.clock.advance(seconds: 100)
        try await one.commit([one.rename(other.node, "other", to: "note", replaced: old)])
        #expect(try await history(one, "note").map(\.id) == [other.version])
        #expect(try await one.drive.trash(one.session, one.namespace, after: nil, limit: 10).items.map(\.path) == ["note"])
        try await fixture.expectClean()
    }

    /// Nobody reads, names or restores a version of a namespace that is not theirs.
    @Test func versionsOfOthersAreNotThere() async throws {
        let one = try await device()
        let file = try await one.makeFile("note", "secret")
        try await fixture.account("eve")
        let eve = try await fixture.device("eve", "den")
        for namespace in [one.namespace, eve.namespace] {
            await #expect(throws: DriveError.self) { try await eve.drive.version(eve.session, namespace, file.version) }
            await #expect(throws: DriveError.self) { try await eve.drive.restoreVersion(eve.session, namespace, file.version, to: "mine") }
            await #expect(throws: DriveError.self) { try await eve.drive.nameVersion(eve.session, namespace, file.version, "x") }
            await #expect(throws: DriveError.self) { try await eve.drive.versions(eve.session, namespace, node: file.node, path: nil, after: nil, limit: 10) }
        }
    }
}
