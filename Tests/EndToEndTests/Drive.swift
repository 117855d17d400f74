import Foundation
import Glibc
import Testing

/// A server and its mounts as child processes, in a folder of their own, ended by their process ids.
///
/// A watchdog kills the mounts when a test takes too long: a hanging system call then fails instead of hanging the run.
final class Drive: @unchecked Sendable {       // used by one test at a time; the watchdog only reads process ids under `lock`
    let root: String
    let port: Int
    private var server: Process?
    private var mounts: [Mount] = []
    private let lock = NSLock()
    private var isOver = false
    private var isKept = false

    static let binaries = ProcessInfo.processInfo.environment["BOXFS_BIN"] ?? FileManager.default.currentDirectoryPath + "/bin"

    /// - Parameter prepare: given the folder before anything is in it.
    init(seconds: Double = 150, prepare: (String) throws -> Void = { _ in }) throws {
        root = NSTemporaryDirectory() + "boxfs-test-\(UUID().uuidString.prefix(8))"
        port = try Self.freePort()
        try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
        try prepare(root)
        try startServer()
        try addAccount("ann")
        Thread.detachNewThread { [weak self] in
            Thread.sleep(forTimeInterval: seconds)
            self?.abort()
        }
    }

    deinit { end() }

    private func abort() {
        lock.withLock {
            guard !isOver else { return }
            for mount in mounts { mount.kill() }
        }
    }

    func end() {
        lock.withLock { isOver = true }
        for mount in mounts {
            mount.complainIfCrashed()
            mount.kill()
        }
        if server?.isRunning ?? false { stopServer(SIGKILL) }
        if !isKept { try? FileManager.default.removeItem(atPath: root) }
    }

    /// With `BOXFS_KEEP` the folder stays, for people who look for what went wrong.
    func keep() {
        isKept = ProcessInfo.processInfo.environment["BOXFS_KEEP"] != nil
        if isKept { print("kept: \(root)") }
    }

    /// Nobody listens there. Not one that the kernel may give to a connection (ip(7), ip_local_port_range) while a server is away.
    static func freePort() throws -> Int {
        for _ in 0..<1000 {
            let port = Int.random(in: 12_000..<32_000), descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            defer { close(descriptor) }
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = in_port_t(port).bigEndian
            address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
            let isFree = withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0 }
            }
            if isFree { return port }
        }
        throw NoFreePort()
    }

    struct NoFreePort: Error {}

    // MARK: The server

    var url: String { "http://127.0.0.1:\(port)" }

    /// - Parameter more: of the server's environment.
    func startServer(_ options: [String] = [], environment more: [String: String] = [:]) throws {
        let process = Process()
        process.environment = ProcessInfo.processInfo.environment.merging(more) { _, new in new }
        process.executableURL = URL(fileURLWithPath: Self.binaries + "/boxfs-server")
        process.arguments = ["serve", "--data", root + "/data", "--listen", "127.0.0.1:\(port)", "--log-level", "warning"] + options
        try process.begin()
        server = process
        try eventually("the server answers") { (try? run("curl", ["-sf", "-o", "/dev/null", url + "/health/live"]))?.status == 0 }
    }

    var serverProcess: Int32? { server?.processIdentifier }

    /// What a server that ended exited with; nil for one that a signal ended.
    var serverStatus: Int32? { server.flatMap { $0.terminationReason == .exit ? $0.terminationStatus : nil } }

    /// SIGSTOP, SIGCONT. A server that is stopped answers nothing any more when this returns: one thread takes the signal, and the others go on
    /// until that one was given a processor.
    func signalServer(_ signal: Int32) {
        guard let server else { return }
        Glibc.kill(server.processIdentifier, signal)
        guard signal == SIGSTOP else { return }
        let end = Date(timeIntervalSinceNow: 10)
        while Date() < end, !Self.isStopped(server.processIdentifier) { usleep(1_000) }
    }

    /// Whether all threads of a process are (proc_pid_stat(5): the state follows the name).
    private static func isStopped(_ process: Int32) -> Bool {
        let threads = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task")) ?? []
        return threads.allSatisfy { thread in
            guard let text = try? String(contentsOfFile: "/proc/\(process)/task/\(thread)/stat", encoding: .utf8) else { return true }
            return text[(text.lastIndex(of: ")") ?? text.startIndex)...].dropFirst(2).first == "T"
        }
    }

    func stopServer(_ signal: Int32 = SIGTERM) {
        guard let server else { return }
        Glibc.kill(server.processIdentifier, signal)
        server.waitUntilExit()
    }

    func addAccount(_ name: String, quota: String? = nil) throws {
        let arguments = ["user", "add", name, "--password-stdin", "--data", root + "/data"] + (quota.map { ["--quota", $0] } ?? [])
        let added = try run(Self.binaries + "/boxfs-server", arguments, input: "secret of \(name)\n")
        try #require(added.status == 0, "\(added.output)")
    }

    func fsck() throws -> (status: Int32, output: String) {
        try run(Self.binaries + "/boxfs-server", ["fsck", "--bytes", "--data", root + "/data"])
    }

    func collectGarbage(environment more: [String: String] = [:]) throws -> (status: Int32, output: String) {
        try run(
            Self.binaries + "/boxfs-server", ["gc", "--data", root + "/data"], environment: ProcessInfo.processInfo.environment.merging(more) { _, new in new })
    }

    /// Bytes of all chunks that the server keeps.
    func chunkBytes() throws -> Int {
        let folder = root + "/data/objects"
        return try FileManager.default.subpathsOfDirectory(atPath: folder).reduce(0) { sum, name in
            let attributes = try FileManager.default.attributesOfItem(atPath: folder + "/" + name)
            return sum + (attributes[.type] as? FileAttributeType == .typeRegular ? (attributes[.size] as? Int ?? 0) : 0)
        }
    }

    // MARK: Mounts

    /// - Parameter environment: of the mount's own process.
    func mount(
        _ name: String, account: String = "ann", _ options: [String] = [], through proxy: FaultProxy? = nil, environment: [String: String] = [:]
    ) throws -> Mount {
        let mount = Mount(drive: self, name: name)
        mount.moreEnvironment = environment
        try FileManager.default.createDirectory(atPath: mount.path, withIntermediateDirectories: true)
        let login = try mount.boxfs(["login", proxy?.url ?? url, "--user", account, "--password-stdin"], input: "secret of \(account)\n")
        try #require(login.status == 0, "\(login.output)")
        try mount.start(options)
        lock.withLock { mounts.append(mount) }
        return mount
    }
}

/// One mounted folder with a home of its own.
final class Mount: @unchecked Sendable {       // see `Drive`
    let path: String
    let home: String
    private(set) var process: Process?
    /// Held while the mount starts and while it is killed: a storm's kill then never meets a start that waits for the mount.
    private let life = NSRecursiveLock()
    private var options: [String] = []
    /// Of the mount's own process only.
    var moreEnvironment: [String: String] = [:]

    init(drive: Drive, name: String) {
        path = "\(drive.root)/\(name)"
        home = "\(drive.root)/home-\(name)"
    }

    var environment: [String: String] {
        ProcessInfo.processInfo.environment.merging([
            "HOME": home, "XDG_CONFIG_HOME": home + "/config", "XDG_STATE_HOME": home + "/state", "XDG_CACHE_HOME": home + "/cache",
            "XDG_RUNTIME_DIR": home + "/run",
        ]) { _, new in new }
    }

    var stateFolder: String {
        let mounts = home + "/state/boxfs/mounts"
        return mounts + "/" + ((try? FileManager.default.contentsOfDirectory(atPath: mounts).first) ?? "none")
    }

    func boxfs(_ arguments: [String], input: String? = nil) throws -> (status: Int32, output: String) {
        try FileManager.default.createDirectory(atPath: home + "/run", withIntermediateDirectories: true)
        return try run(Drive.binaries + "/boxfs", arguments, input: input, environment: environment)
    }

    func start(_ options: [String]? = nil) throws {
        life.lock()
        defer { life.unlock() }
        if let options { self.options = options }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: Drive.binaries + "/boxfs")
        process.arguments = ["mount", path, "--foreground"] + self.options
        process.environment = environment.merging(moreEnvironment) { _, new in new }
        complainIfCrashed()
        _ = FileManager.default.createFile(atPath: logPath, contents: nil)
        process.standardError = FileHandle(forWritingAtPath: logPath)
        process.standardOutput = FileHandle.nullDevice
        try process.begin()
        self.process = process
        try eventually("\(path) is mounted") { isMounted }
    }

    var isAlive: Bool { process?.isRunning ?? false }

    var isMounted: Bool {
        ((try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)) ?? "").contains(" \(path) ")
    }

    private var logPath: String { home + "/mount.log" }
    /// What the last mount process said.
    var log: String { (try? String(contentsOfFile: logPath, encoding: .utf8)) ?? "" }

    /// A mount process that a signal of its own making ended fails the test, with the end of what it said.
    func complainIfCrashed() {
        guard let process, !process.isRunning, process.terminationReason == .uncaughtSignal, process.terminationStatus != SIGKILL else { return }
        Issue.record("the mount process of \(path) died of signal \(process.terminationStatus): \(log.suffix(4000))")
    }

    /// SIGKILL. The dead mount stays, so that nobody writes into the folder beneath.
    func killProcess() {
        life.lock()
        defer { life.unlock() }
        guard let process, process.isRunning else { return }
        Glibc.kill(process.processIdentifier, SIGKILL)
        if !isDead(within: 5) { Issue.record("the killed mount process of \(path) waits in the kernel for itself") }
    }

    /// Waits for a process that may have been killed: a call fails some time before a busy machine has buried it.
    /// - Returns: whether it is dead; if not, after so many seconds.
    func isDead(within seconds: Int = 10) -> Bool {
        for _ in 0..<seconds * 200 where isAlive { usleep(5_000) }
        return !isAlive
    }

    /// SIGKILL, and the dead mount out of the way.
    func kill() {
        killProcess()
        while isMounted, umount2(path, Int32(MNT_DETACH)) == 0 {}
    }

    /// What the mount kept beside the tree.
    func rescued() -> [String] { FileManager.default.subpaths(atPath: stateFolder + "/rescue") ?? [] }

    func flush() throws {
        let flushed = try boxfs(["flush", path])
        try #require(flushed.status == 0, "\(flushed.output)")
    }

    func unmount(_ more: [String] = []) throws {
        var ended = try boxfs(["umount", path] + more)
        // A child that another thread of the tests begins just now has copies of their descriptors until its execve(2), on a busy machine for long.
        for _ in 0..<50 where ended.status == 6 {     // in use
            usleep(100_000)
            ended = try boxfs(["umount", path] + more)
        }
        try #require(ended.status == 0, "\(ended.output)")
        process?.waitUntilExit()
    }

    // MARK: Files

    func callAsFunction(_ name: String) -> String { "\(path)/\(name)" }

    func write(_ name: String, _ bytes: [UInt8]) throws {
        let descriptor = open(self(name), O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        try #require(descriptor >= 0, "open \(name): errno \(errno)")
        defer { close(descriptor) }
        var done = 0
        while done < bytes.count {
            let part = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress! + done, min(bytes.count - done, 1 << 20)) }
            try #require(part > 0, "write \(name): errno \(errno)")
            done += part
        }
    }

    func read(_ name: String) -> [UInt8]? { (try? Data(contentsOf: URL(fileURLWithPath: self(name)))).map { Array($0) } }

    /// By copy_file_range(2).
    func copyWithin(_ source: String, to target: String) throws {
        let copied = try run("python3", ["-c", """
            import os, sys
            source, target, done = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT), 0
            while part := os.copy_file_range(source, target, 1 << 30, offset_src=done, offset_dst=done): done += part
            assert done == os.fstat(source).st_size
            """, self(source), self(target)])
        try #require(copied.status == 0, "\(copied.output)")
    }

    /// Sorted. Foundation's listing ends where readdir(3) fails, as in a mount that was killed, and passes for a whole one.
    func names(_ directory: String = ".") throws(Storm.Unreadable) -> [String] {
        guard let stream = opendir(self(directory)) else { throw Storm.Unreadable(what: "the folder \(directory)", error: errno) }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                let error = errno
                if error != 0 { throw Storm.Unreadable(what: "a listing of \(directory)", error: error) }
                return names.sorted()
            }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { String(cString: UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self)) }
            if name != ".", name != ".." { names.append(name) }
        }
    }
}

/// Runs a program to its end.
func run(_ program: String, _ arguments: [String], input: String? = nil, environment: [String: String]? = nil) throws -> (status: Int32, output: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: program.hasPrefix("/") ? program : "/usr/bin/" + program)
    process.arguments = arguments
    if let environment { process.environment = environment }
    let output = Pipe(), source = Pipe()
    process.standardOutput = output
    process.standardError = output
    process.standardInput = source
    try process.begin()
    if let input { try? source.fileHandleForWriting.write(contentsOf: Data(input.utf8)) }
    try? source.fileHandleForWriting.close()
    let bytes = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: bytes, as: UTF8.self))
}

extension Process {
    private static let beginning = NSLock()

    /// Runs it; one at a time. Foundation hears of an end by a socket, and a child that another thread begins at the same moment would have a copy
    /// of the end that closes: this one would be running for as long as the other (swift-corelibs-foundation, Process.swift).
    func begin() throws { try Self.beginning.withLock { try run() } }
}

/// Waits for a condition, which must come true in time.
func eventually(_ what: String, seconds: Double = 20, _ condition: () throws -> Bool) throws {
    let end = Date(timeIntervalSinceNow: seconds)
    while try !condition() {
        try #require(Date() < end, "not within \(seconds) s: \(what)")
        usleep(20_000)
    }
}
