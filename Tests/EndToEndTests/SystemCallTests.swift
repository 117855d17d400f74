import Foundation
import Testing
import TestSupport

/// What a local disk does, call by call: the checks of Tests/SystemCalls pass on a local folder, and then on a mount.
@Suite(.serialized) struct SystemCallTests {
    @Test func theMountAnswersAsALocalDisk() throws {
        let drive = try Drive()
        defer { drive.end() }
        try checkLocalDisk(drive)
        try check(try drive.mount("one"))
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }

    @Test func ownersAreHonouredAsOnALocalDisk() throws {
        let drive = try Drive()
        defer { drive.end() }
        try checkLocalDisk(drive, sets: "owners")
        let one = try drive.mount("one", ["--posix-owners"])
        try check(one, sets: "owners")
        try one.unmount()
    }

    @Test func sizesAtWhichACarelessDesignShows() throws {
        let drive = try Drive(seconds: 240)
        defer { drive.end() }
        try check(try drive.mount("one"), sets: "large")
    }

    /// Copying inside the drive sends no chunk: the server holds as many bytes as before.
    @Test func copyFileRangeSendsNoChunk() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        var random = SeededGenerator("copy_file_range")
        let bytes = random.bytes(9 << 20)
        try mount.write("source", bytes)
        try mount.flush()
        let before = try drive.chunkBytes()
        try mount.copyWithin("source", to: "target")
        try mount.flush()
        #expect(mount.read("target") == bytes)
        #expect(try drive.chunkBytes() == before)
        let stats = try mount.boxfs(["stats", mount.path, "--json"]).output
        let exchanges = (try JSONSerialization.jsonObject(with: Data(stats.utf8)) as? [String: Any])?["exchanges"] as? [String: [String: Any]]
        #expect(exchanges?["POST namespaces/*/uploads"]?["count"] as? Int == 1, "for the source alone: \(stats)")
        #expect(try drive.mount("two").read("target") == bytes)
    }

    @Test func statfsTellsTheQuota() throws {
        let drive = try Drive()
        defer { drive.end() }
        try drive.addAccount("bob", quota: "16MiB")
        let mount = try drive.mount("one", account: "bob")
        func space() throws -> (total: UInt64, free: UInt64) {
            var answer = statvfs()
            try #require(statvfs(mount.path, &answer) == 0)
            return (UInt64(answer.f_blocks) * UInt64(answer.f_frsize), UInt64(answer.f_bavail) * UInt64(answer.f_frsize))
        }
        try eventually("df shows the quota") { try space() == (16 << 20, 16 << 20) }
        try mount.write("file", [UInt8](repeating: 7, count: 3 << 20))
        #expect(try space().free <= 13 << 20, "what is not sent yet counts")
        try mount.flush()
        try eventually("df shows what is used") { try space() == (16 << 20, 13 << 20) }
        #expect(unlink(mount("file")) == 0)
    }

    private func checkLocalDisk(_ drive: Drive, sets: String? = nil) throws {
        let folder = drive.root + "/local"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try check(folder, sets.map { ["--sets", $0] } ?? [], environment: nil)
    }

    private func check(_ mount: Mount, sets: String? = nil) throws {
        let more = ["--mount", "--boxfs", Drive.binaries + "/boxfs"] + (sets.map { ["--sets", $0] } ?? [])
        try check(mount.path, more, environment: mount.environment)
    }

    private struct Result: Decodable {
        var name: String, passed: Bool, seconds: Double, message: String
    }

    private func check(_ folder: String, _ more: [String], environment: [String: String]?) throws {
        let program = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appending(path: "../SystemCalls").standardized.path
        let answer = try run("python3", ["-B", program, folder] + more, environment: environment)
        var count = 0
        for line in answer.output.split(separator: "\n") {
            guard let result = try? JSONDecoder().decode(Result.self, from: Data(line.utf8)) else {
                print(line)
                continue
            }
            count += 1
            if !result.passed { Issue.record("\(result.name) in \(folder): \(result.message)") }
        }
        #expect(answer.status == 0 && count > 0, "\(answer.output.suffix(2000))")
    }
}
