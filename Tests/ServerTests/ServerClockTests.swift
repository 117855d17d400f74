import Foundation
import Shared
import Testing
@testable import Server

/// The server's wall clock is set, by hours, in both directions: nothing is lost by it that would have stayed otherwise.
@Suite struct ServerClockTests {
    let fixture: DriveFixture
    var drive: Drive { fixture.drive }
    var clock: TestClock { fixture.clock }
    private static let hour: Int64 = 3600

    init() throws { fixture = try DriveFixture() }

    private func ada() async throws -> TestDevice {
        try await fixture.account("ada")
        return try await fixture.device("ada", "desk")
    }

    /// Without a bound each write until the clock has caught up would take the place of the one before.
    @Test func whatIsWrittenAfterTheClockWasSetBackIsKept() async throws {
        let ada = try await ada()
        let (node, first) = try await ada.makeFile("note", "text 0")
        var base = first
        clock.step(seconds: -5 * Self.hour)
        for index in 1...4 {
            let next = VersionID.make()
            try await ada.commit([ada.write(node, base: base, "text \(index)", as: next)], chunks: [Array("text \(index)".utf8)])
            base = next
            clock.advance(seconds: 300)
        }
        let history = try await drive.versions(ada.session, ada.namespace, node: node, path: nil, after: nil, limit: 10).versions
        #expect(history.count == 5 && history.first?.id == base)
        #expect(try await ada.text(try await ada.list()["note"]) == "text 4")
        try await fixture.expectClean()
    }

    /// A file that lived for a day by the uptime, and less than nothing by the wall clock, is no temporary file.
    @Test func whatIsRemovedAfterTheClockWasSetBackStaysInTheTrash() async throws {
        let ada = try await ada()
        let file = try await ada.makeFile("note", "text")
        clock.advance(seconds: Self.hour)
        clock.step(seconds: -3 * Self.hour)
        try await ada.commit([ada.remove(file.node, "note", version: file.version)])
        clock.advance(seconds: 4 * Self.hour)
        _ = try await drive.thin()
        #expect(try await drive.trash(ada.session, ada.namespace, after: nil, limit: 10).items.count == 1)
    }

    /// What another process revoked ends within seconds.
    @Test func whatWasRevokedEndsThoughTheClockWasSetBack() async throws {
        try await fixture.account("ada")
        let token = try await drive.login(LoginRequest(user: "ada", password: "correct horse", device: "desk"), address: "a").token
        _ = try await drive.authenticate(token)
        _ = try await drive.write { try $0.execute("DELETE FROM devices", []) }
        clock.step(seconds: -5 * Self.hour)
        clock.advance(seconds: 6)
        await #expect(throws: DriveError.self) { try await drive.authenticate(token) }
    }

    @Test func pausesAfterFailuresEndInTheirTime() throws {
        let limiter = RateLimiter(uptime: { [clock] in clock.uptime })
        for _ in 0..<12 { limiter.failed("key") }
        clock.step(seconds: Self.hour)
        #expect(throws: RateLimited.self) { try limiter.check("key") }
        clock.step(seconds: -3 * Self.hour)
        clock.advance(seconds: 10)
        try limiter.check("key")
    }

    /// Hours of work do not count as done within ten minutes.
    @Test func ordinaryWorkIsNoMassChangeThoughTheClockWasSetBack() async throws {
        let ada = try await ada()
        var files: [(node: NodeID, version: VersionID)] = []
        for index in 0..<30 { files.append(try await ada.makeFile("f\(index)", "text \(index)")) }
        var settings = NamespaceSettings()
        settings.guardFiles = 10
        try await drive.setNamespaceSettings(ada.session, ada.namespace, settings)
        for (index, file) in files.enumerated() {
            if index == 15 { clock.step(seconds: -3 * Self.hour) }
            try await ada.commit([ada.remove(file.node, "f\(index)", version: file.version)])
            clock.advance(seconds: 120)
        }
        #expect(try await drive.massChanges(ada.session, ada.namespace).isEmpty)
    }

    @Test func nothingIsDroppedForItsAgeForADay() {
        var watch = ClockWatch(clock.now, clock.uptime)
        func trusts() -> Bool { watch.trusts(clock.now, clock.uptime) }
        clock.advance(seconds: 30 * Self.hour)
        #expect(trusts(), "the machine slept or worked: no step")
        clock.step(seconds: 5)
        #expect(trusts())
        for step in [400 * 24 * Self.hour, -400 * 24 * Self.hour] {
            clock.step(seconds: step)
            for _ in 0..<24 {
                #expect(!trusts())
                clock.advance(seconds: Self.hour)
            }
            #expect(trusts())
        }
    }
}
