import Foundation
import Glibc
import Testing

/// How a mount ends, and what waits for the server.
@Suite(.serialized) struct EndingTests {
    /// Opens a server whose mount has something to send and cannot.
    private func mountWithUnsentChanges(_ drive: Drive, _ options: [String] = []) throws -> Mount {
        let mount = try drive.mount("one", options)
        try mount.write("sent", [1])
        try mount.flush()
        drive.stopServer()
        try mount.write("unsent", [2])
        return mount
    }

    @Test func aBusyMountSaysSoBeforeItSends() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try mountWithUnsentChanges(drive)
        let file = open(mount("sent"), O_RDONLY)
        let start = Date()
        let refused = try mount.boxfs(["umount", mount.path, "--timeout", "15"])
        #expect(refused.status == 6 && refused.output.contains("in use"), "\(refused)")
        #expect(Date().timeIntervalSince(start) < 5)
        close(file)
        // A program that works in a folder of it.
        let worker = Process()
        worker.executableURL = URL(fileURLWithPath: "/bin/sleep")
        worker.arguments = ["60"]
        worker.currentDirectoryURL = URL(fileURLWithPath: mount.path)
        try worker.begin()
        #expect(try mount.boxfs(["umount", mount.path, "--timeout", "15"]).status == 6)
        Glibc.kill(worker.processIdentifier, SIGKILL)
        worker.waitUntilExit()
        // Nobody uses it: now it waits for the server, and is not taken away meanwhile, however often it is asked.
        for _ in 0..<2 { #expect(try mount.boxfs(["umount", mount.path, "--timeout", "1"]).status == 5) }
        #expect(mount.isMounted && mount.read("unsent") == [2])
        try drive.startServer()
        try eventually("the unmount that was asked for comes") { !mount.isMounted }
        #expect(try drive.mount("two").read("unsent") == [2])
    }

    @Test func aTerminatedMountSendsFirst() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try mountWithUnsentChanges(drive)
        let process = try #require(mount.process)
        Glibc.kill(process.processIdentifier, SIGTERM)
        usleep(1_500_000)
        #expect(process.isRunning && mount.isMounted, "it waits for the upload")
        #expect(mount.read("sent") == [1])
        try drive.startServer()
        try eventually("the process ends") { !process.isRunning }
        #expect(!mount.isMounted && process.terminationStatus == 0)
        #expect(try drive.mount("two").read("unsent") == [2])
    }

    @Test func aSecondSignalLeavesTheRestForTheNextMount() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try mountWithUnsentChanges(drive)
        let process = try #require(mount.process)
        Glibc.kill(process.processIdentifier, SIGTERM)
        usleep(500_000)
        Glibc.kill(process.processIdentifier, SIGTERM)
        try eventually("the process ends") { !process.isRunning && !mount.isMounted }
        try mount.start()
        #expect(mount.read("unsent") == [2])
    }

    /// A server that was put back to a backup: nothing is sent to it, and whoever waits is told.
    @Test func aFlushEndsWhenSendingStoppedForGood() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one", ["--durability", "server", "--deadline", "60"])
        try mount.write("first", [1])
        try mount.flush()
        drive.stopServer()
        #expect(try run("cp", ["-a", drive.root + "/data", drive.root + "/backup"]).status == 0)
        try drive.startServer()
        try mount.write("second", [2])
        try mount.flush()
        drive.stopServer()
        try mount.write("third", [3])
        let waiting = Waiting { try? mount.boxfs(["flush", mount.path, "--timeout", "30"]) }
        let synced = Waiting { () -> Int32 in
            let file = open(mount("second"), O_RDWR)
            defer { close(file) }
            return pwrite(file, "x", 1, 0) == 1 && fsync(file) == 0 ? 0 : errno
        }
        usleep(500_000)
        try FileManager.default.removeItem(atPath: drive.root + "/data")
        try FileManager.default.moveItem(atPath: drive.root + "/backup", toPath: drive.root + "/data")
        try drive.startServer()
        let answer = try #require(try waiting.result(seconds: 25) ?? nil)
        #expect(answer.status == 1 && answer.output.contains("backup"), "\(answer)")
        #expect(try synced.result(seconds: 5) == EIO)
        #expect(mount.read("third") == [3])
        #expect(try mount.boxfs(["status", mount.path]).output.contains("STOPPED"))
        // Nothing of it reached the server that is not the one that it was.
        #expect(try drive.mount("two").names() == ["first"])
    }

    /// The server is put back to before a commit that it answered and of which its feed had told nothing yet.
    @Test(arguments: [false, true]) func aServerThatLostWhatItOnlyAnsweredIsSentNothing(afterARemount: Bool) throws {
        let drive = try Drive()
        defer { drive.end() }
        let proxy = try FaultProxy(to: drive.port)
        defer { proxy.end() }
        let mount = try drive.mount("one", through: proxy)
        try mount.write("first", [1])
        try mount.flush()
        drive.stopServer()
        #expect(try run("cp", ["-a", drive.root + "/data", drive.root + "/backup"]).status == 0)
        try drive.startServer()
        try eventually("the mount follows the server's changes again") {
            try mount.boxfs(["status", mount.path, "--json"]).output.contains("\"connected\" : true")
        }
        usleep(300_000)
        proxy.fault = .withoutNews
        try mount.write("second", [2])
        try mount.flush()
        if afterARemount { try mount.unmount(["--now"]) }
        drive.stopServer(SIGKILL)
        try FileManager.default.removeItem(atPath: drive.root + "/data")
        try FileManager.default.moveItem(atPath: drive.root + "/backup", toPath: drive.root + "/data")
        try drive.startServer()
        proxy.fault = .none
        if afterARemount { try mount.start() }
        try mount.write("third", [3])
        let flushed = try mount.boxfs(["flush", mount.path, "--timeout", "20"])
        #expect(flushed.status == 1 && flushed.output.contains("backup"), "\(flushed)")
        #expect(mount.read("second") == [2] && mount.read("third") == [3])
        #expect(try drive.mount("two").names() == ["first"])
    }

    @Test func withServerDurabilityFsyncWaitsForTheServer() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one", ["--durability", "server", "--deadline", "3"])
        let folder = open(mount.path, O_RDONLY | O_DIRECTORY)
        defer { close(folder) }
        let file = open(mount("file"), O_RDWR | O_CREAT, 0o644)
        defer { close(file) }
        #expect(write(file, "one", 3) == 3)
        let start = Date()
        #expect(fsync(file) == 0 && Date().timeIntervalSince(start) < 2)
        #expect(try drive.mount("two").read("file") == Array("one".utf8))
        #expect(mkdir(mount("folder"), 0o755) == 0 && fsync(folder) == 0)
        #expect(try drive.mount("three").names() == ["file", "folder"])
        drive.stopServer()
        #expect(mkdir(mount("other"), 0o755) == 0 && write(file, "two", 3) == 3)
        for descriptor in [file, folder] {
            let start = Date()
            #expect(fsync(descriptor) == -1 && errno == EIO)
            let seconds = Date().timeIntervalSince(start)
            #expect(seconds > 2 && seconds < 6, "the deadline ends it: \(seconds) s")
        }
        // A signal ends it before.
        let program = "import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDONLY))"
        let before = Date()
        #expect(try run("timeout", ["-s", "KILL", "0.5", "python3", "-c", program, mount("file")]).status != 0)
        #expect(Date().timeIntervalSince(before) < 2)
        try drive.startServer()
        #expect(fsync(file) == 0 && fsync(folder) == 0)
        #expect(try drive.mount("four").names() == ["file", "folder", "other"])
    }
}

/// How a server ends, and what it ends by itself.
@Suite(.serialized) struct ServerEndingTests {
    /// A client that begins a request, and says no more; returns once it did.
    private func silentClient(of drive: Drive, _ rest: String) throws -> Process {
        let client = Process()
        client.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        client.arguments = ["python3", "-c", """
            import socket, time
            client = socket.create_connection(("127.0.0.1", \(drive.port)))
            client.send(b"POST /v1/login HTTP/1.1\\r\\nHost: drive\\r\\nContent-Length: 1000\\r\\n\\r\\n{")
            print("sent", flush=True)
            \(rest)
            """]
        let output = Pipe()
        client.standardOutput = output
        try client.begin()
        #expect(output.fileHandleForReading.availableData.starts(with: Data("sent".utf8)))
        return client
    }

    @Test func aConnectionOnWhichNothingComesIsClosed() throws {
        let drive = try Drive()
        defer { drive.end() }
        drive.stopServer()
        try drive.startServer(["--idle-timeout", "2"])
        // A request that is being answered is not idle: the mount waits for news for longer than that.
        let mount = try drive.mount("one"), other = try drive.mount("two")
        let client = try silentClient(of: drive, "client.settimeout(60); exit(0 if client.recv(1000) == b'' else 1)")
        let start = Date()
        try Waiting { client.waitUntilExit() }.result(seconds: 60)
        #expect(client.terminationStatus == 0)
        #expect(Date().timeIntervalSince(start) > 1)
        for name in ["a", "b"] {
            try mount.write(name, [1])
            try mount.flush()
            try eventually("\(name) is seen") { other.read(name) == [1] }
            sleep(4)
        }
    }

    @Test func aClientThatFellSilentDoesNotHoldUpTheEnd() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        let client = try silentClient(of: drive, "time.sleep(100)")
        defer { kill(client.processIdentifier, SIGKILL) }
        usleep(300_000)     // it has arrived
        let start = Date()
        try Waiting { drive.stopServer() }.result(seconds: 20)
        #expect(Date().timeIntervalSince(start) < 6 + Problems.allowance)
        #expect(drive.serverStatus == 0)
        try drive.startServer()
        try mount.write("file", [1])
        try mount.flush()
    }
}

/// Work on a thread of its own, of which the test asks later what came of it.
final class Waiting<Value: Sendable>: @unchecked Sendable {       // `value` is read after the semaphore
    private var value: Value?
    private let done = DispatchSemaphore(value: 0)

    init(_ work: @escaping @Sendable () -> Value) {
        Thread.detachNewThread { [self] in
            value = work()
            done.signal()
        }
    }

    func result(seconds: Double) throws -> Value {
        try #require(done.wait(timeout: .now() + seconds) == .success, "not done within \(seconds) s")
        return value!
    }
}
