import Foundation
import Glibc
import Testing
import TestSupport

/// Networks and servers that fail: no call hangs, what is here goes on working, and afterwards all goes on by itself.
@Suite(.serialized) struct FaultTests {
    /// Scenarios on threads of their own: nearly all of their time they wait.
    private func sideBySide<Case: Sendable>(_ cases: [Case], _ scenario: @escaping @Sendable (Case, Problems) throws -> Void) throws {
        let running = cases.map { each in
            Waiting { () -> [String] in
                let problems = Problems()
                do { try scenario(each, problems) } catch { problems.expect(false, "\(error)") }
                return problems.all.map { "\(each): \($0)" }
            }
        }
        for scenario in running { for problem in try scenario.result(seconds: 150) { Issue.record("\(problem)") } }
    }

    /// The bytes of a file, asked of the mount and not of the kernel's memory; nil and errno for an error.
    private func uncachedRead(_ path: String) -> [UInt8]? {
        let file = open(path, O_RDONLY)
        guard file >= 0 else { return nil }
        defer { close(file) }
        posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED)
        var bytes = [UInt8](repeating: 0, count: 6 << 20)
        var count = 0
        while true {
            let part = bytes.withUnsafeMutableBytes { Glibc.read(file, $0.baseAddress! + count, min(1 << 20, $0.count - count)) }
            guard part >= 0 else { return nil }
            guard part > 0 else { return Array(bytes.prefix(count)) }
            count += part
        }
    }

    private func startReader(_ path: String) throws -> Process {
        let reader = Process()
        reader.executableURL = URL(fileURLWithPath: "/bin/cat")
        reader.arguments = [path]
        reader.standardOutput = FileHandle.nullDevice
        reader.standardError = FileHandle.nullDevice
        // Threads of Dispatch block signals, and a shell that starts the tests in the background has them ignore SIGINT: a child would inherit both.
        signal(SIGINT, SIG_DFL)
        var all = sigset_t(), mine = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_UNBLOCK, &all, &mine)
        defer { pthread_sigmask(SIG_SETMASK, &mine, nil) }
        try reader.begin()
        return reader
    }

    enum Outage: String, CaseIterable { case killed, stopped, blackHole }

    /// The server is gone, or takes connections and says nothing: only what is nowhere here waits, until its deadline.
    @Test func whatIsHereWorksAtOnce() throws { try sideBySide(Outage.allCases) { try whatIsHereWorksAtOnce($0, $1) } }

    private func whatIsHereWorksAtOnce(_ outage: Outage, _ problems: Problems) throws {
        let drive = try Drive()
        defer { drive.end() }
        let proxy = try FaultProxy(to: drive.port)
        defer { proxy.end() }
        let deadline = 4.0
        let mount = try drive.mount("one", ["--deadline", "\(Int(deadline))"], through: proxy)
        let here = [UInt8](repeating: 7, count: 3_000_000), away = [UInt8](repeating: 8, count: 2_000)
        // More than the kernel had in its queue of reads by read-ahead, small files and large ones.
        let count = 80
        for index in 0..<count { try mount.write("away\(index)", away + Array(repeating: UInt8(index), count: index % 10 == 0 ? 400_000 : 10)) }
        try mount.write("here", here)
        try mount.flush()
        try problems.expect(mount.boxfs(["cache", "drop", mount.path]).status == 0)
        problems.expect(mount.read("here") == here)

        switch outage {
        case .killed: drive.stopServer(SIGKILL)
        case .stopped: drive.signalServer(SIGSTOP)
        case .blackHole: proxy.fault = .blackHole
        }
        let readers = try (0..<count).map { try startReader(mount("away\($0)")) }
        usleep(200_000)
        let start = Date()
        let reading = Waiting { [self] in
            let bytes = uncachedRead(mount("away\(count - 1)"))
            return (bytes, errno, Date().timeIntervalSince(start))
        }
        // A signal ends a reader at once (the last ones: none of them is near its deadline), and the deadline the others.
        let signalled = zip(readers.suffix(3), [SIGINT, SIGTERM, SIGKILL])
        for (reader, signal) in signalled { Glibc.kill(reader.processIdentifier, signal) }
        for (reader, signal) in signalled {
            problems.within(0, "a reader's end by signal \(signal)") { reader.waitUntilExit() }
            problems.expect(reader.terminationReason == .uncaughtSignal, "by signal \(signal) it ended with status \(reader.terminationStatus)")
        }
        try worksOffline(mount, here, problems)
        try problems.expect(problems.within(1, "boxfs status") { try mount.boxfs(["status", mount.path]) }.status == 0)
        let (bytes, error, seconds) = try reading.result(seconds: 20)
        problems.expect(bytes == nil && error == EIO && seconds > deadline - 0.5 && seconds < deadline + 0.5 + Problems.allowance, "\(error) after \(seconds) s")
        for reader in readers.dropLast(3) {
            reader.waitUntilExit()
            problems.expect(reader.terminationReason == .exit && reader.terminationStatus == 1, "\(reader.arguments!) ended with status \(reader.terminationStatus)")
        }
        let last = Date().timeIntervalSince(start)
        problems.expect(last < deadline + 0.5 + Problems.allowance, "the readers ended after \(last) s")

        // Also while reads wait whose programs were killed.
        for reader in try (10..<20).map({ try startReader(mount("away\($0)")) }) {
            usleep(20_000)
            Glibc.kill(reader.processIdentifier, SIGKILL)
            reader.waitUntilExit()
        }
        try problems.within(1, "boxfs umount --now") { try mount.unmount(["--now"]) }
        try problems.within(1, "boxfs mount") { try mount.start() }
        try worksOffline(mount, here, problems)

        switch outage {
        case .killed: try drive.startServer()
        case .stopped: drive.signalServer(SIGCONT)
        case .blackHole: proxy.fault = .none
        }
        try eventually("the files are to be had again", seconds: 25) { uncachedRead(mount("away5")) == away + Array(repeating: 5, count: 10) }
        try problems.within(20, "boxfs flush") { try mount.flush() }
        try problems.expect(drive.mount("two").read("new") == [1, 2])
        print("\(outage): goes on \(Date().timeIntervalSince(start)) s after it began")
    }

    private func worksOffline(_ mount: Mount, _ here: [UInt8], _ problems: Problems) throws {
        for _ in 0..<3 {
            try problems.expect(problems.within(0.2, "ls") { try mount.names() }.contains("here"))
            problems.expect(problems.within(0.2, "cat") { uncachedRead(mount("here")) } == here)
            try problems.within(0.2, "write") { try mount.write("new", [1, 2]) }
            problems.within(0.2, "mkdir and rmdir") { _ = (mkdir(mount("d"), 0o755), rmdir(mount("d"))) }
            problems.expect(problems.within(0.2, "rename") { (rename(mount("new"), mount("renamed")), rename(mount("renamed"), mount("new"))) } == (0, 0))
            let file = open(mount("new"), O_RDWR)
            problems.expect(problems.within(0.5, "fsync") { fsync(file) } == 0)
            close(file)
        }
    }

    /// Under each fault every call returns within its deadline; once it is over, all that was written arrives, right to the byte.
    @Test func everyFaultIsOutlived() throws { try sideBySide(Self.faults) { try isOutlived($0, $1) } }

    private static let faults = [
        Fault.delay(seconds: 0.05), .throttle(bytesPerSecond: 300_000), .silent, .refuse, .cut(afterBytes: 5_000), .truncate(afterBytes: 3_000),
        .corrupt(everyBytes: 2_000), .blackHole,
    ]

    private func isOutlived(_ fault: Fault, _ problems: Problems) throws {
        let drive = try Drive()
        defer { drive.end() }
        let proxy = try FaultProxy(to: drive.port)
        defer { proxy.end() }
        var random = SeededGenerator("\(fault)")
        let deadline = 2.0
        let one = try drive.mount("one", ["--deadline", "\(Int(deadline))"], through: proxy), two = try drive.mount("two")
        var files: [String: [UInt8]] = [:]
        for index in 0..<30 { files["old\(index)"] = random.bytes([10, 5_000, 300_000][index % 3]) }
        for (name, bytes) in files { try two.write(name, bytes) }
        try two.flush()
        try eventually("all are there") { try one.names().count == files.count }
        _ = try one.boxfs(["cache", "drop", one.path])
        proxy.fault = fault
        let start = Date()
        var index = 0, read = 0
        while Date().timeIntervalSince(start) < 1.5 || index < 3 {
            let old = "old\(Int.random(in: 0..<30, using: &random))"
            if let bytes = problems.within(deadline, "read", { uncachedRead(one(old)) }) {
                read += 1
                problems.expect(bytes == files[old], "what was read is what was written")
            }
            let new = "new\(index)", bytes = random.bytes([10, 5_000, 700_000][index % 3])
            try problems.within(deadline, "write") { try one.write(new, bytes) }
            files[new] = bytes
            if index % 4 == 3 {
                problems.expect(problems.within(deadline, "rename") { rename(one(new), one("\(new) renamed")) } == 0)
                files["\(new) renamed"] = files.removeValue(forKey: new)
            }
            problems.expect(problems.within(deadline, "listdir") { try? one.names().count } == files.count)
            index += 1
        }
        let met = (connections: proxy.connections.load(ordering: .relaxed), flips: proxy.flips.load(ordering: .relaxed))
        proxy.fault = .none
        let over = Date()
        try problems.within(20, "flush after \(fault)") { try one.flush() }
        try eventually("the second mount has all names") { try two.names() == files.keys.sorted() }
        for (name, bytes) in files { problems.expect(two.read(name) == bytes, "\(name) in the second mount") }
        // A read that fails makes others fail for a second.
        for (name, bytes) in files { try eventually("\(name) is right in the first mount", seconds: 3) { one.read(name) == bytes } }
        let status = try one.boxfs(["status", one.path])
        problems.expect(!status.output.contains("STOPPED"), "\(status.output)")
        drive.stopServer()
        let fsck = try drive.fsck()
        problems.expect(fsck.status == 0, "\(fsck.output)")
        print("\(fault): \(index) rounds, \(read) reads answered, \(met), flushed \(Date().timeIntervalSince(over)) s after it ended")
    }

    /// Connections that the network forgot are found out, the waiting poll and those that lay idle, and replaced.
    @Test func forgottenConnectionsAreReplaced() throws {
        let drive = try Drive()
        defer { drive.end() }
        let proxy = try FaultProxy(to: drive.port)
        defer { proxy.end() }
        let one = try drive.mount("one", through: proxy), two = try drive.mount("two")
        try one.write("first", [1])
        try one.flush()
        usleep(500_000)
        proxy.forget()
        let start = Date()
        try two.write("second", [2])
        try one.write("third", [3])
        let flushing = Waiting { try? one.boxfs(["flush", one.path]) }
        try eventually("the other's change is seen", seconds: 20) { one.read("second") == [2] }
        let seen = Date().timeIntervalSince(start)
        #expect(try flushing.result(seconds: 20)?.status == 0)
        print("forgotten connections: change seen after \(seen) s, all sent after \(Date().timeIntervalSince(start)) s")
        #expect(try two.names() == ["first", "second", "third"])
    }
}
