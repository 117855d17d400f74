import Foundation
import Shared
import Testing
@testable import Server

/// The children of many directories at once.
@Suite struct DriveListingTests {
    @Test func directoriesAreListedWholeAndInOrder() async throws {
        let fixture = try DriveFixture()
        try await fixture.account("ann")
        try await fixture.account("bob")
        let one = try await fixture.device("ann", "one"), other = try await fixture.device("bob", "two")
        let a = try await one.makeDirectory("a"), b = try await one.makeDirectory("b"), empty = try await one.makeDirectory("empty")
        let foreign = try await other.makeDirectory("foreign")
        let file = one.node(.regular), twice = one.node(.regular), gone = try await one.makeDirectory("gone")
        try await one.commit([
            .create(node: file, parent: a, name: "x"), one.write(file.id, base: nil, "text"), .create(node: twice, parent: a, name: "y"),
            .link(node: twice.id, parent: b, name: "z", time: fixture.clock.now), one.remove(gone, "gone"),
        ], chunks: [Array("text".utf8)])
        let page = try await fixture.drive.children(one.session, one.namespace, of: [b, .make(), foreign, a, file.id, empty])
        #expect(page.listed == [b, a, empty])
        #expect(page.entries.map(\.name) == ["z", "x", "y"] && page.entries.map(\.parent) == [b, a, a])
        #expect(page.nodes.count == 2 && Set(page.nodes.map(\.id)) == [file.id, twice.id])
        #expect(page.nodes.first { $0.id == file.id }?.content == TestDevice.content([Array("text".utf8)]))
        #expect(page.nodes.first { $0.id == twice.id }?.content == nil && page.nodes.first { $0.id == twice.id }?.links == 2)
        // The same as one by one.
        let single = try await fixture.drive.children(one.session, one.namespace, a, after: nil, limit: 10)
        #expect(single.entries == Array(page.entries[1...]) && Set(single.nodes) == Set(page.nodes) && single.sequence == page.sequence && single.next == nil)
        await #expect(throws: DriveError.self) { try await fixture.drive.children(other.session, one.namespace, of: [a]) }
    }

    @Test func aPageHoldsSoManyAndTheRestIsAskedForAgain() async throws {
        let fixture = try DriveFixture()
        try await fixture.account("ann")
        let one = try await fixture.device("ann", "one")
        func folder(_ name: String, _ count: Int) async throws -> NodeID {
            let id = try await one.makeDirectory(name)
            try await one.commit((0..<count).map { .create(node: one.node(.fifo), parent: id, name: "f\($0)") })
            return id
        }
        let half = Drive.maximumPage / 2
        let a = try await folder("a", half), b = try await folder("b", half), c = try await folder("c", 1), big = try await folder("big", Drive.maximumPage + 1)
        func listed(_ ids: [NodeID]) async throws -> [NodeID] {
            let page = try await fixture.drive.children(one.session, one.namespace, of: ids)
            #expect(Set(page.entries.map(\.parent)) == Set(page.listed) && page.entries.count == page.nodes.count)
            return page.listed
        }
        #expect(try await listed([a, b, c]) == [a, b])
        #expect(try await listed([c, a, b]) == [c, a])
        #expect(try await listed([c, big, a]) == [c])
        #expect(try await listed([big, a]) == [])
        #expect(try await one.list(big, limit: 700).count == Drive.maximumPage + 1)
    }
}
