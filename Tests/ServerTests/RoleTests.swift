import Foundation
import Shared
import Testing
@testable import Server

/// What each role may do in a namespace of somebody else.
@Suite struct RoleTests {
    private func outcome(_ body: () async throws -> Void) async -> String {
        do {
            try await body()
            return "done"
        } catch let error as DriveError {
            switch error {
            case .forbidden: return "forbidden"
            case .notFound: return "not found"
            default: return "\(error)"
            }
        } catch { return "\(error)" }
    }

    @Test(arguments: [
        (nil, ["not found", "not found", "not found", "not found", "not found", "not found"]),
        (.viewer, ["done", "done", "forbidden", "forbidden", "forbidden", "forbidden"]),
        (.editor, ["done", "done", "done", "done", "forbidden", "forbidden"]),
        (.manager, ["done", "done", "done", "done", "done", "forbidden"]),
        (.owner, ["done", "done", "done", "done", "done", "done"]),
    ] as [(Role?, [String])])
    func rights(role: Role?, expected: [String]) async throws {
        let fixture = try DriveFixture(), drive = fixture.drive
        try await fixture.account("ada")
        try await fixture.account("eve")
        let ada = try await fixture.device("ada", "desk"), eve = try await fixture.device("eve", "lap")
        try await ada.makeFile("note", "text")
        let account = eve.session.account, namespace = ada.namespace
        if let role {
            try await drive.write { sql in
                try sql.execute("INSERT INTO members (namespace, account, role) VALUES ($1, $2, $3)", [.id(namespace), .id(account), .text(role.rawValue)])
            }
        }
        let before = try await drive.namespaceInformation(ada.session, namespace).sequence
        let guest = TestDevice(fixture: fixture, session: eve.session, namespace: namespace, root: ada.root, name: "lap")
        let found = [
            await outcome { _ = try await guest.list() },
            await outcome { _ = try await drive.changes(eve.session, namespace, after: 0, limit: 100) },
            await outcome { _ = try await guest.upload([[1, 2, 3]]) },
            await outcome { _ = try await guest.commit([.create(node: guest.node(.regular), parent: guest.root, name: "new")]) },
            await outcome { _ = try await drive.createLink(eve.session, namespace, LinkRequest(path: "note")) },
            await outcome { _ = try await drive.audit(eve.session, namespace, AuditFilter()) },
        ]
        #expect(found == expected)
        #expect(try await ada.list().keys.contains("new") == (expected[3] == "done"))
        if expected[3] != "done" { #expect(try await drive.namespaceInformation(ada.session, namespace).sequence == before) }
    }
}
