import Foundation
import NIOCore
import Shared
import Testing
import TestSupport
@testable import Server

/// What visitors send: ranges, forms, uploads.
@Suite struct LinkRequestTests {
    @Test(arguments: [
        (nil, 10, HTTPRange.whole), ("bytes=0-", 10, .part(0..<10)), ("bytes=2-4", 10, .part(2..<5)), ("bytes=2-400", 10, .part(2..<10)),
        ("bytes=-3", 10, .part(7..<10)), ("bytes=-30", 10, .part(0..<10)), ("bytes=10-", 10, .unsatisfiable), ("bytes=-0", 10, .unsatisfiable),
        ("bytes=0-", 0, .unsatisfiable), ("bytes=4-2", 10, .whole), ("bytes=0-1,4-5", 10, .whole), ("bytes=a-", 10, .whole), ("items=0-1", 10, .whole),
        ("bytes=0-18446744073709551615", 10, .part(0..<10)), ("bytes=99999999999999999999-", 10, .unsatisfiable), ("bytes=-", 10, .whole),
        ("bytes=+1-2", 10, .whole),
    ] as [(String?, UInt64, HTTPRange)])
    func ranges(header: String?, count: UInt64, expected: HTTPRange) {
        #expect(HTTPRange(header, of: count) == expected)
    }

    @Test func forms() {
        #expect(FormText.value("password", in: "a=b&password=p%26+%C3%A9") == "p& é")
        #expect(FormText.value("password", in: "passwords=x") == nil)
        #expect(FormText.value("password", in: "password") == "")
        #expect(FormText.decoded("%4") == nil && FormText.decoded("%zz") == nil && FormText.decoded("%FF") == nil)
        #expect(FormText.decoded(FormText.encoded("a/ä b+%")) == "a/ä b+%")
    }

    /// A form of random parts in random pieces gives the parts, and so do parts that hold almost a boundary.
    @Test func formsOfFilesInAnyPieces() throws {
        var random = SeededGenerator()
        let fragments = ["\r\n--B", "\r\n--", "\r", "\n", "--Bound", "\r\n\r\n", "x", "\r\n--Bounda", "\0"]
        for _ in 0..<300 {
            let parts = (0..<Int.random(in: 1...4, using: &random)).map { index in
                (name: index == 2 ? nil : "f\(index).bin", body: (0..<Int.random(in: 0...12, using: &random)).map { _ in fragments.randomElement(using: &random)! }.joined())
            }
            var text = Bool.random(using: &random) ? "preamble\r\n" : ""
            for part in parts {
                text += "--Boundary\r\nContent-Disposition: form-data; name=\"file\"\(part.name.map { "; filename=\"C:\\x\\\($0)\"" } ?? "")\r\nX: y\r\n\r\n\(part.body)\r\n"
            }
            text += "--Boundary--\r\n"
            var parser = try #require(MultipartParser(contentType: "multipart/form-data; boundary=Boundary"))
            var found: [(name: String?, body: [UInt8])] = [], ends = 0
            var rest = Array(text.utf8)[...]
            while !rest.isEmpty {
                let count = min(rest.count, Int.random(in: 1...20, using: &random))
                for event in try parser.feed(ByteBuffer(bytes: rest.prefix(count))) {
                    switch event {
                    case .part(let name): found.append((name, []))
                    case .bytes(let bytes): found[found.count - 1].body += bytes.readableBytesView
                    case .partEnd: ends += 1
                    }
                }
                rest = rest.dropFirst(count)
            }
            #expect(parser.isComplete && ends == parts.count)
            #expect(found.map(\.name) == parts.map(\.name))
            #expect(found.map(\.body) == parts.map { Array($0.body.utf8) })
        }
    }

    @Test func brokenFormsAreRefused() throws {
        #expect(MultipartParser(contentType: "text/plain") == nil)
        #expect(MultipartParser(contentType: "multipart/form-data; boundary=") == nil)
        var endless = try #require(MultipartParser(contentType: "multipart/form-data; boundary=B"))
        #expect(throws: MultipartParser.FormatError.self) { _ = try endless.feed(ByteBuffer(string: "--B\r\n" + String(repeating: "h", count: 20_000))) }
        var cut = try #require(MultipartParser(contentType: "multipart/form-data; boundary=B"))
        _ = try cut.feed(ByteBuffer(string: "--B\r\nContent-Disposition: form-data; filename=\"a\"\r\n\r\nbody"))
        #expect(!cut.isComplete)
    }
}
