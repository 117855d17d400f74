import Foundation
import Glibc
import Shared
import Testing
@testable import Server

@Suite struct ZipArchiveTests {
    private static let time = Timestamp(seconds: 1_767_323_045, nanoseconds: 0)     // 2026-01-02 03:04:05 UTC

    private func add(_ archive: inout ZipArchive, _ path: String, _ body: [UInt8], mode: UInt32 = 0o100644) -> [UInt8] {
        var bytes = archive.begin(.init(path: path, mode: mode, modified: Self.time, byteCount: UInt64(body.count)))
        body.withUnsafeBytes { archive.add($0) }
        bytes += body
        return bytes + archive.end()
    }

    /// The check value of the CRC catalogue (reveng.sourceforge.io, CRC-32/ISO-HDLC), at every split.
    @Test func crcOfTheCatalogue() {
        let text = Array("123456789123456789".utf8)
        for split in 0...9 {
            var crc = CRC32()
            text[0..<split].withUnsafeBytes { crc.update($0) }
            text[split..<9].withUnsafeBytes { crc.update($0) }
            #expect(crc.value == 0xCBF4_3926)
        }
    }

    /// Written by hand from the specification on top of ZipArchive.swift.
    @Test func theBytesAreThoseOfTheSpecification() {
        var archive = ZipArchive()
        let bytes = add(&archive, "a", Array("123456789".utf8)) + archive.finish()
        let hex = """
            504b0304 1400 0808 0000 8218 225c 00000000 00000000 00000000 0100 0900 61 5554 0500 01 a5355769
            313233343536373839
            504b0708 2639f4cb 09000000 09000000
            504b0102 1e03 1400 0808 0000 8218 225c 2639f4cb 09000000 09000000 0100 0900 0000 0000 0000 0000a481 00000000 61 5554 0500 01 a5355769
            504b0506 0000 0000 0100 0100 38000000 41000000 0000
            """
        #expect(bytes == Hexadecimal.decode(hex.utf8.filter { $0 != 32 && $0 != 10 }))
        #expect(archive.byteCount == UInt64(bytes.count))
    }

    @Test func pythonReadsIt() throws {
        let path = NSTemporaryDirectory() + "boxfs-zip-\(UUID().uuidString).zip"
        defer { unlink(path) }
        var archive = ZipArchive()
        var bytes = add(&archive, "ordner/", [], mode: 0o040755)
        bytes += add(&archive, "ordner/größe.txt", Array("hello".utf8))
        bytes += add(&archive, "empty", [])
        bytes += add(&archive, "link", Array("ordner/größe.txt".utf8), mode: 0o120777)
        bytes += archive.finish()
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let script = """
            import sys, zipfile
            z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None
            print([(i.filename, i.file_size, oct(i.external_attr >> 16), i.date_time) for i in z.infolist()], z.read('ordner/größe.txt'))
            """
        let found = try python(script, path)
        #expect(found == """
            [('ordner/', 0, '0o40755', (2026, 1, 2, 3, 4, 4)), ('ordner/größe.txt', 5, '0o100644', (2026, 1, 2, 3, 4, 4)), \
            ('empty', 0, '0o100644', (2026, 1, 2, 3, 4, 4)), ('link', 18, '0o120777', (2026, 1, 2, 3, 4, 4))] b'hello'

            """)
    }

    /// A file of 5 GiB, one behind it, and more than 65,535 entries, in a sparse file.
    @Test func largeFilesAndManyEntriesNeedZip64() throws {
        let path = NSTemporaryDirectory() + "boxfs-zip-\(UUID().uuidString).zip"
        defer { unlink(path) }
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL, 0o600)
        defer { close(descriptor) }
        var archive = ZipArchive(), entries: [ZipArchive.Entry] = []
        func put(_ entry: ZipArchive.Entry) {
            entries.append(entry)
            let at = off_t(archive.byteCount)
            let header = archive.begin(entry)
            #expect(pwrite(descriptor, header, header.count, at) == header.count)
            archive.skip(entry.byteCount)
            let end = off_t(archive.byteCount), last = archive.end()
            #expect(pwrite(descriptor, last, last.count, end) == last.count)
        }
        put(.init(path: "large", mode: 0o100644, modified: Self.time, byteCount: 5 << 30))
        for index in 0..<66_000 { put(.init(path: "d\(index)/", mode: 0o040755, modified: Self.time, byteCount: 0)) }
        put(.init(path: "behind", mode: 0o100644, modified: Self.time, byteCount: 0))
        let at = off_t(archive.byteCount), last = archive.finish()
        #expect(pwrite(descriptor, last, last.count, at) == last.count)
        #expect(ZipArchive.byteCount(of: entries) == archive.byteCount)
        let script = """
            import sys, zipfile
            z = zipfile.ZipFile(sys.argv[1]); l = z.infolist(); z.open('behind').read(); z.open('large').read(10)
            print(len(l), l[0].file_size, l[-1].filename, l[-1].header_offset > 1 << 32)
            """
        #expect(try python(script, path) == "66002 5368709120 behind True\n")
    }

    private func python(_ script: String, _ argument: String) throws -> String {
        let process = Process(), output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["python3", "-X", "utf8", "-c", script, argument]
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let bytes = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return String(decoding: bytes, as: UTF8.self)
    }
}
