import Foundation
import Glibc
import Testing
import TestSupport

/// Wall clocks are set, by hours and days, forwards and backwards, at the mounts and at the server: deadlines stay what they are, news go on,
/// and nothing is lost.
@Suite(.serialized) struct ClockTests {
    private func drive() throws -> (Drive, SetClock) {
        var made: SetClock?
        let drive = try Drive { made = try SetClock("server", in: $0) }
        let clock = try #require(made)
        drive.stopServer()
        try drive.startServer(environment: clock.environment)
        return (drive, clock)
    }

    private func mount(_ drive: Drive, _ name: String, _ options: [String] = []) throws -> (Mount, SetClock) {
        let clock = try SetClock(name, in: drive.root)
        return (try drive.mount(name, options, environment: clock.environment), clock)
    }

    @Test func workGoesOn() throws {
        let (drive, serverClock) = try drive()
        defer { drive.end() }
        let (one, oneClock) = try mount(drive, "one", ["--deadline", "5"]), (two, twoClock) = try mount(drive, "two", ["--deadline", "5"])
        #expect(mkdir(one("d"), 0o755) == 0)
        var files: [String: [UInt8]] = [:], random = SeededGenerator("clocks")
        let problems = Problems()
        let steps: [Double] = [5, -7, 30, -30, 0.2, -0.1, 9600, 0]
        for (index, hours) in steps.enumerated() {
            let clocks = [[oneClock], [twoClock], [serverClock], [oneClock, twoClock, serverClock]][index % 4]
            for clock in clocks { try clock.set(hours: hours) }
            for (name, writer, reader) in [("d/one\(index)", one, two), ("d/two\(index)", two, one)] {
                let bytes = random.bytes([10, 30_000, 300_000][index % 3])
                try problems.within(2, "write") { try writer.write(name, bytes) }
                files[name] = bytes
                try problems.within(4, "news of \(name)") { try eventually("\(name) is seen elsewhere") { reader.read(name) == bytes } }
            }
            if clocks.contains(where: { $0 === oneClock }) {
                var status = stat()
                problems.expect(stat(one("d/one\(index)"), &status) == 0)
                let ahead = Double(status.st_mtim.tv_sec) - Date().timeIntervalSince1970 - hours * 3600
                problems.expect(abs(ahead) < 10, "the clock was not set: \(ahead) s")
            }
            // One file that both change in turn, as programs do that save by renaming.
            let bytes = random.bytes(50)
            try one.write("d/new", bytes)
            problems.expect(rename(one("d/new"), one("shared")) == 0)
            try problems.within(4, "news of a rename") { try eventually("it is seen") { two.read("shared") == bytes } }
            files["shared"] = bytes
            try problems.within(4, "flush") { try one.flush() }
        }
        for mount in [one, two] {
            let status = try mount.boxfs(["status", mount.path])
            problems.expect(!status.output.contains("STOPPED") && !status.output.contains("conflict"), "\(status.output)")
            for (name, bytes) in files { problems.expect(mount.read(name) == bytes, "\(name)") }
            try mount.unmount()
        }
        drive.stopServer()
        let fsck = try drive.fsck()
        problems.expect(fsck.status == 0, "\(fsck.output)")
        try drive.startServer()
        let third = try drive.mount("three")
        for (name, bytes) in files { problems.expect(third.read(name) == bytes, "\(name) in a new mount") }
        problems.report()
    }

    /// What waits when the clock is set ends in its own time: a read, fsync and flush without a server, and the poll that a change ends.
    @Test(arguments: [3.0, -3]) func deadlinesAreKept(hours: Double) throws {
        let (drive, serverClock) = try drive()
        defer { drive.end() }
        let deadline = 4.0
        let (one, clock) = try mount(drive, "one", ["--deadline", "\(Int(deadline))", "--durability", "server"])
        try one.write("away", [UInt8](repeating: 1, count: 100_000))
        try one.flush()
        #expect(try one.boxfs(["cache", "drop", one.path]).status == 0)
        drive.signalServer(SIGSTOP)
        let start = Date()
        let reading = Waiting { [path = one("away")] () -> (Bool, Double) in
            let file = open(path, O_RDONLY)
            defer { close(file) }
            posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED)
            var byte: UInt8 = 0
            return (pread(file, &byte, 1, 0) == -1 && errno == EIO, Date().timeIntervalSince(start))
        }
        let syncing = Waiting { [path = one("new")] () -> (Bool, Double) in
            let file = open(path, O_WRONLY | O_CREAT, 0o644)
            defer { close(file) }
            return (write(file, "x", 1) == 1 && fsync(file) == -1 && errno == EIO, Date().timeIntervalSince(start))
        }
        let flushing = Waiting { try? one.boxfs(["flush", one.path, "--timeout", "3"]) }
        usleep(1_000_000)
        try clock.set(hours: hours)
        try serverClock.set(hours: -hours)
        for waiting in [reading, syncing] {
            let (isRight, seconds) = try waiting.result(seconds: 20)
            #expect(isRight && seconds > deadline - 0.5 && seconds < deadline + 0.5 + Problems.allowance, "after \(seconds) s")
        }
        #expect(try flushing.result(seconds: 10)?.status == 5)
        drive.signalServer(SIGCONT)
        try eventually("the file is to be had again") { one.read("away")?.count == 100_000 }
        try one.flush()
        let two = try drive.mount("two")
        #expect(two.read("new") == Array("x".utf8))
        try two.write("news", [1])
        try eventually("the poll that waited tells it", seconds: 5) { one.read("news") == [1] }
    }

    /// The server's clock jumps by more than a session lives, while an upload is under way.
    @Test(arguments: [30.0, -30]) func anUploadOutlivesItsSession(hours: Double) throws {
        let (drive, clock) = try drive()
        defer { drive.end() }
        let proxy = try FaultProxy(to: drive.port)
        defer { proxy.end() }
        let one = try drive.mount("one", through: proxy)
        var random = SeededGenerator("long upload")
        let bytes = random.bytes(24 << 20)
        proxy.fault = .throttle(bytesPerSecond: 3 << 20)
        try one.write("large", bytes)
        try eventually("a part is sent") { proxy.sent.load(ordering: .relaxed) > 10 << 20 }
        try clock.set(hours: hours)
        let collecting = Waiting { try? drive.collectGarbage(environment: clock.environment) }
        usleep(1_000_000)
        proxy.fault = .none
        try one.flush()
        #expect(try collecting.result(seconds: 60)?.status == 0)
        #expect(try drive.mount("two").read("large") == bytes)
        drive.stopServer()
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }
}
