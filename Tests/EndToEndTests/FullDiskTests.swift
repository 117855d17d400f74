import Foundation
import Glibc
import Testing
import TestSupport

/// Disks that fill up: who writes is told, nothing that was there is lost, and with space again the work goes on.
@Suite(.serialized) struct FullDiskTests {
    /// Writes a file in pieces, as a program does.
    /// - Returns: the first error number, 0 when all of it was written, synced if asked for, and closed.
    private func write(_ path: String, _ bytes: [UInt8], sync: Bool = false) -> Int32 {
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        guard file >= 0 else { return errno }
        var done = 0, error: Int32 = 0
        while done < bytes.count, error == 0 {
            let part = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress! + done, min(bytes.count - done, 131_072)) }
            if part < 0 { error = errno } else { done += part }
        }
        if sync, error == 0, fsync(file) != 0 { error = errno }
        if close(file) != 0, error == 0 { error = errno }
        return error
    }

    /// The mount's disk is full: ENOSPC, all that was closed stays and arrives.
    @Test(arguments: [false, true]) func aFullDiskOfTheMountTellsTheWriter(_ isServerAway: Bool) throws {
        let drive = try Drive()
        defer { drive.end() }
        let disk = try SmallDisk(drive.root + "/home-one", megabytes: 64)
        var random = SeededGenerator("full disk")
        let one = try drive.mount("one", ["--deadline", "1"])
        // Before anything is written: what was sent may be evicted.
        if isServerAway { drive.stopServer() }
        var kept: [String: [UInt8]] = [:]
        for index in 0..<8 {
            kept["before\(index)"] = random.bytes([100, 70_000, 5_000_000][index % 3])
            try one.write("before\(index)", kept["before\(index)"]!)
        }
        if !isServerAway { try one.flush() }
        var refused = 0
        for round in 0..<3 {
            try disk.fill(except: [3_000_000, 50_000, 0][round])
            for index in 0..<6 {
                let name = "round\(round)-\(index)", bytes = random.bytes([10, 20_000, 2_000_000][index % 3])
                switch write(one(name), bytes, sync: index.isMultiple(of: 2)) {
                case 0: kept[name] = bytes
                case ENOSPC: refused += 1
                case let error: Issue.record("\(name): errno \(error)")
                }
            }
            for (name, bytes) in kept where !name.hasPrefix("before") || isServerAway { #expect(one.read(name) == bytes, "\(name) in round \(round)") }
            // Removing works on a full disk.
            #expect(write(one("round\(round)-0"), []) == 0 || errno == ENOSPC)
            if kept.removeValue(forKey: "round\(round)-0") != nil { #expect(unlink(one("round\(round)-0")) == 0, "errno \(errno)") }
        }
        print("full disk: \(refused) of 18 files refused")
        // With the server there, what was sent makes room.
        #expect(!isServerAway || refused >= 5)
        // What is answered on a full disk holds: SQLite takes a whole transaction back when it cannot write its end.
        let held = open(one("held"), O_WRONLY | O_CREAT, 0o644)
        let isMade = mkdir(one("folder"), 0o755) == 0
        usleep(100_000)
        disk.free()
        if held >= 0 {
            kept["held"] = random.bytes(100)
            #expect(Glibc.write(held, kept["held"]!, 100) == 100 && close(held) == 0, "errno \(errno)")
        }
        try disk.fill()
        // A mount begins on a full disk, too.
        one.kill()
        try one.start()
        for (name, bytes) in kept where isServerAway { #expect(one.read(name) == bytes, "\(name) after a remount") }
        if isMade { #expect(access(one("folder"), F_OK) == 0) }
        disk.free()
        if isServerAway { try drive.startServer() }
        kept["after"] = random.bytes(6_000_000)
        try eventually("there is space again") { write(one("after"), kept["after"]!) == 0 }
        try one.flush()
        let two = try drive.mount("two")
        for (name, bytes) in kept { #expect(two.read(name) == bytes, "\(name) through the second mount") }
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }

    @Test func aFullDiskOfTheServerKeepsWhatIsUnsentInTheMount() throws {
        var disk: SmallDisk!
        let drive = try Drive { root in disk = try SmallDisk(root + "/data", megabytes: 48) }
        defer { drive.end() }
        var random = SeededGenerator("full server")
        let one = try drive.mount("one")
        var kept: [String: [UInt8]] = [:]
        func add(_ names: [String], _ count: Int) throws {
            for name in names {
                kept[name] = random.bytes(count)
                try one.write(name, kept[name]!)
            }
        }
        try add(["a", "b"], 3_000_000)
        try one.flush()
        try disk.fill(except: 1_000_000)
        try add(["c", "d"], 3_000_000)
        try add((0..<50).map { "small\($0)" }, 1000)
        try eventually("the mount says what is wrong") { try one.boxfs(["status", one.path]).output.contains("disk is full") }
        let json = try one.boxfs(["status", "--json", one.path]).output
        #expect(json.contains("\"pendingChanges\"") && !json.contains("\"pendingChanges\" : 0"), "\(json)")
        // To the last byte: whatever the database needs fails as well.
        try disk.fill()
        try add((50..<60).map { "small\($0)" }, 1000)
        let answer = try run("curl", [
            "-s", "-o", "/dev/null", "-w", "%{http_code} %{content_type}", "-H", "Content-Type: application/json", "-d",
            #"{"user":"ann","password":"secret of ann","device":"curl"}"#, drive.url + "/v1/login"])
        #expect(answer.output == "507 application/problem+json", "\(answer)")
        usleep(500_000)
        for (name, bytes) in kept { #expect(one.read(name) == bytes, "\(name) while the server's disk is full") }
        #expect(try run("curl", ["-s", drive.url + "/health/live"]).status == 0)
        // It starts on a full disk, and all that was answered is there.
        drive.stopServer(SIGKILL)
        disk.free()
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
        try disk.fill(except: 200_000)
        try drive.startServer()
        disk.free()
        try one.flush()
        let two = try drive.mount("two")
        for (name, bytes) in kept { #expect(two.read(name) == bytes, "\(name) through the second mount") }
        drive.stopServer(SIGKILL)
        let after = try drive.fsck()
        #expect(after.status == 0, "\(after.output)")
    }

    /// The bytes that a folder takes on the disk, each file once.
    private func diskBytes(_ folders: [String]) -> Int {
        var seen: Set<UInt64> = [], sum = 0
        for folder in folders {
            for name in (try? FileManager.default.subpathsOfDirectory(atPath: folder)) ?? [] {
                var status = stat()
                guard lstat("\(folder)/\(name)", &status) == 0, status.st_mode & S_IFMT == S_IFREG, seen.insert(UInt64(status.st_ino)).inserted else { continue }
                sum += Int(status.st_blocks) * 512
            }
        }
        return sum
    }

    /// A writer that is faster than the link is slowed, and the folder never holds more than the limit.
    @Test func theCacheLimitHoldsUnderAFastWriter() throws {
        let drive = try Drive()
        defer { drive.end() }
        let limit = 64 << 20
        var random = SeededGenerator("cache limit")
        let one = try drive.mount("one", ["--cache-size", "64MiB", "--upload-limit", "32MiB", "--deadline", "3"])
        let folders = [one.stateFolder + "/cache/chunks", one.stateFolder + "/dirty"]
        var most = 0, longest = 0.0
        let bytes = random.bytes(128 << 20)
        let file = open(one("big"), O_WRONLY | O_CREAT, 0o644)
        var done = 0
        while done < bytes.count {
            let start = Date()
            let part = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress! + done, min(bytes.count - done, 1 << 20)) }
            try #require(part > 0, "write at \(done): errno \(errno)")
            longest = max(longest, Date().timeIntervalSince(start))
            done += part
            if done / part % 4 == 0 { most = max(most, diskBytes(folders)) }
        }
        #expect(close(file) == 0)
        try one.flush()
        print("cache limit: at most \(most) bytes of \(limit) on the disk, the longest write took \(longest) s")
        #expect(most <= limit && most > limit / 4)
        #expect(longest < 2)
        #expect(one.read("big") == bytes)
        #expect(diskBytes(folders) <= limit)
        // Without the server: ENOSPC at the deadline, and nothing of what was written before is lost.
        drive.stopServer()
        var index = 0, error: Int32 = 0
        let more = random.bytes(9 << 20)
        var waited = 0.0
        while error == 0, index < 20 {
            let start = Date()
            error = write(one("more\(index)"), more)
            waited = Date().timeIntervalSince(start)
            if error == 0 { index += 1 }
        }
        #expect(error == ENOSPC && index >= 5 && waited > 2.5 && waited < 12, "errno \(error) after \(index) files and \(waited) s")
        #expect(diskBytes(folders) <= limit)
        for index in 0..<index { #expect(one.read("more\(index)") == more) }
        try drive.startServer()
        try one.flush()
        let two = try drive.mount("two")
        #expect(two.read("big") == bytes)
        for index in 0..<index { #expect(two.read("more\(index)") == more) }
    }
}
