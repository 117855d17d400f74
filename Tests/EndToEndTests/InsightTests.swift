import Foundation
import Glibc
import Testing
import TestSupport

/// `boxfs stats`, `trace` and `why`: what they say of calls that are known.
@Suite(.serialized) struct InsightTests {
    @Test func statsCountCallsExactly() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        #expect(mkdir(mount("d"), 0o755) == 0)
        _ = try stats(mount, ["--reset"])
        for index in 0..<5 { try mount.write("d/f\(index)", [UInt8](repeating: 1, count: 1000 * (index + 1))) }
        for index in 0..<3 { #expect(unlink(mount("d/f\(index)")) == 0) }
        #expect(rename(mount("d/f3"), mount("d/g")) == 0)
        #expect(rmdir(mount("d")) == -1 && errno == ENOTEMPTY)
        let file = open(mount("d/g"), O_RDWR)
        #expect(fsync(file) == 0)
        close(file)
        // A file's last release comes after its close has returned.
        try eventually("all is counted") { try count(stats(mount), "release") == 6 }
        let report = try stats(mount)
        let counts = ["create": 5, "write": 5, "unlink": 3, "rename": 1, "rmdir": 1, "open": 1, "fsync": 1, "flush": 6, "release": 6]
        for (operation, wanted) in counts { #expect(count(report, operation) == wanted, "\(operation)") }
        #expect(report["operations", "write", "bytes"] as? Int == 15_000)
        #expect(report["operations", "rmdir", "errors"] as? [String: Int] == ["ENOTEMPTY": 1])
        // Each new name was looked for first; the kernel remembers its absence only until it is made.
        #expect((report["operations", "lookup", "errors"] as? [String: Int])?["ENOENT"] == 6)
        #expect(report["operations", "mkdir"] == nil)
        // A mount of root's own is not asked for a folder's attributes after each change in it.
        #expect(count(report, "getattr") ?? 0 <= 1)
        let times = try #require(report["operations", "write", "microseconds"] as? [String: Double])
        #expect(0 < times["p50"]! && times["p50"]! <= times["p90"]! && times["p90"]! <= times["p99"]! && times["p99"]! <= times["max"]!)
        #expect((report["keeps", "count"] as? Int ?? 0) >= 5 && (report["commits", "count"] as? Int ?? 0) >= 1 && (report["logSyncs", "count"] as? Int ?? 0) >= 1 && (report["dataSyncs", "count"] as? Int) == 1)
        try mount.flush()
        let sent = try stats(mount)
        #expect((sent["exchanges", "POST namespaces/*/commits", "count"] as? Int ?? 0) >= 1)
        #expect((sent["lanes", "upload", "count"] as? Int ?? 0) >= 1 && sent["sentBytes"] as? Int ?? 0 > 0)
        // Begun anew.
        _ = try stats(mount, ["--reset"])
        #expect(try count(stats(mount), "write") == nil)
        #expect(try mount.boxfs(["stats", mount.path]).output.contains("chunks asked of the cache"))
        try mount.unmount()
    }

    /// Neither appending nor overwriting needs a row on the disk: the first sync of the file did, and the last, fsync(2), which owes the mtime.
    @Test func fdatasyncSyncsTheDataAlone() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        drive.signalServer(SIGSTOP)     // a commit that is answered makes the next sync a whole one
        let file = open(mount("file"), O_WRONLY | O_CREAT, 0o644)
        let bytes = [UInt8](repeating: 1, count: 5000)
        func append(_ index: Int) { #expect(pwrite(file, bytes, bytes.count, off_t(index * 4000)) == bytes.count && fdatasync(file) == 0) }
        append(0)
        usleep(500_000)                 // until the first commit is cut, and what it froze was written anew
        for index in 1...5 { append(index) }
        _ = try stats(mount, ["--reset"])
        for index in 0...50 { append(index) }
        let report = try stats(mount)
        #expect(report["dataSyncs", "count"] as? Int == 51 && report["logSyncs", "count"] as? Int ?? 0 <= 5, "\(report)")
        #expect(fsync(file) == 0)
        #expect(try stats(mount)["logSyncs", "count"] as? Int ?? 0 >= 1)
        close(file)
        drive.signalServer(SIGCONT)
    }

    /// Of a file that is written to, the kernel asks only once whether it has capabilities to be cleared (boxfs_clear_privileges_here).
    @Test func writesAskForNoCapabilities() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        let file = open(mount("file"), O_WRONLY | O_CREAT, 0o644)
        _ = try stats(mount, ["--reset"])
        for _ in 0..<20 { #expect(write(file, "abc", 3) == 3) }
        close(file)
        let report = try stats(mount)
        #expect(count(report, "write") == 20 && count(report, "getxattr") ?? 0 <= 1)
    }

    @Test func traceShowsCallsInTheirOrder() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        let trace = try Trace(mount)
        defer { trace.end() }
        #expect(mkdir(mount("d"), 0o755) == 0)
        let file = open(mount("d/f"), O_RDWR | O_CREAT, 0o644)
        #expect(pwrite(file, [UInt8](repeating: 7, count: 5000), 5000, 4096) == 5000)
        #expect(fsync(file) == 0)
        close(file)
        #expect(rename(mount("d/f"), mount("d/g")) == 0)
        #expect(symlink("g", mount("d/s")) == 0)
        #expect(rmdir(mount("d")) == -1 && errno == ENOTEMPTY)
        #expect(unlink(mount("d/g")) == 0)
        #expect(unlink(mount("d/s")) == 0)
        #expect(rmdir(mount("d")) == 0)
        #expect(access(mount("the end"), F_OK) == -1)
        try eventually("the last call is shown") { trace.lines.contains { $0["path"] as? String == "the end" } }
        let interesting: Set = ["mkdir", "create", "write", "fsync", "flush", "rename", "symlink", "rmdir", "unlink"]
        let ours = trace.lines.filter { $0["process"] as? Int == Int(getpid()) && interesting.contains($0["operation"] as! String) }
        let shown = ours.map { line in
            ([line["operation"], line["path"], line["newPath"], line["error"]] as [Any?]).compactMap { $0 as? String }.joined(separator: " ")
        }
        #expect(shown == [
            "mkdir d", "create d/f", "write d/f", "fsync d/f", "flush d/f", "rename d/f d/g", "symlink d/s", "rmdir d ENOTEMPTY", "unlink d/g",
            "unlink d/s", "rmdir d",
        ])
        let write = try #require(ours.first { $0["operation"] as? String == "write" })
        #expect(write["offset"] as? Int == 4096 && write["length"] as? Int == 5000 && write["amount"] as? Int == 5000)
        #expect(write["milliseconds"] as? Double ?? 0 > 0 && abs((write["time"] as? Double ?? 0) - Date().timeIntervalSince1970) < 60)
        let waited = ours.first { $0["operation"] as? String == "fsync" }?["waited"] as? [[String: Any]] ?? []
        #expect(Set(waited.compactMap { $0["cause"] as? String }).isSuperset(of: ["log", "disk"]), "\(waited)")
        try mount.unmount()
        try eventually("the trace ends with the mount") { !trace.isRunning }
    }

    @Test func traceFilters() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        for folder in ["a", "b"] { #expect(mkdir(mount(folder), 0o755) == 0) }
        let named = try Trace(mount, ["--path", mount("a"), "--operation", "create", "--operation", "lookup"])
        defer { named.end() }
        let slow = try Trace(mount, ["--slow", "60000"], probes: false)
        defer { slow.end() }
        for name in ["b/1", "a/2", "b/3", "a/4"] { try mount.write(name, [1]) }
        try eventually("both are shown") { named.lines.filter { $0["operation"] as? String == "create" }.count == 2 }
        #expect(named.lines.allSatisfy { ["create", "lookup"].contains($0["operation"] as? String ?? "") && ($0["path"] as? String ?? "").hasPrefix("a") })
        #expect(slow.lines.isEmpty)
        #expect(try mount.boxfs(["trace", mount.path, "--operation", "nonsense"]).status == 64)
    }

    @Test func whoLooksAtTheHeadOfALongFileFetchesThatMuch() throws {
        var random = SeededGenerator("head")
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), bytes = random.bytes(9_000_000)
        try one.write("f", bytes)
        try one.unmount()
        let two = try drive.mount("two"), file = open(two("f"), O_RDONLY)
        var head = [UInt8](repeating: 0, count: 4096)
        #expect(pread(file, &head, 4096, 0) == 4096 && head == Array(bytes[..<4096]))
        let here = try why(two, "f")
        #expect(here["chunksHere", "count"] as? Int == 1 && here["chunksHere", "bytes"] as? Int == 128 << 10)
        close(file)
        #expect(two.read("f") == bytes)
    }

    @Test func whyNamesTheChunkThatAReadWaitedFor() throws {
        var random = SeededGenerator("why")
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one")
        try one.write("f", random.bytes(5_000_000))
        try one.unmount()
        let two = try drive.mount("two")
        let absent = try why(two, "f")
        #expect(absent["chunksOnServer", "count"] as? Int == 3 && absent["chunksOnServer", "bytes"] as? Int == 5_000_000)
        #expect(absent["read"] == nil && absent["state"] as? String == "server" && absent["hasWaitingChange"] as? Bool == false)
        let file = open(two("f"), O_RDWR)
        var bytes = [UInt8](repeating: 0, count: 4096)
        #expect(pread(file, &bytes, 4096, 4_900_000) == 4096)
        let read = try why(two, "f")
        let waited = try #require(read["read", "waited"] as? [[String: Any]])
        let chunk = try #require(waited.first { $0["cause"] as? String == "chunk" })
        #expect(chunk["bytes"] as? Int == 5_000_000 - 4 << 20)
        #expect((chunk["chunk"] as? String)?.count == 64)
        let (spent, whole) = (chunk["milliseconds"] as? Double ?? 0, read["read", "milliseconds"] as? Double ?? 0)
        #expect(spent > 0 && spent <= whole, "\(spent) of \(whole)")
        #expect(read["read", "process"] as? Int == Int(getpid()) && read["read", "program"] != nil)
        #expect((read["chunksHere", "count"] as? Int ?? 0) >= 1 && read["open", "error"] == nil && read["open"] != nil)
        #expect(pwrite(file, [1], 1, 0) == 1)
        let written = try why(two, "f")
        #expect(written["write", "amount"] as? Int == 1 && written["write", "offset"] as? Int == 0 && written["written", "count"] as? Int == 1)
        // Starting a program closes its copies of our descriptors, which is a flush.
        #expect(["memory", "local"].contains(written["state"] as? String))
        #expect(try two.boxfs(["why", two("f")]).output.contains("for the network: chunk"))
        close(file)
        let folder = try why(two, ".")
        #expect(folder["isListed"] as? Bool == true)
        #expect(try two.boxfs(["why", two("nothing")]).status == 1)
        // Without the server, a chunk that does not come.
        _ = try two.boxfs(["flush", two.path])
        _ = try two.boxfs(["cache", "drop", two.path])
        try two.unmount()
        try two.start(["--deadline", "1"])
        _ = try two.names()
        drive.stopServer(SIGKILL)
        let again = open(two("f"), O_RDONLY)
        #expect(pread(again, &bytes, 4096, 4_900_000) == -1 && errno == EIO)
        close(again)
        let failed = try #require((try why(two, "f")["read", "waited"] as? [[String: Any]])?.first { $0["cause"] as? String == "chunk" })
        #expect(failed["failed"] as? Bool == true && failed["milliseconds"] as? Double ?? 0 > 900)
    }

    // MARK: Helpers

    private func why(_ mount: Mount, _ name: String) throws -> Report {
        let answer = try mount.boxfs(["why", mount(name), "--json"])
        try #require(answer.status == 0, "\(answer.output)")
        return Report(object: try JSONSerialization.jsonObject(with: Data(answer.output.utf8)))
    }

    private struct Report {
        let object: Any
        subscript(keys: String...) -> Any? { keys.reduce(object as Any?) { ($0 as? [String: Any])?[$1] } }
    }

    private func stats(_ mount: Mount, _ options: [String] = []) throws -> Report {
        let answer = try mount.boxfs(["stats", mount.path, "--json"] + options)
        try #require(answer.status == 0, "\(answer.output)")
        return Report(object: try JSONSerialization.jsonObject(with: Data(answer.output.utf8)))
    }

    private func count(_ report: Report, _ operation: String) -> Int? { report["operations", operation, "microseconds", "count"] as? Int }
}

/// A running `boxfs trace --json` and the lines that it has printed.
final class Trace: @unchecked Sendable {        // `text` is guarded by `lock`
    private let process = Process()
    private let lock = NSLock()
    private var text = Data()

    /// - Parameter probes: return when the trace shows what is asked in the mount.
    init(_ mount: Mount, _ options: [String] = [], probes: Bool = true) throws {
        process.executableURL = URL(fileURLWithPath: Drive.binaries + "/boxfs")
        process.arguments = ["trace", mount.path, "--json"] + options
        process.environment = mount.environment
        let output = Pipe()
        process.standardOutput = output
        try process.begin()
        Thread.detachNewThread { [self] in
            while true {
                let more = output.fileHandleForReading.availableData
                if more.isEmpty { return }
                lock.withLock { text += more }
            }
        }
        guard probes else { return }
        var probe = 0
        try eventually("the trace listens") {
            probe += 1
            // A name that nobody asked for: the kernel has to ask the mount.
            _ = access(mount("a/probe \(probe)"), F_OK)
            _ = access(mount("probe \(probe)"), F_OK)
            return !lines.isEmpty
        }
    }

    /// The lines so far, whole ones.
    var lines: [[String: Any]] {
        lock.withLock { text }.split(separator: UInt8(ascii: "\n")).compactMap { try? JSONSerialization.jsonObject(with: $0) as? [String: Any] }
    }

    var isRunning: Bool { process.isRunning }

    func end() {
        if process.isRunning { kill(process.processIdentifier, SIGKILL) }
        process.waitUntilExit()
    }
}
