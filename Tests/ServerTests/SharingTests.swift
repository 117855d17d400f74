import Foundation
import Shared
import Testing
@testable import Server

/// Folders that become namespaces of their own, and who is in them.
@Suite struct SharingTests {
    private func code(_ body: () async throws -> Void) async -> String {
        do {
            try await body()
            return "done"
        } catch let error as DriveError {
            return switch error {
            case .forbidden: "forbidden"
            case .notFound: "not found"
            case .badRequest(let detail): detail
            case .nameTaken: "name taken"
            case .quotaExceeded: "quota"
            default: "\(error)"
            }
        } catch { return "\(error)" }
    }

    /// ada's device, bob's, and a folder of ada's with a file, its older version, a removed file and a folder in it.
    private struct World {
        let fixture: DriveFixture, ada: TestDevice, bob: TestDevice
        let folder: NodeID, inner: NodeID, note: NodeID, removed: NodeID, first: VersionID
    }

    private func world() async throws -> World {
        let fixture = try DriveFixture()
        for name in ["ada", "bob", "eve"] { try await fixture.account(name) }
        let ada = try await fixture.device("ada", "desk"), bob = try await fixture.device("bob", "lap")
        let folder = try await ada.makeDirectory("docs"), inner = try await ada.makeDirectory("inner", in: folder)
        let note = ada.node(.regular), removed = ada.node(.regular), first = VersionID.make(), last = VersionID.make()
        try await ada.commit(
            [.create(node: note, parent: inner, name: "note"), ada.write(note.id, base: nil, "one", as: first),
             .create(node: removed, parent: folder, name: "old"), ada.write(removed.id, base: nil, "gone", as: last)],
            chunks: [Array("one".utf8), Array("gone".utf8)])
        fixture.clock.advance(seconds: 120)
        try await ada.commit([ada.write(note.id, base: first, "two"), ada.remove(removed.id, "old", from: folder, version: last)], chunks: [Array("two".utf8)])
        try await ada.makeFile("private", "secret")
        return World(fixture: fixture, ada: ada, bob: bob, folder: folder, inner: inner, note: note.id, removed: removed.id, first: first)
    }

    @Test func aFolderIsSharedInPlace() async throws {
        let world = try await world(), drive = world.fixture.drive, ada = world.ada
        let before = try await drive.namespaceInformation(ada.session, ada.namespace)
        let link = try await drive.createLink(ada.session, ada.namespace, LinkRequest(path: "docs/inner/note"))
        let share = try await drive.share(ada.session, ada.namespace, "docs")
        #expect(share.path == "docs" && share.role == .owner && share.name == "docs")
        #expect(try await drive.share(ada.session, ada.namespace, "docs").namespace == share.namespace, "once is enough")
        try await world.fixture.expectClean()

        // The home's feed tells a junction, and no removal.
        let page = try await drive.changes(ada.session, ada.namespace, after: before.sequence, limit: 1000)
        #expect(page.entries.map(\.name) == ["docs"] && !page.entries.contains(where: \.deleted) && !page.nodes.contains(where: \.deleted))
        let junction = try #require(page.nodes.first { $0.shared != nil })
        #expect(junction.shared?.namespace == share.namespace && junction.shared?.root == world.folder && junction.shared?.role == .owner)
        #expect(page.nodes.contains { $0.id == world.folder })

        // Nodes, history, trash and links are there as before.
        let shared = TestDevice(fixture: world.fixture, session: ada.session, namespace: share.namespace, root: world.folder, name: "desk")
        #expect(try await shared.list(world.inner)["note"]?.id == world.note)
        #expect(try await shared.text(shared.list(world.inner)["note"]) == "two")
        #expect(try await drive.versions(ada.session, share.namespace, node: nil, path: "inner/note", after: nil, limit: 10).versions.count == 2)
        #expect(try await drive.trash(ada.session, share.namespace, after: nil, limit: 10).items.map(\.path) == ["old"])
        #expect(try await drive.trash(ada.session, ada.namespace, after: nil, limit: 10).items.isEmpty)
        _ = try await drive.restoreTrash(ada.session, share.namespace, TrashRequest(path: "old"))
        #expect(try await shared.list()["old"]?.id == world.removed)
        #expect(try await drive.link(ada.session, named: link.link.id.description).path == "inner/note")
        // The feed goes on where a reader of the home was.
        let rows = try await drive.changes(ada.session, share.namespace, after: 0, limit: 1000)
        #expect(Set(rows.entries.map(\.name)).isSuperset(of: ["inner", "note", "old"]))
        #expect(try await drive.restoreVersion(ada.session, share.namespace, world.first, to: nil).path == "inner/note")
        let space = try await drive.namespaceInformation(ada.session, ada.namespace)
        #expect(space.used == "one".utf8.count + "two".utf8.count + "gone".utf8.count + "secret".utf8.count, "the owner's quota counts both")
        try await world.fixture.expectClean()
    }

    @Test func sharesWithinSharesAreRefused() async throws {
        let world = try await world(), drive = world.fixture.drive, ada = world.ada
        #expect(await code { _ = try await drive.share(ada.session, ada.namespace, "") }.contains("whole tree"))
        #expect(await code { _ = try await drive.share(ada.session, ada.namespace, "private") }.contains("Only folders"))
        #expect(await code { _ = try await drive.share(ada.session, ada.namespace, "nothing") } == "not found")
        #expect(await code { _ = try await drive.share(world.bob.session, ada.namespace, "docs") } == "not found")
        let share = try await drive.share(ada.session, ada.namespace, "docs")
        #expect(await code { _ = try await drive.share(ada.session, ada.namespace, "docs/inner") }.contains("lies in the shared folder docs"))
        #expect(await code { _ = try await drive.share(ada.session, share.namespace, "inner") }.contains("inside a shared folder"))
        let outer = try await ada.makeDirectory("outer"), junction = try #require(try await ada.list()["docs"])
        try await ada.commit([ada.rename(junction.id, "docs", to: "docs", in: outer)])
        #expect(await code { _ = try await drive.share(ada.session, ada.namespace, "outer") }.contains("holds the shared folder outer/docs"))
        // A junction is nothing that could be filled, replaced or removed.
        let file = try await ada.makeFile("file", "x"), other = try await ada.makeDirectory("other")
        let results = try await ada.commit([
            .create(node: ada.node(.regular), parent: junction.id, name: "inside"), ada.remove(junction.id, "docs", from: outer),
            ada.rename(other, "other", to: "docs", in: outer, replaced: junction.id), .create(node: ada.node(.directory), parent: outer, name: "docs"),
            ada.remove(outer, "outer"), ada.rename(file.node, "file", to: "docs", in: outer, replaced: junction.id),
        ])
        #expect(results.map(\.outcome) == [.refused, .refused, .conflicted, .conflicted, .refused, .conflicted])
        #expect(try await ada.list(outer)["docs"]?.id == junction.id)
        try await world.fixture.expectClean()
    }

    @Test func aHardLinkAcrossTheBorderIsNamed() async throws {
        let world = try await world(), drive = world.fixture.drive, ada = world.ada
        try await ada.commit([.link(node: world.note, parent: ada.root, name: "twin", time: world.fixture.clock.now)])
        #expect(await code { _ = try await drive.share(ada.session, ada.namespace, "docs") }.contains("twin is a hard link"))
        try await ada.commit([ada.remove(world.note, "twin", version: ada.list(world.inner)["note"]?.version)])
        _ = try await drive.share(ada.session, ada.namespace, "docs")
        try await world.fixture.expectClean()
    }

    /// What a mount that was away says of things that have moved is applied where they are.
    @Test func lateCommitsReachTheSharedFolder() async throws {
        let world = try await world(), drive = world.fixture.drive, ada = world.ada, last = try await ada.list(world.inner)["note"]?.version
        let share = try await drive.share(ada.session, ada.namespace, "docs")
        let fresh = ada.node(.directory), file = ada.node(.regular)
        let request: [Shared.Operation] = [
            ada.write(world.note, base: last, "late"), .create(node: fresh, parent: world.folder, name: "fresh"),
            .create(node: file, parent: fresh.id, name: "file"), ada.write(file.id, base: nil, "new"), ada.rename(world.folder, "docs", to: "papers"),
            ada.rename(world.note, "note", to: "stolen", from: world.inner, in: ada.root),
            .setattr(node: world.folder, mode: 0o700, uid: nil, gid: nil, accessed: nil, modified: nil, changed: world.fixture.clock.now),
        ]
        let upload = try await ada.upload([Array("late".utf8), Array("new".utf8)])
        let answer = try await drive.commit(ada.session, ada.namespace, ada.request(request, upload))
        #expect(answer.results.map(\.outcome) == [.applied, .applied, .applied, .applied, .applied, .refused, .applied])
        #expect(answer.results.map { $0.namespace == share.namespace } == [true, true, true, true, false, false, true])
        #expect(Set(answer.before?.map(\.namespace) ?? []) == [ada.namespace, share.namespace])
        let shared = TestDevice(fixture: world.fixture, session: ada.session, namespace: share.namespace, root: world.folder, name: "desk")
        #expect(try await shared.text(shared.list(world.inner)["note"]) == "late")
        #expect(try await shared.text(shared.list(fresh.id)["file"]) == "new")
        #expect(try await ada.list()["papers"]?.shared?.namespace == share.namespace)
        #expect(try await drive.node(ada.session, share.namespace, world.folder).mode & 0o777 == 0o700)
        try await world.fixture.expectClean()

        // A viewer's are refused, one by one.
        try await drive.setMember(ada.session, share.namespace, "bob", .viewer)
        let results = try await world.bob.commit([world.bob.write(world.note, base: nil, "mine"), .create(node: world.bob.node(.regular), parent: world.bob.root, name: "own")], chunks: [Array("mine".utf8)])
        #expect(results.map(\.code) == [ProblemCode.forbidden.rawValue, nil])
        try await world.fixture.expectClean()
    }

    @Test func rolesAreGivenAndTaken() async throws {
        let world = try await world(), drive = world.fixture.drive, ada = world.ada.session, bob = world.bob.session
        let eve = try await world.fixture.device("eve", "pad").session
        let space = try await drive.share(ada, world.ada.namespace, "docs").namespace
        _ = try await world.bob.makeDirectory("docs")
        try await drive.setMember(ada, space, "bob", .viewer)
        let junction = try #require(try await world.bob.list()["docs (shared)"], "the name was taken")
        #expect(junction.shared?.role == .viewer)
        #expect(try await drive.shares(bob).map(\.path) == ["docs (shared)"])
        #expect(await code { try await drive.setMember(bob, space, "eve", .viewer) } == "forbidden")
        let before = try await drive.namespaceInformation(bob, bob.home).sequence
        try await drive.setMember(ada, space, "bob", .manager)
        let page = try await drive.changes(bob, bob.home, after: before, limit: 100)
        #expect(page.nodes.first { $0.id == junction.id }?.shared?.role == .manager, "the home's feed tells the new role")
        try await drive.setMember(bob, space, "eve", .editor)
        #expect(await code { try await drive.setMember(bob, space, "eve", .manager) } == "forbidden", "managers are the owner's to make")
        #expect(await code { try await drive.setMember(bob, space, "ada", .viewer) } == "forbidden")
        #expect(await code { try await drive.setMember(bob, space, "bob", .viewer) }.contains("own role"))
        #expect(await code { try await drive.removeMember(bob, space, "ada") } == "forbidden")
        #expect(await code { try await drive.removeMember(eve, space, "bob") } == "forbidden")
        #expect(await code { _ = try await drive.purgeTrash(eve, space, TrashRequest()) } == "forbidden", "an editor drops nothing for good")
        _ = try await drive.purgeTrash(bob, space, TrashRequest())
        #expect(await code { try await drive.setMember(ada, space, "nobody", .viewer) } == "not found")
        #expect(await code { try await drive.setMember(ada, ada.home, "bob", .viewer) }.contains("whole tree"))
        #expect(await code { try await drive.removeMember(ada, space, "ada") } == "forbidden", "the owner stays")
        #expect(try await drive.members(eve, space).map(\.account) == ["ada", "bob", "eve"])
        try await drive.removeMember(eve, space, "eve")
        #expect(await code { _ = try await drive.changes(eve, space, after: 0, limit: 100) } == "not found")
        try await drive.transfer(ada, space, to: "bob")
        #expect(await code { try await drive.transfer(ada, space, to: "bob") } == "forbidden")
        try await drive.removeMember(bob, space, "ada")
        #expect(try await world.ada.list()["docs"] == nil)
        #expect(try await drive.trash(ada, ada.home, after: nil, limit: 10).items.isEmpty, "a folder that one left is no trash")
        let actions = try await drive.audit(bob, space, AuditFilter()).records.map(\.action)
        #expect(actions.filter { $0.hasPrefix("member") || $0.hasPrefix("share") } == [
            "member-removed", "share-transferred", "member-left", "member-added", "member-invited", "member-role", "member-added", "member-invited", "shared",
        ])
        try await world.fixture.expectClean()
    }

    @Test func invitationsWaitWhereTheAccountSaysSo() async throws {
        let world = try await world(), drive = world.fixture.drive, ada = world.ada.session, bob = world.bob.session
        let space = try await drive.share(ada, world.ada.namespace, "docs").namespace
        try await drive.setSharingSettings(bob, SharingSettings(acceptsAutomatically: false))
        try await drive.setMember(ada, space, "bob", .editor)
        #expect(try await drive.shares(bob).map(\.path) == [nil])
        #expect(try await drive.shares(bob).map(\.invitedBy) == ["ada"])
        #expect(try await drive.members(ada, space).map(\.invited) == [false, true])
        #expect(await code { _ = try await drive.changes(bob, space, after: 0, limit: 100) } == "not found")
        try await drive.decline(bob, space)
        #expect(await code { _ = try await drive.accept(bob, space, at: nil) } == "not found")
        try await drive.setMember(ada, space, "bob", .editor)
        _ = try await world.bob.makeDirectory("work")
        #expect(await code { _ = try await drive.accept(bob, space, at: "nowhere/adas") } == "not found")
        #expect(await code { _ = try await drive.accept(bob, space, at: "work") } == "name taken")
        #expect(try await drive.accept(bob, space, at: "work/adas").path == "work/adas")
        #expect(await code { _ = try await drive.accept(bob, space, at: "again") }.contains("already"))
        try await world.fixture.expectClean()
    }

    @Test func quotasCountForTheOwner() async throws {
        let fixture = try DriveFixture()
        try await fixture.account("ada", quota: 20)
        try await fixture.account("bob", quota: 5)
        let ada = try await fixture.device("ada", "desk"), bob = try await fixture.device("bob", "lap")
        let folder = try await ada.makeDirectory("docs")
        let space = try await ada.drive.share(ada.session, ada.namespace, "docs").namespace
        try await ada.drive.setMember(ada.session, space, "bob", .editor)
        let guest = TestDevice(fixture: fixture, session: bob.session, namespace: space, root: folder, name: "lap")
        try await guest.makeFile("ten", "0123456789")
        #expect(try await bob.drive.changes(bob.session, space, after: 0, limit: 100).quota == nil, "the owner's quota is the owner's to know")
        try await ada.makeFile("eight", "01234567")
        #expect(await code { try await guest.makeFile("three", "abc") } == "quota")
        #expect(await code { try await ada.drive.transfer(ada.session, space, to: "bob") } == "quota")
        #expect(try await ada.drive.namespaceInformation(ada.session, ada.namespace).used == 18)
        try await fixture.expectClean()
    }

    @Test func groupsComeAndGo() async throws {
        let world = try await world(), drive = world.fixture.drive, ada = world.ada.session, bob = world.bob.session
        let eve = try await world.fixture.device("eve", "pad").session
        let space = try await drive.share(ada, world.ada.namespace, "docs").namespace
        try await drive.addGroup(ada, "team")
        #expect(await code { try await drive.addGroup(ada, "team") } == "name taken")
        try await drive.addToGroup(ada, "team", "bob")
        #expect(await code { try await drive.addToGroup(bob, "team", "eve") } == "not found", "a group is its owner's")
        try await drive.setGroup(ada, space, "team", .viewer)
        #expect(try await drive.shares(bob).map(\.role) == [.viewer])
        try await drive.setMember(ada, space, "bob", .editor)
        try await drive.addToGroup(ada, "team", "eve")
        #expect(try await drive.members(ada, space).map { "\($0.account) \($0.role) \($0.groups)" } == ["ada owner []", #"bob editor ["team"]"#, #"eve viewer ["team"]"#])
        #expect(try await drive.members(bob, space).allSatisfy { $0.groups.isEmpty })
        try await drive.removeFromGroup(ada, "team", "eve")
        #expect(try await drive.shares(eve).isEmpty)
        try await drive.removeGroup(ada, "team", from: space)
        #expect(try await drive.shares(bob).map(\.role) == [.editor], "what was given by name stays")
        try await drive.setGroup(ada, space, "team", .manager)
        try await drive.removeGroup(ada, "team")
        #expect(try await drive.shares(bob).map(\.role) == [.editor])
        #expect(try await drive.groups(ada).isEmpty)
        try await world.fixture.expectClean()
    }

    @Test func onePollFollowsSeveralNamespaces() async throws {
        let world = try await world(), drive = world.fixture.drive, ada = world.ada
        let space = try await drive.share(ada.session, ada.namespace, "docs").namespace
        let home = try await drive.namespaceInformation(ada.session, ada.namespace).sequence
        let shared = try await drive.namespaceInformation(ada.session, space).sequence
        let cursors = [FollowRequest.Cursor(namespace: ada.namespace, after: home), .init(namespace: space, after: shared), .init(namespace: world.bob.namespace, after: 0)]
        let request = FollowRequest(cursors: cursors, limit: 100, wait: 0)
        #expect(try await drive.follow(ada.session, request).pages.map(\.namespace) == [ada.namespace])
        let device = TestDevice(fixture: world.fixture, session: ada.session, namespace: space, root: world.folder, name: "desk")
        try await device.makeFile("new", "text")
        #expect(try await drive.follow(ada.session, request).pages.map(\.namespace) == [ada.namespace, space])
    }

    /// A folder restore, an undo or a take-away never reaches through a junction.
    @Test func whatIsTakenBackStopsAtTheJunction() async throws {
        let world = try await world(), drive = world.fixture.drive, ada = world.ada, time = world.fixture.clock.now
        let before = Timestamp(nanoseconds: time.nanoseconds - 119 * 1_000_000_000)
        world.fixture.clock.advance(seconds: 60)
        let space = try await drive.share(ada.session, ada.namespace, "docs").namespace
        let outer = try await ada.makeDirectory("outer"), junction = try #require(try await ada.list()["docs"])
        try await ada.commit([ada.rename(junction.id, "docs", to: "docs", in: outer)])
        _ = try await drive.restoreFolder(ada.session, ada.namespace, FolderRestoreRequest(path: "", at: before))
        #expect(try await drive.shares(ada.session).map(\.path) == ["outer/docs"])
        let device = TestDevice(fixture: world.fixture, session: ada.session, namespace: space, root: world.folder, name: "desk")
        #expect(try await device.list(world.inner)["note"]?.id == world.note)
        try await world.fixture.expectClean()
    }
}
