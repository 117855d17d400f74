import Foundation
import Shared
import Testing
@testable import Server

/// Who did what: complete for what commits and visitors do, and for nobody's eyes but the owner's and the administrator's.
@Suite struct AuditTests {
    let fixture: DriveFixture

    init() throws { fixture = try DriveFixture() }

    private func lines(_ device: TestDevice, _ filter: AuditFilter = AuditFilter()) async throws -> [String] {
        try await fixture.drive.audit(device.session, device.namespace, filter).records.reversed().map { record in
            [record.action, record.path, record.detail, record.device].compactMap { $0 }.joined(separator: " ")
        }
    }

    @Test func whatACommitDidToEachNode() async throws {
        try await fixture.account("ada")
        let ada = try await fixture.device("ada", "desk")
        let folder = try await ada.makeDirectory("folder")
        let file = try await ada.makeFile("note", "text")
        fixture.clock.advance(seconds: 3600)
        try await ada.commit([ada.rename(file.node, "note", to: "moved", in: folder), ada.write(file.node, base: file.version, "more")], chunks: [Array("more".utf8)])
        let temporary = ada.node(.regular)
        try await ada.commit([
            .create(node: temporary, parent: folder, name: "tmp"), ada.remove(temporary.id, "tmp", from: folder),
            .setattr(node: folder, mode: 0o700, uid: nil, gid: nil, accessed: nil, modified: nil, changed: fixture.clock.now),
        ])
        let moved = try #require(try await ada.list(folder)["moved"])
        try await ada.commit([ada.remove(file.node, "moved", from: folder, version: moved.version)])
        let all = [
            "account-added ada", "created folder desk", "created note desk", "renamed folder/moved from note desk", "changed folder desk", "removed folder/moved desk",
        ]
        #expect(try await lines(ada) == all)
        #expect(try await lines(ada, AuditFilter(path: "folder")) == [all[1], all[3], all[4], all[5]])
        #expect(try await lines(ada, AuditFilter(path: "folder/moved")) == [all[3], all[5]])
        #expect(try await lines(ada, AuditFilter(path: "fold")) == [])
        #expect(try await lines(ada, AuditFilter(action: "removed")) == [all[5]])
        #expect(try await lines(ada, AuditFilter(account: "ada")) == all)
        #expect(try await lines(ada, AuditFilter(account: "eve")) == [])
        #expect(try await lines(ada, AuditFilter(until: fixture.clock.now)) == Array(all[0...2]))
        #expect(try await lines(ada, AuditFilter(since: fixture.clock.now)) == Array(all[3...5]))
    }

    /// A commit that is repeated did nothing, and a refused operation neither.
    @Test func whatWasNotDoneIsNotThere() async throws {
        try await fixture.account("ada")
        let ada = try await fixture.device("ada", "desk")
        let node = ada.node(.regular), id = CommitID.make()
        for _ in 0..<3 { try await ada.commit([.create(node: node, parent: ada.root, name: "a"), .create(node: ada.node(.regular), parent: ada.root, name: "a/b")], id: id) }
        #expect(try await lines(ada) == ["account-added ada", "created a desk"])
    }

    @Test func onlyTheOwnerReadsIt() async throws {
        try await fixture.account("ada")
        try await fixture.account("eve")
        let ada = try await fixture.device("ada", "desk"), eve = try await fixture.device("eve", "lap")
        await #expect(throws: DriveError.self) { try await fixture.drive.audit(eve.session, ada.namespace, AuditFilter()) }
        let account = eve.session.account, namespace = ada.namespace
        for role in [Role.viewer, .editor, .manager] {
            try await fixture.drive.write { sql in
                try sql.execute("DELETE FROM members WHERE namespace = $1 AND account = $2", [.id(namespace), .id(account)])
                try sql.execute("INSERT INTO members (namespace, account, role) VALUES ($1, $2, $3)", [.id(namespace), .id(account), .text(role.rawValue)])
            }
            do {
                _ = try await fixture.drive.audit(eve.session, ada.namespace, AuditFilter())
                Issue.record("a \(role) read it")
            } catch { guard case .forbidden = error else { throw error } }
        }
        #expect(try await fixture.drive.audit(AuditFilter(account: "eve")).records.map(\.action) == ["account-added"])
        await #expect(throws: DriveError.self) { try await fixture.drive.audit(AuditFilter(account: "nobody")) }
    }

    @Test func readingIsNotedOnceAnHour() async throws {
        try await fixture.account("ada")
        let ada = try await fixture.device("ada", "desk")
        var here = ada.session, there = ada.session
        (here.address, there.address) = ("a", "b")
        for _ in 0..<5 { try await fixture.drive.auditRead(here, ada.namespace) }
        try await fixture.drive.auditRead(there, ada.namespace)
        #expect(try await lines(ada, AuditFilter(action: "opened")).count == 2)
        fixture.clock.advance(seconds: 3601)
        try await fixture.drive.auditRead(here, ada.namespace)
        #expect(try await lines(ada, AuditFilter(action: "opened")).count == 3)
    }

    @Test func pagesShowEveryLineOnce() async throws {
        try await fixture.account("ada")
        let ada = try await fixture.device("ada", "desk")
        try await ada.commit((0..<57).map { .create(node: ada.node(.regular), parent: ada.root, name: "f\($0)") })
        var seen: [String] = [], filter = AuditFilter(action: "created", limit: 10)
        repeat {
            let page = try await fixture.drive.audit(ada.session, ada.namespace, filter)
            seen += page.records.compactMap(\.path)
            filter.before = page.next
        } while filter.before != nil
        #expect(seen.count == 57 && Set(seen).count == 57)
    }

    @Test func theLineAsCSV() {
        let record = AuditRecord(
            id: .make(), time: Timestamp(seconds: 1_767_323_045, nanoseconds: 5), action: "edited", account: "ada", device: "a \"b\"", address: nil, namespace: nil,
            node: nil, path: "x,y\nz", detail: "")
        #expect(record.csv == "2026-01-02T03:04:05Z,edited,ada,\"a \"\"b\"\"\",,\"x,y\nz\",,,")
        #expect(AuditRecord.csvHeader.split(separator: ",").count == 9)
        #expect(Lifetime("7d")?.seconds == 604_800 && Lifetime("d") == nil && Lifetime("0s") == nil && Lifetime("-1d") == nil && Lifetime("9999999999w") == nil && Lifetime("1x") == nil)
    }
}
