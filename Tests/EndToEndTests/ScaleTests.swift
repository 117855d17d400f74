import Foundation
import Glibc
import Testing

/// What must not grow with the tree, or with time.
@Suite(.serialized) struct ScaleTests {
    /// Nothing in a mount polls: while nobody asks for anything, its threads sleep.
    @Test func anIdleMountSleeps() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        #expect(mkdir(mount("d"), 0o755) == 0)
        try mount.write("d/f", [1])
        try mount.flush()
        let process = try #require(mount.process?.processIdentifier)
        try eventually("it sleeps") {
            let before = try wakeUps(process)
            usleep(3_000_000)
            return try wakeUps(process) - before < 3
        }
    }

    /// How often a thread of the process went to sleep.
    private func wakeUps(_ process: Int32) throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task").reduce(0) { sum, thread in
            guard let status = try? String(contentsOfFile: "/proc/\(process)/task/\(thread)/status", encoding: .utf8) else { return sum }
            let line = status.split(separator: "\n").first { $0.hasPrefix("voluntary_ctxt_switches:") }
            return sum + (line.flatMap { Int($0.drop { !$0.isNumber }) } ?? 0)
        }
    }

    /// scripts/bench-scale does what it says with 10,000 files, within the goals for a hundred times as many.
    @Test func theScaleOfANamespaceIsMeasured() throws {
        let program = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../scripts/bench-scale").standardized.path
        let environment = ProcessInfo.processInfo.environment.merging(["BOXFS_BIN": Drive.binaries]) { $1 }
        let answer = try run("python3", ["-B", program, "--files", "10000", "--idle", "1"], environment: environment)
        let line = answer.output.split(separator: "\n").first { $0.hasPrefix("{\"files\"") } ?? ""
        let figures = try #require(try? JSONDecoder().decode([String: Double].self, from: Data(line.utf8)), "\(answer.output)")
        #expect(answer.status == 0 && figures["files"] == 10_000)
        #expect(try #require(figures["first ls s"]) < 1 && #require(figures["peak"]) < 300)
    }

    /// Folders of all sizes come in the background, without anybody's visit: then the server may go.
    @Test func allFoldersComeInTheBackground() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one")
        let counts = [0, 1, 99, 100, 101, 250, 2100]
        for (index, count) in counts.enumerated() {
            #expect(mkdir(one("d\(index)"), 0o755) == 0 && mkdir(one("d\(index)/inner"), 0o755) == 0)
            for file in 0..<count {
                let descriptor = open(one("d\(index)/inner/f\(file)"), O_WRONLY | O_CREAT, 0o644)
                close(descriptor)
            }
        }
        #expect(link(one("d3/inner/f0"), one("d4/inner/link")) == 0)
        try one.flush()
        let two = try drive.mount("two", ["--deadline", "1"])
        func isAllHere() throws -> Bool {
            let exchanges = try two.boxfs(["why", two("d6/inner"), "--json"])
            return exchanges.output.contains("\"isListed\" : true")
        }
        try eventually("the last folder is here") { try isAllHere() }
        // Meanwhile something is made there, which must be seen as well.
        try one.write("d5/inner/late", [5])
        try one.flush()
        try eventually("the change is here") { (try? two.names("d5/inner").contains("late")) ?? false }
        drive.stopServer(SIGKILL)
        for (index, count) in counts.enumerated() {
            let expected = count + (index == 4 || index == 5 ? 1 : 0)
            #expect(try two.names("d\(index)/inner").count == expected, "d\(index)")
        }
        try drive.startServer()
    }
}
