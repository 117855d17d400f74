import Foundation
import Testing
import TestSupport

/// Links as people and programs use them: `boxfs link` on a mount, curl as the visitor.
@Suite(.serialized) struct LinkTests {
    private let drive: Drive
    private let mount: Mount

    init() throws {
        drive = try Drive()
        mount = try drive.mount("one")
    }

    private func link(_ arguments: [String], input: String? = nil) throws -> String {
        let made = try mount.boxfs(["link", "create"] + arguments, input: input)
        try #require(made.status == 0, "\(made.output)")
        let address = made.output.trimmingCharacters(in: .whitespacesAndNewlines)
        try #require(address.hasPrefix(drive.url + "/l/") && !address.contains("\n"), "the address alone: \(made.output)")
        return address
    }

    /// - Returns: the status, and the headers and the body in one text.
    private func curl(_ arguments: [String]) throws -> (status: Int, text: String) {
        let answer = try run("curl", ["-s", "-i", "-w", "\n%{http_code}"] + arguments)
        let status = answer.output.split(separator: "\n").last.flatMap { Int($0) } ?? 0
        return (status, answer.output)
    }

    private func shown(_ address: String) throws -> [String: Any] {
        let shown = try mount.boxfs(["link", "show", address, "--json"])
        try #require(shown.status == 0, "\(shown.output)")
        return try #require(try JSONSerialization.jsonObject(with: Data(shown.output.utf8)) as? [String: Any])
    }

    @Test func aFileIsDownloadedWholeAndInPartsAndCountedExactly() throws {
        defer { drive.end() }
        var random = SeededGenerator("link download")
        let body = random.bytes(5_000_001)
        try mount.write("größe.bin", body)
        let address = try link([mount("größe.bin"), "--max-downloads", "12"]), file = drive.root + "/got"
        let head = try run("curl", ["-sf", "--head", address + "/download"])
        #expect(head.status == 0 && head.output.contains("Content-Length: 5000001"), "\(head.output)")
        let page = try curl(["-H", "Accept: text/html", address])
        #expect(page.status == 200 && page.text.contains("größe.bin") && page.text.contains("Content-Security-Policy: default-src 'none'"), "\(page.text)")
        #expect(!page.text.contains("<script"))
        #expect(try run("curl", ["-sf", "-o", file, "-c", drive.root + "/jar", address + "/download"]).status == 0)
        #expect((try Data(contentsOf: URL(fileURLWithPath: file))).elementsEqual(body))
        // A part that the cookie of the first download covers counts nothing; without it, it counts.
        let part = try run("curl", ["-sf", "-o", file, "-b", drive.root + "/jar", "-r", "4194300-4194310", "-w", "%{http_code}", address + "/download"])
        #expect(part.output == "206")
        #expect((try Data(contentsOf: URL(fileURLWithPath: file))).elementsEqual(body[4_194_300...4_194_310]))
        #expect(try shown(address)["downloads"] as? Int == 1)
        #expect(try run("curl", ["-sf", "-o", file, "-r", "-5", address + "/download"]).status == 0)
        #expect((try Data(contentsOf: URL(fileURLWithPath: file))).elementsEqual(body.suffix(5)))
        #expect(try shown(address)["downloads"] as? Int == 2)
        // Fifty at once: exactly the ten that are left.
        let list = drive.root + "/fifty"
        try String(repeating: "url = \"\(address)/download\"\noutput = \"/dev/null\"\n", count: 50).write(toFile: list, atomically: true, encoding: .utf8)
        let codes: [String] = try run("curl", ["-s", "--parallel", "--parallel-immediate", "--parallel-max", "50", "-w", "%{http_code}\n", "-K", list]).output.split(separator: "\n").map { String($0) }.filter { $0 == "200" || $0 == "410" }
        #expect(codes.count == 50 && codes.filter { $0 == "200" }.count == 10 && codes.filter { $0 == "410" }.count == 40, "\(codes)")
        let used = try shown(address)
        #expect(used["downloads"] as? Int == 12 && used["state"] as? String == "exhausted" && used["opens"] as? Int == 1 && used["lastUsed"] != nil, "\(used)")
        let over = try curl([address + "/download"])
        #expect(over.status == 410 && over.text.contains("link-exhausted"), "\(over.text)")
        let listed = try mount.boxfs(["link", "list"])
        #expect(listed.output.contains("12 of 12 downloads") && listed.output.contains("größe.bin"), "\(listed.output)")
        #expect(try drive.fsck().status == 0)
    }

    @Test func passwordsByFormAndByBasicAndRevoking() throws {
        defer { drive.end() }
        try mount.write("note.txt", Array("secret text".utf8))
        let address = try link([mount("note.txt"), "--password-stdin", "--expires", "7d"], input: "open sesame\n")
        let asked = try curl([address + "/download"])
        #expect(asked.status == 401 && asked.text.contains("password-required") && asked.text.contains("WWW-Authenticate: Basic"), "\(asked.text)")
        let form = try curl(["-H", "Accept: text/html", address])
        #expect(form.status == 403 && form.text.contains("type=\"password\"") && !form.text.contains("note.txt"), "\(form.text)")
        #expect(try run("curl", ["-sf", "-u", "any:open sesame", address + "/download"]).output == "secret text")
        #expect(try run("curl", ["-sf", "--data-urlencode", "password=open sesame", address + "/download"]).output == "secret text")
        let unlocked = try run("curl", ["-sfL", "-c", drive.root + "/jar", "-b", "none", "--data-urlencode", "password=open sesame", address])
        #expect(unlocked.output.contains("note.txt"), "\(unlocked.output)")
        #expect(try run("curl", ["-sf", "-b", drive.root + "/jar", address + "/download"]).output == "secret text")
        for _ in 0..<10 { #expect(try curl(["-u", ":wrong", address + "/download"]).status == 401) }
        let limited = try curl(["-u", ":another", address + "/download"])
        #expect(limited.status == 429 && limited.text.contains("Retry-After"), "\(limited.text)")
        #expect(try mount.boxfs(["link", "revoke", address]).status == 0)
        let revoked = try curl(["-H", "Accept: text/html", address])
        #expect(revoked.status == 410 && revoked.text.contains("revoked") && !revoked.text.contains("password"), "\(revoked.text)")
    }

    @Test func aFolderIsAZipFileAndAViewOnlyLinkGivesNone() throws {
        defer { drive.end() }
        var random = SeededGenerator("link zip")
        try FileManager.default.createDirectory(atPath: mount("album/deep er"), withIntermediateDirectories: true)
        let big = random.bytes(4_300_000)
        try mount.write("album/big", big)
        try mount.write("album/deep er/<b>.txt", Array("bold".utf8))
        try mount.write("album/empty", [])
        #expect(symlink("big", mount("album/soft")) == 0)
        try mount.write("outside", Array("not yours".utf8))
        let address = try link([mount("album")]), zip = drive.root + "/album.zip"
        let page = try curl(["-H", "Accept: text/html", address])
        #expect(page.text.contains("deep er/") && !page.text.contains("outside"))
        let deep = try curl(["-H", "Accept: text/html", address + "?path=deep%20er"])
        #expect(deep.text.contains("&lt;b&gt;.txt") && !deep.text.contains("<b>"), "\(deep.text)")
        #expect(try run("curl", ["-sf", address + "/download?path=deep%20er/%3Cb%3E.txt"]).output == "bold")
        #expect(try curl([address + "/download?path=../outside"]).status == 404)
        #expect(try run("curl", ["-sf", "-o", zip, address + "/download"]).status == 0)
        let unpack = """
            import sys, zipfile, hashlib
            z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None
            print(sorted(z.namelist()), hashlib.sha256(z.read('big')).hexdigest(), z.read('deep er/<b>.txt'), z.read('soft'))
            """
        let unpacked = try run("env", ["python3", "-c", unpack, zip]).output
        let hash = try run("sha256sum", [mount("album/big")]).output.prefix(64)
        #expect(unpacked == "['big', 'deep er/', 'deep er/<b>.txt', 'empty', 'soft'] \(hash) b'bold' b'big'\n", "\(unpacked)")
        let look = try link([mount("album/deep er/<b>.txt"), "--view-only"])
        #expect(try curl([look + "/download"]).status == 403)
        let view = try curl([look + "/view"])
        #expect(view.status == 200 && view.text.contains("bold") && view.text.contains("sandbox") && view.text.contains("inline"), "\(view.text)")
    }

    @Test func theAuditShowsWhoDidWhat() throws {
        defer { drive.end() }
        try FileManager.default.createDirectory(atPath: mount("folder"), withIntermediateDirectories: true)
        try mount.write("folder/note, one", Array("text".utf8))
        try mount.write("other", Array("text".utf8))
        let address = try link([mount("folder/note, one")])
        #expect(try run("curl", ["-sf", address + "/download"]).output == "text")
        let mine = try mount.boxfs(["audit", mount("folder"), "--csv"])
        let lines = mine.output.split(separator: "\r\n").map { $0.split(separator: ",").dropFirst().prefix(2).joined(separator: " ") }
        #expect(mine.status == 0 && lines == ["action account", "link-downloaded link", "link-created ann", "created ann", "created ann"], "\(mine.output)")
        #expect(mine.output.contains("\"folder/note, one\"") && mine.output.contains("127.0.0.1"), "\(mine.output)")
        let json = try mount.boxfs(["audit", "--json", "--action", "opened"])
        let records = try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [[String: Any]])
        #expect(!records.isEmpty && records.allSatisfy { $0["account"] as? String == "ann" && $0["address"] as? String == "127.0.0.1" }, "\(json.output)")
        try drive.addAccount("eve")
        let all = try run(Drive.binaries + "/boxfs-server", ["audit", "--data", drive.root + "/data", "--action", "account-added"])
        #expect(all.output.split(separator: "\n").map { $0.split(separator: "\t").last } == ["eve", "ann"], "\(all.output)")
        #expect(try run(Drive.binaries + "/boxfs-server", ["audit", "--data", drive.root + "/data", "--user", "nobody"]).status != 0)
    }

    @Test func filesAreSentThroughAnUploadLink() throws {
        defer { drive.end() }
        try FileManager.default.createDirectory(atPath: mount("inbox"), withIntermediateDirectories: true)
        try mount.write("inbox/hidden", Array("hidden".utf8))
        let address = try link([mount("inbox"), "--upload", "--max-size", "5MB"])
        let page = try curl(["-H", "Accept: text/html", address])
        #expect(page.status == 200 && page.text.contains("multipart/form-data") && !page.text.contains("hidden") && !page.text.contains("inbox"), "\(page.text)")
        #expect(try curl([address + "/download"]).status == 404)
        var random = SeededGenerator("link upload")
        let body = random.bytes(4_500_000), source = drive.root + "/photo.raw"
        try Data(body).write(to: URL(fileURLWithPath: source))
        let sent = try curl(["-F", "file=@\(source);filename=pho to.raw", "-F", "note=x", "-F", "file=@\(drive.root)/photo.raw;filename=empty;type=text/plain;headers=\"X: y\"", "-H", "Accept: text/html", address + "/upload"])
        // The second is over the limit: the first has arrived all the same.
        #expect(sent.status == 413, "\(sent.text)")
        try eventually("the file is on the mount") { (try? mount.read("inbox/pho to.raw")) == body }
        #expect(try curl(["-T", drive.root + "/photo.raw", address + "/upload/again"]).status == 413)
        let small = drive.root + "/small"
        try "few bytes".write(toFile: small, atomically: true, encoding: .utf8)
        #expect(try curl(["-T", small, address + "/upload/a%20%C3%A4"]).status == 201)
        #expect(try curl(["-T", small, address + "/upload/.."]).status != 201)
        try eventually("the second file is on the mount") { mount.read("inbox/a ä") == Array("few bytes".utf8) }
        // To the address itself, as somebody does who was told nothing else.
        #expect(try curl(["-F", "file=@\(small);filename=plain", address]).status == 200)
        try eventually("the third file is on the mount") { mount.read("inbox/plain") == Array("few bytes".utf8) }
        #expect(try mount.names("inbox") == ["a ä", "hidden", "pho to.raw", "plain"])
        #expect(try shown(address)["receivedBytes"] as? Int == 4_500_018)
        #expect(try drive.fsck().status == 0)
    }
}
