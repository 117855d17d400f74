import Foundation
import Testing
@testable import Shared

/// Frozen bytes of docs/FORMAT.md. A change here is a new format, not a new expectation.
struct FormatTests {
    private let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"   // FIPS 180-4, appendix B.1

    @Test func hashes() throws {
        #expect(SHA256.hash(Array("abc".utf8)).description == abc)
        #expect(ChunkHash(abc)?.bytes.prefix(4) == [0xba, 0x78, 0x16, 0xbf])
        #expect(ChunkHash("ba78") == nil && ChunkHash(abc.uppercased()) == ChunkHash(abc) && ChunkHash(String(abc.dropLast()) + "g") == nil)
        let hash = try #require(ChunkHash(abc))
        #expect(ChunkHash(bytes: ([1, 2] + hash.bytes).dropFirst(2)) == hash && ChunkHash(bytes: AnyCollection(hash.bytes)) == hash)
        #expect(ChunkHash(bytes: hash.bytes.dropLast()) == nil && hash.description == abc)
        #expect(Hexadecimal.decode("0aF".utf8) == nil && Hexadecimal.decode("0aFf".utf8) == [10, 255] && Hexadecimal.decode("0x".utf8) == nil)
    }

    @Test func identifiers() throws {
        let id = try #require(NodeID("01990000-1234-7abc-8def-0123456789ab"))
        #expect(id.bytes == [0x01, 0x99, 0, 0, 0x12, 0x34, 0x7a, 0xbc, 0x8d, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab])
        #expect(id.description == "01990000-1234-7abc-8def-0123456789ab")
        #expect(NodeID(bytes: id.bytes) == id && NodeID("0199") == nil)
        #expect(NodeID("01990000-1234-7ABC-8DEF-0123456789AB") == id && NodeID(bytes: Data(id.bytes)) == id && NodeID(bytes: ([7] + id.bytes).dropFirst()) == id)
        #expect(NodeID(bytes: AnyCollection(id.bytes)) == id, "bytes that do not lie side by side")
        for wrong in ["01990000-1234-7abc-8def-0123456789ag", "0199000-01234-7abc-8def-0123456789ab", "01990000-1234-7abc-8def-0123456789a-"] { #expect(NodeID(wrong) == nil) }
        #expect(NodeID(bytes: id.bytes.dropLast()) == nil && NodeID(bytes: id.bytes + [0]) == nil)
        var random = SystemRandomNumberGenerator()
        let made = NodeID.make(milliseconds: 0x0199_0000_1234, random: &random)
        #expect(made.bytes[6] >> 4 == 7 && made.bytes[8] >> 6 == 2 && made.bytes.prefix(6) == [0x01, 0x99, 0, 0, 0x12, 0x34])
    }

    @Test func manifests() throws {
        let chunk = ChunkReference(hash: ChunkHash(abc)!, length: 0x0001_0203)
        let packed = Manifest.pack([chunk, ChunkReference(hash: .hole, length: 5)])
        #expect(Hexadecimal.encode(packed) == abc + "03020100" + String(repeating: "0", count: 64) + "05000000")
        #expect(try Manifest.unpack(packed) == [chunk, ChunkReference(hash: .hole, length: 5)])
        #expect(try Manifest.unpack(([9] + packed).dropFirst()).count == 2 && Manifest.unpack([UInt8]()).isEmpty)
        #expect(throws: Manifest.FormatError.length) { try Manifest.unpack(packed.dropLast()) }
        #expect(throws: Manifest.FormatError.chunkLength) { try Manifest.unpack([UInt8](repeating: 0, count: 36)) }
        let long = Manifest(chunks: [ChunkReference](repeating: chunk, count: 1500))
        #expect(long.pages.count == 2 && long.pages[0].packed.count == 1024 * 36)
        #expect(Content(long).inline == nil && Content(Manifest(chunks: [chunk])).pages == nil)
    }

    @Test func frames() throws {
        let body = ChunkFrame.header(ChunkReference(hash: ChunkHash(abc)!, length: 3)) + Array("abc".utf8)
        #expect(Hexadecimal.encode(body) == abc + "03000000" + "616263")
        let frames = try body.withUnsafeBytes { try ChunkFrame.parse($0) }
        #expect(frames.count == 1 && frames[0].range == 36..<39)
        #expect(throws: ChunkFrame.FormatError.truncated) { try body.dropLast().withUnsafeBytes { try ChunkFrame.parse($0) } }
    }

    @Test func deltas() throws {
        let body = ChunkDelta.header(2..<4) + Array("xy".utf8) + ChunkDelta.header(5..<6) + Array("z".utf8)
        #expect(Hexadecimal.encode(body) == "02000000" + "02000000" + "7879" + "05000000" + "01000000" + "7a")
        func apply(_ body: [UInt8], to text: String) throws -> String {
            var chunk = Array(text.utf8)
            try body.withUnsafeBytes { body in
                let pieces = try ChunkDelta.pieces(of: body, chunkLength: chunk.count)
                chunk.withUnsafeMutableBytes { chunk in
                    for start in stride(from: 0, to: chunk.count, by: 3) {      // in parts, whose borders pieces cross
                        let part = UnsafeMutableRawBufferPointer(rebasing: chunk[start..<min(start + 3, chunk.count)])
                        ChunkDelta.lay(pieces, of: body, over: part, at: start)
                    }
                }
            }
            return String(decoding: chunk, as: UTF8.self)
        }
        #expect(try apply(body, to: "abcdefg") == "abxyezg")
        #expect(throws: ChunkDelta.FormatError.truncated) { try apply(body.dropLast(), to: "abcdefg") }
        #expect(throws: ChunkDelta.FormatError.beyondEnd) { try apply(body, to: "abcde") }
        #expect(throws: ChunkDelta.FormatError.order) { try apply(ChunkDelta.header(3..<4) + [1] + ChunkDelta.header(3..<4) + [2], to: "abcdefg") }
    }

    @Test func operationsAsJSON() throws {
        let node = NodeID("01990000-1234-7abc-8def-0123456789ab")!, time = Timestamp(nanoseconds: 7)
        let frozen: [(Shared.Operation, String)] = [
            (.link(node: node, parent: node, name: "n", time: time), #"{"id":1,"name":"n","node":"N","op":"link","parent":"N","time":7}"#),
            (.rename(node: node, parent: node, name: "a", toParent: node, toName: "b", replaced: nil, time: time),
             #"{"id":1,"name":"a","node":"N","op":"rename","parent":"N","time":7,"toName":"b","toParent":"N"}"#),
            (.remove(node: node, parent: node, name: "n", version: nil, time: time), #"{"id":1,"name":"n","node":"N","op":"remove","parent":"N","time":7}"#),
            (.setattr(node: node, mode: 420, uid: nil, gid: nil, accessed: nil, modified: time, changed: time),
             #"{"changed":7,"id":1,"mode":420,"modified":7,"node":"N","op":"setattr"}"#),
            (.xattr(node: node, name: "user.a", value: Data([1]), changed: time), #"{"changed":7,"id":1,"name":"user.a","node":"N","op":"xattr","value":"AQ=="}"#),
            (.content(node: node, base: nil, version: VersionID(node.description)!, content: .empty, modified: time, changed: time),
             #"{"changed":7,"content":{"inline":"","size":0},"id":1,"modified":7,"node":"N","op":"content","version":"N"}"#),
        ]
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        for (operation, text) in frozen {
            let expected = text.replacingOccurrences(of: "\"N\"", with: "\"\(node)\"")
            let numbered = NumberedOperation(id: 1, operation: operation)
            #expect(String(decoding: try encoder.encode(numbered), as: UTF8.self) == expected)
            #expect(try JSONDecoder().decode(NumberedOperation.self, from: Data(expected.utf8)) == numbered)
        }
        #expect(throws: DecodingError.self) { try JSONDecoder().decode(NumberedOperation.self, from: Data(#"{"id":1,"op":"explode"}"#.utf8)) }
    }

    @Test(arguments: [("", EntryName.Problem.empty), (".", .reserved), ("..", .reserved), ("a/b", .forbiddenCharacter), ("a\0", .forbiddenCharacter)])
    func names(_ name: String, _ problem: EntryName.Problem) { #expect(EntryName.problem(with: name) == problem) }

    @Test func nameLengths() {
        #expect(EntryName.problem(with: String(repeating: "ü", count: 127)) == nil)
        #expect(EntryName.problem(with: String(repeating: "ü", count: 128)) == .tooLong)
    }
}
