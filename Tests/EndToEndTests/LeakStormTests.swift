import Foundation
import Glibc
import Testing
import TestSupport

/// After many rounds of work and faults nothing is left over that was not there after a few. BOXFS_LEAK_ROUNDS says how many (1,000 in
/// scripts/torture).
@Suite(.serialized) struct LeakStormTests {
    /// What a process holds, or a folder.
    private struct Holdings {
        var mountFiles = 0, mountThreads = 0, mountBytes = 0, serverFiles = 0, serverThreads = 0, serverBytes = 0
        var segments = 0, cachedChunks = 0, uploads = 0

        /// Complains of what grew by more than its bound.
        func check(against before: Holdings, rounds: Int, _ problems: Problems) {
            // Connections and Dispatch's threads come and go; what is left over in every third round does not pass.
            let some = rounds / 3
            for (what, path) in [
                ("descriptors of the mount", \Holdings.mountFiles), ("descriptors of the server", \.serverFiles), ("threads of the mount", \.mountThreads),
                ("threads of the server", \.serverThreads), ("segment files", \.segments), ("cached chunks", \.cachedChunks),
            ] { problems.expect(self[keyPath: path] <= before[keyPath: path] + some, "\(what): \(before[keyPath: path]), then \(self[keyPath: path])") }
            problems.expect(uploads == 0, "\(uploads) upload sessions, though all was committed")
            // The allocator's own memory and SQLite's caches grow for some time. 64 KiB in each round do not pass.
            let bytes = max(16 << 20, rounds * (64 << 10))
            for (what, path) in [("memory of the mount", \Holdings.mountBytes), ("memory of the server", \.serverBytes)] {
                problems.expect(self[keyPath: path] < before[keyPath: path] + bytes, "\(what): \(before[keyPath: path]), then \(self[keyPath: path])")
            }
        }
    }

    private func count(_ folder: String) -> Int { (try? FileManager.default.contentsOfDirectory(atPath: folder).count) ?? 0 }

    private func residentBytes(_ process: Int32) -> Int {
        let status = (try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)) ?? ""
        return (status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }.flatMap { Int($0.filter(\.isNumber)) } ?? 0) * 1024
    }

    private func holdings(_ drive: Drive, _ mount: Mount) throws -> Holdings {
        try mount.flush()
        _ = try mount.boxfs(["cache", "drop", mount.path])
        usleep(1_000_000)
        let process = try #require(mount.process?.processIdentifier), server = try #require(drive.serverProcess)
        let chunks = FileManager.default.enumerator(atPath: mount.stateFolder + "/cache/chunks")?.compactMap { ($0 as? String).flatMap { $0.count > 60 ? $0 : nil } }
        return Holdings(
            mountFiles: count("/proc/\(process)/fd"), mountThreads: count("/proc/\(process)/task"), mountBytes: residentBytes(process),
            serverFiles: count("/proc/\(server)/fd"), serverThreads: count("/proc/\(server)/task"), serverBytes: residentBytes(server),
            segments: count(mount.stateFolder + "/dirty"), cachedChunks: chunks?.count ?? 0,
            uploads: try drive.query("SELECT count(*) FROM uploads").first.flatMap { Int($0[0]) } ?? -1)
    }

    @Test func nothingIsLeftOver() throws {
        let rounds = ProcessInfo.processInfo.environment["BOXFS_LEAK_ROUNDS"].flatMap { Int($0) } ?? 150
        let drive = try Drive(seconds: Double(rounds) + 120)
        defer { drive.end() }
        var random = SeededGenerator("leak storm")
        let proxy = try FaultProxy(to: drive.port)
        defer { proxy.end() }
        let mount = try drive.mount("one", ["--deadline", "2"], through: proxy)
        let problems = Problems()
        var before = Holdings()
        for index in 1...rounds {
            try round(index, mount, proxy, problems, &random)
            if index == 10 { before = try holdings(drive, mount) }
        }
        let after = try holdings(drive, mount)
        after.check(against: before, rounds: rounds - 10, problems)
        print("leak storm: after 10 rounds \(before), after \(rounds) \(after)")
        problems.report()
    }

    /// Each kind of object is made and let go: files with their segments and chunks, handles, names, listings, waits that are interrupted or
    /// fail, connections of all ends.
    private func round(_ index: Int, _ mount: Mount, _ proxy: FaultProxy, _ problems: Problems, _ random: inout SeededGenerator) throws {
        let folder = "d\(index)"
        #expect(mkdir(mount(folder), 0o755) == 0)
        for (number, size) in [10, 20_000, 300_000].enumerated() { try mount.write("\(folder)/f\(number)", random.bytes(size)) }
        #expect(rename(mount("\(folder)/f0"), mount("\(folder)/g")) == 0)
        #expect(try mount.names(folder).count == 3)
        if index % 5 == 0 {
            try mount.flush()
            _ = try mount.boxfs(["cache", "drop", mount.path])
            // A reader that is killed while it waits, and a read whose connection breaks.
            proxy.fault = .silent
            _ = try run("timeout", ["-s", "KILL", "0.05", "cat", mount("\(folder)/f1")])
            proxy.fault = .cut(afterBytes: 3_000)
            _ = Waiting { mount.read("\(folder)/f2") }
            usleep(50_000)
            proxy.fault = .refuse
            usleep(20_000)
            proxy.fault = .none
        }
        if index % 25 == 0 { try eventually("a chunk comes again") { mount.read("\(folder)/f2")?.count == 300_000 } }
        for name in ["g", "f1", "f2"] { #expect(unlink(mount("\(folder)/\(name)")) == 0) }
        #expect(rmdir(mount(folder)) == 0)
    }
}
