import Foundation
import NIOCore
import Shared
import Synchronization
import Testing
@testable import Server

@Suite struct NotificationFeedTests {
    /// Lets `send` through one at a time.
    private final class Gate: Sendable {
        private let state = Mutex<(pages: [ChangePage], waiting: CheckedContinuation<Void, Never>?)>(([], nil))
        var pages: [ChangePage] { state.withLock { $0.pages } }

        func take(_ page: ChangePage) async {
            await withCheckedContinuation { continuation in state.withLock { $0 = ($0.pages + [page], continuation) } }
        }

        func open() {
            let waiting = state.withLock { state in
                defer { state.waiting = nil }
                return state.waiting
            }
            waiting?.resume()
        }
    }

    private func eventually(_ condition: () -> Bool) async throws {
        for _ in 0..<500 where !condition() { try await Task.sleep(for: .milliseconds(10)) }
        #expect(condition())
    }

    /// A page is made when the one before it was taken: of a thousand changes a subscriber that does not listen costs one page.
    @Test func nothingPilesUpForASlowSubscriber() async throws {
        let fixture = try DriveFixture()
        try await fixture.account("ada")
        let ada = try await fixture.device("ada", "desk")
        let token = "token of ada", session = ada.session, time = fixture.clock.now
        try await fixture.drive.write { sql in
            try sql.execute(
                "INSERT INTO devices (id, account, name, token, created) VALUES ($1, $2, 'desk', $3, $4)",
                [.id(session.device), .id(session.account), .hash(Drive.tokenHash(token)), .time(time)])
        }
        for round in 0..<10 { try await ada.commit((0..<100).map { .create(node: ada.node(.regular), parent: ada.root, name: "f\(round) \($0)") }) }
        let hub = ChangeHub(), gate = Gate()
        let feed = NotificationFeed(drive: fixture.drive, hub: hub)
        let admission = NotificationFeed.Admission(token: token, namespace: ada.namespace, cursor: 0, protocolName: nil)
        let subscriber = Task { try await feed.run(admission) { await gate.take(try JSONDecoder().decode(ChangePage.self, from: Data($0.readableBytesView))) } }
        try await eventually { gate.pages.count == 1 }
        try await Task.sleep(for: .milliseconds(200))
        #expect(gate.pages.count == 1)
        var taken = 0
        while gate.pages.last?.more == true {
            taken += 1
            gate.open()
            try await eventually { gate.pages.count == taken + 1 }
            #expect(gate.pages.count == taken + 1)
        }
        #expect(gate.pages.count > 5)
        #expect(gate.pages.allSatisfy { $0.entries.count + $0.nodes.count <= 300 })
        #expect(Set(gate.pages.flatMap(\.entries).map(\.name)).count == 1000)
        // The token goes: before the next page, the subscription ends.
        try await fixture.drive.revokeToken(session, session.device)
        gate.open()
        hub.committed(ada.namespace, .max)
        await #expect(throws: DriveError.self) { try await subscriber.value }
    }

    private final class Heard: Sendable { let pages = Mutex<[FollowAnswer.Page]>([]) }

    /// Who follows all hears of each namespace from when the right to it came until it goes.
    @Test func allThatMayBeReadIsFollowed() async throws {
        let fixture = try DriveFixture()
        for name in ["ada", "bob"] { try await fixture.account(name) }
        let ada = try await fixture.device("ada", "desk"), bob = try await fixture.device("bob", "lap"), time = fixture.clock.now
        try await fixture.drive.write { sql in
            try sql.execute(
                "INSERT INTO devices (id, account, name, token, created) VALUES ($1, $2, 'lap', $3, $4)",
                [.id(bob.session.device), .id(bob.session.account), .hash(Drive.tokenHash("token")), .time(time)])
        }
        let folder = try await ada.makeDirectory("docs"), hub = ChangeHub(), heard = Heard()
        let space = try await ada.drive.share(ada.session, ada.namespace, "docs").namespace
        let shared = TestDevice(fixture: fixture, session: ada.session, namespace: space, root: folder, name: "desk")
        try await shared.makeFile("before", "x")
        let feed = NotificationFeed(drive: fixture.drive, hub: hub)
        let admission = NotificationFeed.Admission(token: "token", namespace: bob.namespace, cursor: 0, protocolName: nil, cursors: [:])
        let subscriber = Task {
            try await feed.run(admission) { bytes in
                let page = try JSONDecoder().decode(FollowAnswer.Page.self, from: Data(bytes.readableBytesView))
                heard.pages.withLock { $0.append(page) }
            }
        }
        func names() -> [String] { heard.pages.withLock { $0.flatMap(\.page.entries).map(\.name) } }
        func wake() { for namespace in [ada.namespace, bob.namespace, space] { hub.committed(namespace, .max) } }
        try await Task.sleep(for: .milliseconds(100))
        try await ada.drive.setMember(ada.session, space, "bob", .viewer)
        wake()
        try await eventually { names() == ["docs"] }
        try await shared.makeFile("while", "y")
        wake()
        try await eventually { names() == ["docs", "while"] }
        #expect(heard.pages.withLock { $0.map(\.namespace) } == [bob.namespace, space])
        try await ada.drive.removeMember(ada.session, space, "bob")
        try await shared.makeFile("after", "z")
        wake()
        try await eventually { names() == ["docs", "while", "docs"] }
        try await Task.sleep(for: .milliseconds(100))
        #expect(!names().contains("after") && !names().contains("before"))
        subscriber.cancel()
        hub.close()
        _ = try? await subscriber.value
    }
}
