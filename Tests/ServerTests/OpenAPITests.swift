import Foundation
import Hummingbird
import Shared
import Testing
@testable import Server

/// docs/openapi.yaml says what the router does, and nothing else.
@Suite struct OpenAPITests {
    struct Unreadable: Error { let line: String }

    private static let lines: [String] = {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let text = (try? String(contentsOf: root.appending(path: "docs/openapi.yaml"), encoding: .utf8)) ?? ""
        return text.split(separator: "\n", omittingEmptySubsequences: true).map(String.init)
    }()

    /// "GET /v1/server" of each call in `paths:`; a line at the depth of a path or of a method that is neither is an error.
    static func calls(_ lines: [String]) throws -> [String] {
        let methods: Set = ["get", "put", "post", "delete", "head", "patch", "options", "trace"]
        var calls: [String] = [], path: String?, isInside = false
        for line in lines {
            let depth = line.prefix { $0 == " " }.count
            if depth == 0 {
                isInside = line == "paths:"
                continue
            }
            guard isInside, depth <= 4 else { continue }
            guard line.hasSuffix(":"), depth != 3, depth != 1 else { throw Unreadable(line: line) }
            let key = String(line.dropFirst(depth).dropLast())
            if depth == 2 {
                guard key.hasPrefix("/") else { throw Unreadable(line: line) }
                path = key
            } else if key != "parameters" || path == nil {
                guard let path, methods.contains(key) else { throw Unreadable(line: line) }
                calls.append("\(key.uppercased()) \(path)")
            } else { continue }
        }
        guard !calls.isEmpty else { throw Unreadable(line: "no paths") }
        return calls
    }

    @Test func routesAndDocumentAgree() throws {
        let drive = try DriveFixture()
        let router = API(drive: drive.drive, hub: ChangeHub(), limiter: RateLimiter()).router()
        let served = router.routes.map { "\($0.method.rawValue) \($0.path.description)" }
        let documented = try Self.calls(Self.lines)
        #expect(!served.isEmpty && Set(served).count == served.count && Set(documented).count == documented.count)
        #expect(Set(served).subtracting(documented) == [], "served, not documented")
        #expect(Set(documented).subtracting(served) == [], "documented, not served")
    }

    @Test func everyProblemCodeIsListed() throws {
        let start = "    ProblemCode: {enum: ["
        let line = try #require(Self.lines.first { $0.hasPrefix(start) && $0.hasSuffix("]}") })
        let listed = line.dropFirst(start.count).dropLast(2).split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
        #expect(listed.sorted() == ProblemCode.allCases.map(\.rawValue).sorted())
    }

    @Test func theReaderIsStrict() throws {
        #expect(throws: Unreadable.self) { try Self.calls([]) }
        #expect(throws: Unreadable.self) { try Self.calls(["paths:", "  /a:", "    fetch:"]) }
        #expect(throws: Unreadable.self) { try Self.calls(["paths:", "  a:", "    get:"]) }
        #expect(try Self.calls(["paths:", "  /a:", "    parameters:", "    get:", "other:", "  b: c"]) == ["GET /a"])
    }
}
