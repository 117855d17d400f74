import Foundation
import Testing

/// What a broken or hostile client gets: a problem document with the right status, and nothing else.
@Suite(.serialized) struct HostileTests {
    private let drive: Drive
    private let token: String
    private let home: String

    init() throws {
        drive = try Drive()
        (token, home) = try Self.login(drive, "ann")
    }

    private static func login(_ drive: Drive, _ name: String) throws -> (token: String, home: String) {
        let body = #"{"user":"\#(name)","password":"secret of \#(name)","device":"test"}"#
        let answer = try run("curl", ["-s", "-X", "POST", drive.url + "/v1/login", "-d", body])
        let json = try #require(try JSONSerialization.jsonObject(with: Data(answer.output.utf8)) as? [String: Any])
        let account = try #require(json["account"] as? [String: Any])
        return (try #require(json["token"] as? String), try #require(account["home"] as? String))
    }

    /// - Returns: status, content type, body.
    private func call(_ method: String, _ path: String, body: String? = nil, file: String? = nil, token: String? = nil) throws -> (Int, String, String) {
        var arguments = ["-s", "-X", method, "-w", "\n%{http_code} %{content_type}", "-H", "Authorization: Bearer \(token ?? self.token)", drive.url + path]
        if let body { arguments += ["--data-binary", body] }
        if let file { arguments += ["--data-binary", "@\(file)"] }
        let lines = try run("curl", arguments).output.split(separator: "\n", omittingEmptySubsequences: false)
        let words = lines.last?.split(separator: " ") ?? []
        return (words.first.flatMap { Int($0) } ?? 0, words.dropFirst().joined(separator: " "), lines.dropLast().joined(separator: "\n"))
    }

    private func expect(_ status: Int, _ code: String, _ answer: (Int, String, String), _ what: String) {
        #expect(answer.0 == status, "\(what): \(answer)")
        #expect(answer.1.hasPrefix("application/problem+json"), "\(what): \(answer)")
        #expect(answer.2.contains(#""code":"\#(code)""#), "\(what): \(answer)")
    }

    private func announce(_ hash: String, length: Int, token: String? = nil, home: String? = nil) throws -> (Int, String, String) {
        var packed = [UInt8]()
        var text = hash[...]
        while !text.isEmpty {
            packed.append(UInt8(text.prefix(2), radix: 16)!)
            text = text.dropFirst(2)
        }
        for shift in stride(from: 0, to: 32, by: 8) { packed.append(UInt8(truncatingIfNeeded: length >> shift)) }
        let body = #"{"chunks":"\#(Data(packed).base64EncodedString())","pages":[]}"#
        return try call("POST", "/v1/namespaces/\(home ?? self.home)/uploads", body: body, token: token)
    }

    // SHA-256 of "abc" (FIPS 180-4, appendix B.1).
    private let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    /// RFC 9530, as curl and openssl see it.
    @Test func jsonBodiesAreGuardedByTheirDigests() throws {
        defer { drive.end() }
        func digest(_ text: String) throws -> String {
            try run("sh", ["-c", "printf %s '\(text)' | openssl dgst -sha256 -binary | base64"]).output.trimmingCharacters(in: .whitespacesAndNewlines)
        }
        func login(_ body: String, digest: String?, agent: String = "curl") throws -> String {
            let field = digest.map { ["-H", "Content-Digest: \($0)"] } ?? []
            return try run("curl", ["-si", "-X", "POST", drive.url + "/v1/login", "-A", agent] + field + ["-d", body]).output
        }
        let body = #"{"user":"ann","password":"secret of ann","device":"test"}"#, right = "sha-256=:\(try digest(body)):"
        let answer = try login(body, digest: right)
        #expect(answer.hasPrefix("HTTP/1.1 200"))
        let parts = answer.split(separator: "\r\n\r\n", maxSplits: 1)
        let told = try #require(parts.first?.split(separator: "\r\n").first { $0.lowercased().hasPrefix("content-digest:") })
        #expect(told.hasSuffix(": sha-256=:\(try digest(String(try #require(parts.last)))):"), "\(told)")
        let damaged = try login(body.replacing("test", with: "tesu"), digest: right)
        #expect(damaged.hasPrefix("HTTP/1.1 400") && damaged.contains(#""code":"digest-mismatch""#) && damaged.contains("ontent-"), "\(damaged)")
        // A mount's body without one lost it on its way.
        #expect(try login(body, digest: nil).hasPrefix("HTTP/1.1 200"))
        for lost in [nil, "sha-25v=:AAAA:"] { #expect(try login(body, digest: lost, agent: "boxfs").contains(#""code":"digest-mismatch""#)) }
        #expect(try !call("GET", "/v1/tokens").2.contains("tesu"))
    }

    @Test func badRequestsGetProblemDocuments() throws {
        defer { drive.end() }
        expect(401, "unauthorized", try call("GET", "/v1/account", token: "0123"), "somebody's token")
        expect(404, "unsupported-version", try call("GET", "/v2/account"), "another version")
        expect(404, "not-found", try call("GET", "/v1/nothing"), "no such call")
        expect(404, "not-found", try call("GET", "/v1/namespaces/01990000-0000-7000-8000-000000000000"), "a namespace that is not there")
        expect(404, "not-found", try call("GET", "/v1/namespaces/nonsense"), "no identifier")
        expect(400, "bad-request", try call("POST", "/v1/namespaces/\(home)/commits", body: "{"), "half a body")
        let large = drive.root + "/large.json"
        try Data(repeating: UInt8(ascii: " "), count: 10 << 20).write(to: URL(fileURLWithPath: large))
        expect(413, "too-large", try call("POST", "/v1/namespaces/\(home)/uploads", file: large), "10 MiB of JSON")
        let upload = try announce(abc, length: 3)
        #expect(upload.0 == 200 && upload.2.contains(abc))
        let json = try #require(try JSONSerialization.jsonObject(with: Data(upload.2.utf8)) as? [String: Any])
        let id = try #require(json["upload"] as? String)
        expect(422, "hash-mismatch", try call("PUT", "/v1/uploads/\(id)/chunks/\(abc)", body: "abd"), "other bytes")
        expect(422, "hash-mismatch", try call("PUT", "/v1/uploads/\(id)/chunks/\(abc)", body: "ab"), "a truncated chunk")
        expect(400, "bad-request", try call("POST", "/v1/uploads/\(id)/chunks", body: "abc"), "half a frame")
        let long = drive.root + "/long"
        try Data(repeating: 1, count: (4 << 20) + 1).write(to: URL(fileURLWithPath: long))
        expect(413, "too-large", try call("PUT", "/v1/uploads/\(id)/chunks/\(abc)", file: long), "a chunk that is too long")
        for name in ["a/b", "a\\u0000b", String(repeating: "n", count: 256), "..", ""] {
            let node = #"{"id":"01990000-0000-7000-8000-0000000000AA","sequence":0,"mode":33188,"uid":0,"gid":0,"device":0,"accessed":0,"modified":0,"changed":0,"created":0,"links":1,"xattrs":{},"deleted":false}"#
            let root = try #require(try root())
            let commit = #"{"commit":"\#(UUID())","device":"test","operations":[{"id":1,"op":"create","node":\#(node),"parent":"\#(root)","name":"\#(name)"}]}"#
            let answer = try call("POST", "/v1/namespaces/\(home)/commits", body: commit)
            #expect(answer.0 == 200 && answer.2.contains(#""outcome":"refused""#) && answer.2.contains("invalid-name"), "\(name): \(answer)")
        }
        #expect(try drive.fsck().status == 0)
    }

    private func root() throws -> String? {
        let answer = try call("GET", "/v1/namespaces/\(home)")
        return (try JSONSerialization.jsonObject(with: Data(answer.2.utf8)) as? [String: Any])?["root"] as? String
    }

    @Test func knowingAHashGivesNothing() throws {
        defer { drive.end() }
        let mount = try drive.mount("one")
        try mount.write("secret", Array("abc".utf8))
        try mount.flush()
        #expect(try call("GET", "/v1/namespaces/\(home)/chunks/\(abc)").2 == "abc")
        try drive.addAccount("eve")
        let eve = try Self.login(drive, "eve")
        expect(404, "not-found", try call("GET", "/v1/namespaces/\(home)/chunks/\(abc)", token: eve.token), "another's namespace")
        expect(404, "not-found", try call("GET", "/v1/namespaces/\(eve.home)/chunks/\(abc)", token: eve.token), "another's chunk")
        let announced = try announce(abc, length: 3, token: eve.token, home: eve.home)
        #expect(announced.0 == 200 && announced.2.contains(#""neededChunks":["\#(abc)"]"#), "the server must ask for the bytes: \(announced)")
    }
}
