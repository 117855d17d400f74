import Foundation
import Glibc
import Shared
import Testing
@testable import BoxFS

/// Answers that were damaged on their way are not believed (RFC 9530), but asked for again.
@Suite struct AnswerDigestTests {
    private let body = #"{"identity":"01990000-0000-7000-8000-000000000000","epoch":1,"version":"1","time":7}"#

    private func ask(_ body: String, digest: String?) async throws -> Result<ServerInformation, RemoteError> {
        let server = try LocalServer()
        defer { server.close() }
        let field = digest.map { "\(ContentDigest.name.lowercased()): \($0)\r\n" } ?? ""
        Thread.detachNewThread {
            server.answerOnce("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: \(body.utf8.count)\r\n\(field)connection: close\r\n\r\n\(body)")
        }
        let remote = Remote(ConnectionSettings(server: server.url))
        do throws(RemoteError) { return .success(try await remote.serverInformation()) } catch { return .failure(error) }
    }

    @Test(.timeLimit(.minutes(1))) func aDamagedAnswerIsNotBelieved() async throws {
        var bytes = Array(body.utf8)
        let digest = bytes.withUnsafeBytes { ContentDigest.value(of: $0) }
        #expect(try await ask(body, digest: digest).get().epoch == 1)
        // The line that says the digest was damaged, too.
        guard case .failure(.offline) = try await ask(body, digest: nil) else {
            Issue.record("an answer without a digest was taken")
            return
        }
        // Still JSON, of the right type, and wrong.
        let one = try #require(bytes.lastIndex(of: UInt8(ascii: "7")))
        bytes[one] = UInt8(ascii: "5")
        guard case .failure(.offline(let reason)) = try await ask(String(decoding: bytes, as: UTF8.self), digest: digest) else {
            Issue.record("a damaged answer was taken")
            return
        }
        #expect(reason.contains("damaged"))
    }
}
