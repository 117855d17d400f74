import Foundation
import Glibc
import Testing
@testable import BoxFS

@Suite struct TransferCancellationTests {
    /// A server that takes connections (in the kernel's backlog) and never answers. Closed by the caller.
    private func silentServer() throws -> (descriptor: Int32, port: UInt16) {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        try withUnsafeMutablePointer(to: &address) { pointer in
            try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                try #require(bind(descriptor, pointer, length) == 0 && listen(descriptor, 8) == 0 && getsockname(descriptor, pointer, &length) == 0)
            }
        }
        return (descriptor, UInt16(bigEndian: address.sin_port))
    }

    /// libcurl alone would look at the cancellation about once a second.
    @Test(.timeLimit(.minutes(1))) func aWaitingExchangeEndsAtOnce() async throws {
        let server = try silentServer()
        defer { close(server.descriptor) }
        let engine = HTTPEngine(settings: ConnectionSettings(server: "http://127.0.0.1:\(server.port)"))
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
        let server = try silentServer()
        defer { close(server.descriptor) }
        let engine = HTTPEngine(settings: ConnectionSettings(server: "http://127.0.0.1:\(server.port)"))
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
