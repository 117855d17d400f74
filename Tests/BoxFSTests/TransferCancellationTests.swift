import Foundation
import Glibc
import Testing
@testable import BoxFS

@Suite struct TransferCancellationTests {
    /// libcurl alone would look at the cancellation about once a second.
    @Test(.timeLimit(.minutes(1))) func aWaitingExchangeEndsAtOnce() async throws {
        let server = try LocalServer()
        defer { server.close() }
        let engine = HTTPEngine(settings: ConnectionSettings(server: server.url))
        var longest = Duration.zero
        for _ in 0..<5 {
            let waiting = Task { try await engine.send(HTTPRequest(path: "/v1/never"), lane: .longPoll) }
            try await Task.sleep(for: .milliseconds(150))
            let cancelled = ContinuousClock.now
            waiting.cancel()
            let result = await waiting.result
            longest = max(longest, .now - cancelled)
            guard case .failure(let error) = result, case RemoteError.cancelled = error else {
                Issue.record("not cancelled: \(result)")
                return
            }
        }
        #expect(longest < .milliseconds(300))
    }

    /// A token that is cancelled after its exchange must not touch the next one on the same connection.
    @Test(.timeLimit(.minutes(1))) func aLateCancellationLeavesTheNextExchangeAlone() async throws {
        let server = try LocalServer()
        defer { server.close() }
        let engine = HTTPEngine(settings: ConnectionSettings(server: server.url))
        let late = TransferToken()
        await withCheckedContinuation { continuation in
            engine.start(HTTPRequest(path: "/v1/first", timeoutSeconds: 0.2), lane: .longPoll, token: late) { _ in continuation.resume() }
        }
        let started = ContinuousClock.now
        let second = Task { try await engine.send(HTTPRequest(path: "/v1/second", timeoutSeconds: 1), lane: .longPoll) }
        try await Task.sleep(for: .milliseconds(200))
        late.cancel()
        await #expect(throws: RemoteError.self) { _ = try await second.value }
        #expect(.now - started > .milliseconds(900))
    }
}
