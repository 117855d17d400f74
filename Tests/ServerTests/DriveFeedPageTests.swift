import Shared
import Testing
@testable import Server

/// Pages of the change feed hold whole numbers, however many rows a number has.
@Suite struct DriveFeedPageTests {
    private func feed(_ device: TestDevice, after: Int64 = 0) async throws -> (names: Set<String>, nodes: Set<NodeID>, longest: Int) {
        var names: Set<String> = [], nodes: Set<NodeID> = [], cursor = after, longest = 0
        for _ in 0..<100 {
            let page = try await device.drive.changes(device.session, device.namespace, after: cursor, limit: 100)
            names.formUnion(page.entries.filter { !$0.deleted }.map(\.name))
            nodes.formUnion(page.nodes.filter { !$0.deleted }.map(\.id))
            longest = max(longest, page.entries.count, page.nodes.count)
            guard page.more else { return (names, nodes, longest) }
            #expect(page.cursor > cursor)
            cursor = page.cursor
        }
        Issue.record("the feed does not end")
        return (names, nodes, longest)
    }

    /// Nodes, entries, or both of one number are more than a page.
    @Test(arguments: [["nodes"], ["entries"], ["nodes", "entries"]])
    func aNumberThatIsLongerThanAPageIsTold(_ tables: [String]) async throws {
        let fixture = try DriveFixture()
        try await fixture.account("ada")
        let ada = try await fixture.device("ada", "desk")
        try await ada.commit((0..<300).map { .create(node: ada.node(.regular), parent: ada.root, name: "f\($0)") })
        let number = try await ada.drive.namespaceInformation(ada.session, ada.namespace).sequence - 20
        try await fixture.drive.write { sql in
            for table in tables {
                try sql.execute(
                    "UPDATE \(table) SET sequence = $1 WHERE namespace = $2 AND sequence > 50 AND sequence < $3",
                    [.integer(number), .id(ada.namespace), .integer(number)])
            }
        }
        let told = try await feed(ada)
        #expect(told.names.count == 300 && told.nodes.count == 301)
    }

    /// Pages end anywhere: one that tells that a file left a name, where it is again, must not come before that one.
    @Test func whereANodeCameBackIsToldOnce() async throws {
        let fixture = try DriveFixture()
        try await fixture.account("ada")
        let ada = try await fixture.device("ada", "desk"), file = ada.node(.regular)
        try await ada.commit([.create(node: file, parent: ada.root, name: "f")])
        for (name, other) in [("f", "g"), ("g", "f"), ("f", "g"), ("g", "f")] {
            fixture.clock.advance(seconds: 100)
            try await ada.commit([ada.rename(file.id, name, to: other)])
        }
        let page = try await ada.drive.changes(ada.session, ada.namespace, after: 0, limit: 100)
        #expect(page.entries.filter { $0.name == "f" }.map(\.deleted) == [false])
        #expect(page.entries.filter { $0.name == "g" }.map(\.deleted) == [true])
        try await fixture.expectClean()
    }

    /// What is taken back in one step is told in pages.
    @Test func largeRestoresAreToldInPages() async throws {
        let fixture = try DriveFixture()
        try await fixture.account("ada")
        let ada = try await fixture.device("ada", "desk"), folder = try await ada.makeDirectory("many")
        let files = (0..<300).map { (node: ada.node(.regular), version: VersionID.make(), name: "f\($0)") }
        try await ada.commit(
            files.map { .create(node: $0.node, parent: folder, name: $0.name) } + files.map { ada.write($0.node.id, base: nil, "text", as: $0.version) },
            chunks: [Array("text".utf8)])
        fixture.clock.advance(seconds: 3600)
        let drive = fixture.drive, before = fixture.clock.now
        func removed() async throws -> Int64 {
            fixture.clock.advance(seconds: 3600)
            try await ada.commit(try await ada.list(folder).map { ada.remove($1.id, $0, from: folder, version: $1.version) } + [ada.remove(folder, "many")])
            return try await drive.namespaceInformation(ada.session, ada.namespace).sequence
        }
        func expectTold(after cursor: Int64) async throws {
            let told = try await feed(ada, after: cursor)
            #expect(told.names == Set(files.map(\.name) + ["many"]) && told.longest <= 120, "\(told.names.count) names, \(told.longest) rows in a page")
        }
        var cursor = try await removed()
        let event = try #require(try await drive.massChanges(ada.session, ada.namespace).first { $0.undone == nil })
        _ = try await drive.undo(ada.session, ada.namespace, event.id)
        try await expectTold(after: cursor)
        cursor = try await removed()
        _ = try await drive.restoreTrash(ada.session, ada.namespace, TrashRequest(node: folder))
        try await expectTold(after: cursor)
        cursor = try await removed()
        _ = try await drive.restoreFolder(ada.session, ada.namespace, FolderRestoreRequest(path: "", at: before))
        try await expectTold(after: cursor)
        try await fixture.expectClean()
    }
}
