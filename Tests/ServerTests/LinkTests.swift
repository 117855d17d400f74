import Foundation
import NIOCore
import Shared
import Testing
@testable import Server

/// The rules of links, on a drive without a server before it.
@Suite struct LinkTests {
    let fixture: DriveFixture

    init() throws { fixture = try DriveFixture() }

    private func ada() async throws -> TestDevice {
        try await fixture.account("ada")
        return try await fixture.device("ada", "desk")
    }

    private func token(_ answer: LinkAnswer) -> String { String(answer.address.dropFirst(3)) }

    /// The error's name, for comparing.
    private func refusal(_ body: () async throws -> Void) async -> String {
        do {
            try await body()
            return "none"
        } catch { return "\(error)" }
    }

    @Test func aLinkWithALimitGivesExactlyThatManyHoweverManyAskAtOnce() async throws {
        let ada = try await ada()
        try await ada.makeFile("note", "text")
        let answer = try await fixture.drive.createLink(ada.session, ada.namespace, LinkRequest(path: "note", maximumDownloads: 7))
        let drive = fixture.drive, token = token(answer)
        let visit = try await drive.visit(token, .none)
        let given = await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<50 {
                group.addTask { (try? await drive.countDownload(visit, visit.node.version, ticket: nil, path: "", address: "a")) != nil }
            }
            return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        #expect(given == 7)
        let seen = try await drive.link(ada.session, named: token)
        #expect(seen.downloads == 7 && seen.state == .exhausted)
        #expect(await refusal { _ = try await drive.visit(token, .none) } == "linkEnded(Shared.LinkState.exhausted)")
    }

    /// A ticket goes on with one version of one link, and with nothing else.
    @Test func aTicketContinuesItsOwnDownloadOnly() async throws {
        let ada = try await ada()
        let file = try await ada.makeFile("note", "text")
        let drive = fixture.drive
        let one = try await drive.createLink(ada.session, ada.namespace, LinkRequest(path: "note", maximumDownloads: 1))
        let other = try await drive.createLink(ada.session, ada.namespace, LinkRequest(path: "note", maximumDownloads: 1))
        let visit = try await drive.visit(token(one), .none)
        let ticket = try #require(try await drive.countDownload(visit, file.version, ticket: nil, path: "", address: "a"))
        let again = try await drive.visit(token(one), .none, endsExhausted: false)
        #expect(try await drive.countDownload(again, file.version, ticket: ticket, path: "", address: "a") == nil)
        #expect(await refusal { _ = try await drive.countDownload(again, .make(), ticket: ticket, path: "", address: "a") }.hasPrefix("linkEnded"))
        #expect(await refusal { _ = try await drive.countDownload(again, file.version, ticket: "0" + ticket, path: "", address: "a") }.hasPrefix("linkEnded"))
        let elsewhere = try await drive.visit(token(other), .none)
        #expect(try await drive.countDownload(elsewhere, file.version, ticket: ticket, path: "", address: "a") != nil, "another link counts it")
        fixture.clock.advance(seconds: 90_000)
        #expect(await refusal { _ = try await drive.countDownload(again, file.version, ticket: ticket, path: "", address: "a") }.hasPrefix("linkEnded"))
    }

    /// The same words whether the file is there or not, with a password or without.
    @Test func aLinkThatHasEndedTellsNothingElse() async throws {
        let ada = try await ada()
        let drive = fixture.drive
        var tokens: [String] = []
        for (name, password) in [("kept", nil), ("gone", nil), ("secret", "pass")] as [(String, String?)] {
            try await ada.makeFile(name, "text")
            tokens.append(token(try await drive.createLink(ada.session, ada.namespace, LinkRequest(path: name, password: password, lifetimeSeconds: 60))))
        }
        let gone = try #require(try await ada.list()["gone"])
        #expect(await refusal { _ = try await drive.visit(tokens[0], .none) } == "none")
        fixture.clock.advance(seconds: 61)
        try await ada.commit([ada.remove(gone.id, "gone", version: gone.version)])
        let expired = await refusal { _ = try await drive.visit(tokens[0], .none) }
        #expect(expired == "linkEnded(Shared.LinkState.expired)")
        for token in tokens { #expect(await refusal { _ = try await drive.visit(token, .none) } == expired) }
        for token in tokens {
            try await drive.revokeLink(ada.session, named: token)
            #expect(await refusal { _ = try await drive.visit(token, .password("x")) } == "linkEnded(Shared.LinkState.revoked)")
        }
        #expect(await refusal { _ = try await drive.visit("nonsense", .none) }.hasPrefix("notFound"))
    }

    @Test func passwords() async throws {
        let ada = try await ada()
        try await ada.makeFile("note", "text")
        let drive = fixture.drive
        let token = token(try await drive.createLink(ada.session, ada.namespace, LinkRequest(path: "note", password: "pass")))
        #expect(await refusal { _ = try await drive.visit(token, .none) } == "linkPassword(isWrong: false)")
        #expect(await refusal { _ = try await drive.visit(token, .password("Pass")) } == "linkPassword(isWrong: true)")
        let visit = try await drive.visit(token, .password("pass"))
        #expect(try await drive.visit(token, .cookie(try #require(visit.link.proof))).node.id == visit.node.id)
        #expect(await refusal { _ = try await drive.visit(token, .cookie("0")) } == "linkPassword(isWrong: false)")
    }

    /// A hundred guesses at once are no way around the pause.
    @Test func attemptsAreLimited() async throws {
        let ada = try await ada()
        try await ada.makeFile("note", "text")
        let drive = fixture.drive
        let token = token(try await drive.createLink(ada.session, ada.namespace, LinkRequest(path: "note", password: "pass")))
        let clock = fixture.clock
        let passwords = LinkPasswords(drive, RateLimiter(uptime: { clock.uptime }))
        let outcomes = await withTaskGroup(of: String.self) { group in
            for index in 0..<60 {
                group.addTask {
                    do {
                        _ = try await passwords.visit(token, password: "guess \(index)", address: "a", endsExhausted: true)
                        return "in"
                    } catch is RateLimited { return "limited" } catch { return "wrong" }
                }
            }
            return await group.reduce(into: [:]) { $0[$1, default: 0] += 1 }
        }
        #expect(outcomes == ["wrong": 10, "limited": 50])
        await #expect(throws: RateLimited.self) { try await passwords.visit(token, password: "pass", address: "a", endsExhausted: true) }
        _ = try await passwords.visit(token, password: "pass", address: "another", endsExhausted: true)
        // That it was right elsewhere a moment ago is no way to go on guessing.
        await #expect(throws: RateLimited.self) { try await passwords.visit(token, password: "pass", address: "a", endsExhausted: true) }
        clock.advance(seconds: 3600)
        _ = try await passwords.visit(token, password: "pass", address: "a", endsExhausted: true)
    }

    @Test func theLinkFollowsItsFileAndItsMaker() async throws {
        let ada = try await ada()
        let file = try await ada.makeFile("note", "text")
        let drive = fixture.drive
        let answer = try await drive.createLink(ada.session, ada.namespace, LinkRequest(path: "note"))
        try await ada.commit([ada.rename(file.node, "note", to: "moved")])
        #expect(try await drive.visit(token(answer), .none).name == "moved")
        #expect(try await drive.link(ada.session, named: answer.link.id.description).path == "moved")
        try await drive.setDisabled("ada", true)
        #expect(await refusal { _ = try await drive.visit(token(answer), .none) } == "linkEnded(Shared.LinkState.revoked)")
    }

    @Test func othersSeeNoLinks() async throws {
        let ada = try await ada()
        try await ada.makeFile("note", "text")
        let drive = fixture.drive
        let answer = try await drive.createLink(ada.session, ada.namespace, LinkRequest(path: "note"))
        try await fixture.account("eve")
        let eve = try await fixture.device("eve", "lap")
        #expect(try await drive.links(eve.session).isEmpty)
        for name in [answer.link.id.description, token(answer)] {
            #expect(await refusal { _ = try await drive.link(eve.session, named: name) }.hasPrefix("notFound"))
            #expect(await refusal { try await drive.revokeLink(eve.session, named: name) }.hasPrefix("notFound"))
        }
        #expect(await refusal { _ = try await drive.createLink(eve.session, ada.namespace, LinkRequest(path: "note")) }.hasPrefix("notFound"))
        _ = try await drive.visit(token(answer), .none)
    }

    @Test func whatMakesNoSenseIsRefused() async throws {
        let ada = try await ada()
        try await ada.makeFile("note", "text")
        for request in [
            LinkRequest(path: "note", password: ""), LinkRequest(path: "note", lifetimeSeconds: 0), LinkRequest(path: "note", maximumDownloads: 0),
            LinkRequest(path: "note", maximumDownloads: 1, viewOnly: true), LinkRequest(path: "note", maximumBytes: 5),
            LinkRequest(path: "", kind: .upload, maximumDownloads: 1), LinkRequest(path: "note", kind: .upload),
            LinkRequest(path: "note", lifetimeSeconds: .max),
        ] {
            #expect(await refusal { _ = try await fixture.drive.createLink(ada.session, ada.namespace, request) }.hasPrefix("badRequest"), "\(request)")
        }
        #expect(await refusal { _ = try await fixture.drive.createLink(ada.session, ada.namespace, LinkRequest(path: "none")) }.hasPrefix("notFound"))
    }

    /// Bytes through every size that matters, read back by ranges.
    @Test func uploadsArriveWholeAndWithinTheLimit() async throws {
        let ada = try await ada()
        _ = try await ada.makeDirectory("in")
        let drive = fixture.drive
        let answer = try await drive.createLink(ada.session, ada.namespace, LinkRequest(path: "in", kind: .upload, maximumBytes: 9_000_000))
        let body = (0..<8_500_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
        func send(_ body: [UInt8], _ name: String) async throws {
            let visit = try await drive.visit(token(answer), .none)
            let file = IncomingFile(drive, visit.session, visit.link.namespace)
            for start in stride(from: 0, to: body.count, by: 300_000) { try await file.append(ByteBuffer(bytes: body[start..<min(start + 300_000, body.count)])) }
            try await drive.receive(visit, file, named: name, address: "a")
        }
        try await send(body, "large")
        try await send([], "empty")
        try await send([1, 2, 3], "large")      // the name is taken
        #expect(await refusal { try await send([UInt8](repeating: 7, count: 600_000), "more") }.hasPrefix("tooLarge"))
        #expect(await refusal { try await send([1], "a/b") }.hasPrefix("invalidName"))
        let folder = try #require(try await ada.list()["in"])
        let listing = try await ada.list(folder.id)
        #expect(listing.keys.sorted() == ["empty", "large", "large (conflicted copy, link, 2027-01-15)"])
        let large = try #require(listing["large"]?.content), whole = Manifest.maximumChunkByteCount, head = Manifest.headByteCount
        #expect(try Manifest.unpack(try #require(large.inline)).map { Int($0.length) } == [head, whole - head, whole, body.count - 2 * whole], "as a mount cuts it")
        let reader = try await FileReader(drive, ada.namespace, try #require(listing["large"]).version)
        #expect(reader.byteCount == UInt64(body.count))
        for range in [0..<UInt64(body.count), 4_194_303..<4_194_305, 0..<1, 8_499_999..<8_500_000, 5..<5] as [Range<UInt64>] {
            var found: [UInt8] = []
            try await reader.read(range) { found += $0.readableBytesView }
            #expect(found == Array(body[Int(range.lowerBound)..<Int(range.upperBound)]))
        }
        #expect(try await drive.link(ada.session, named: token(answer)).receivedBytes == 8_500_003)
        try await fixture.expectClean()
    }

    /// Senders at once do not get past the limit together.
    @Test func uploadsAtOnceStayWithinTheLimit() async throws {
        let ada = try await ada()
        _ = try await ada.makeDirectory("in")
        let drive = fixture.drive
        let token = token(try await drive.createLink(ada.session, ada.namespace, LinkRequest(path: "in", kind: .upload, maximumBytes: 100)))
        let visit = try await drive.visit(token, .none)
        let arrived = await withTaskGroup(of: Bool.self) { group in
            for index in 0..<20 {
                group.addTask {
                    let file = IncomingFile(drive, visit.session, visit.link.namespace)
                    do {
                        try await file.append(ByteBuffer(bytes: [UInt8](repeating: UInt8(index), count: 30)))
                        try await drive.receive(visit, file, named: "f\(index)", address: "a")
                        return true
                    } catch { return false }
                }
            }
            return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        #expect(arrived == 3)
        let folder = try #require(try await ada.list()["in"])
        #expect(try await ada.list(folder.id).count == 3)
        try await fixture.expectClean()
    }

    /// A damaged chunk is never given whole, and a path cannot leave the link's folder.
    @Test func damageAndEscapes() async throws {
        let ada = try await ada()
        let file = try await ada.makeFile("note", "text"), folder = try await ada.makeDirectory("folder")
        let drive = fixture.drive
        let visit = try await drive.visit(token(try await drive.createLink(ada.session, ada.namespace, LinkRequest(path: "folder"))), .none)
        #expect(visit.node.id == folder)
        for path in ["../note", "note", "/note", "./note"] {
            #expect(await refusal { _ = try await drive.node(visit, at: path) }.hasPrefix("notFound"), "\(path)")
        }
        fixture.chunks.held.withLock { held in for key in held.keys { held[key]!.bytes[0] ^= 1 } }
        let reader = try await FileReader(drive, ada.namespace, file.version)
        var given = 0
        await #expect(throws: DriveError.self) { try await reader.read(0..<4) { given += $0.readableBytes } }
        #expect(given == 0)
    }
}
