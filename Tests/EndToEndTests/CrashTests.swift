import Foundation
import Glibc
import Testing
import TestSupport

/// Nothing that `close` returned for is lost, whoever is killed.
@Suite(.serialized) struct CrashTests {
    /// Writes files until told to stop or until the mount dies; remembers those whose close returned.
    private final class Writer: @unchecked Sendable {      // read after `stop` joined the thread
        private(set) var closed: [String: [UInt8]] = [:]
        private let done = DispatchSemaphore(value: 0)
        private let lock = NSLock()
        private var isStopped = false

        init(_ mount: Mount, _ prefix: String, _ random: SeededGenerator) {
            Thread.detachNewThread { [self] in
                var random = random
                var index = 0
                while !lock.withLock({ isStopped }) {
                    let name = "\(prefix)\(index)"
                    let bytes = random.bytes([10, 5_000, 300_000, 4_500_000][Int(random.next() % 4)])
                    let descriptor = open(mount(name), O_WRONLY | O_CREAT, 0o644)
                    guard descriptor >= 0 else { break }
                    var at = 0
                    while at < bytes.count {
                        let part = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress! + at, min(131_072, bytes.count - at)) }
                        guard part > 0 else { break }
                        at += part
                    }
                    guard close(descriptor) == 0, at == bytes.count else { break }
                    closed[name] = bytes
                    index += 1
                }
                done.signal()
            }
        }

        func stop() {
            lock.withLock { isStopped = true }
            done.wait()
        }
    }

    /// No close follows them.
    @Test func changesOfNamesSurviveSoonByThemselves() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        for name in ["stays", "moves", "goes"] { try mount.write(name, [1]) }
        #expect(mkdir(mount("folder"), 0o755) == 0 && rename(mount("moves"), mount("folder/moved")) == 0 && unlink(mount("goes")) == 0)
        usleep(300_000)
        mount.kill()
        try mount.start()
        #expect(try mount.names().sorted() == ["folder", "stays"])
        #expect(mount.read("folder/moved") == [1])
    }

    @Test func closedFilesSurviveTheDeathOfTheMountAndOfTheServer() throws {
        let drive = try Drive(seconds: 200)
        defer { drive.end() }
        var random = SeededGenerator("crash")
        let mount = try drive.mount("one")
        var written: [String: [UInt8]] = [:]
        for round in 0..<6 {
            let writer = Writer(mount, "r\(round)-", random)
            _ = random.next()
            usleep(UInt32(200_000 + random.next() % 1_200_000))
            if round.isMultiple(of: 2) {
                mount.killProcess()
                writer.stop()
                mount.kill()
                try mount.start()
            } else {
                drive.stopServer(SIGKILL)
                usleep(200_000)
                writer.stop()
                try drive.startServer()
            }
            written.merge(writer.closed) { _, new in new }
            for (name, bytes) in writer.closed { #expect(mount.read(name) == bytes, "\(name) after round \(round)") }
        }
        try mount.flush()
        let two = try drive.mount("two")
        for (name, bytes) in written { #expect(two.read(name) == bytes, "\(name) through the second mount") }
        drive.stopServer(SIGKILL)
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
        print("crash: \(written.count) files closed and kept")
    }

    /// As if a thread of the killed process waited in the kernel, where no signal reaches it: its end of the connection is still held.
    @Test func aKilledMountLetsGoOfThoseWhoWait() throws {
        let drive = try Drive(seconds: 60)
        defer { drive.end() }
        let one = try drive.mount("one")
        try one.write("file", [1, 2, 3])
        try one.flush()
        #expect(try one.boxfs(["cache", "drop", one.path]).status == 0)
        let holder = Process(), said = Pipe(), ending = Pipe()
        holder.executableURL = URL(fileURLWithPath: "/usr/bin/python3")
        holder.arguments = ["-c", """
            import ctypes, os, sys
            process = int(sys.argv[1])
            handle, held = os.pidfd_open(process), 0
            for number in os.listdir(f"/proc/{process}/fd"):
                if os.readlink(f"/proc/{process}/fd/{number}") == "/dev/fuse":
                    SYS_pidfd_getfd = 438
                    held += ctypes.CDLL(None).syscall(SYS_pidfd_getfd, handle, int(number), 0) >= 0
            print(held, flush=True)
            sys.stdin.read()
            """, "\(try #require(one.process).processIdentifier)"]
        (holder.standardOutput, holder.standardInput) = (said, ending)
        try holder.begin()
        #expect(String(decoding: said.fileHandleForReading.availableData, as: UTF8.self) != "0\n")
        drive.signalServer(SIGSTOP)
        let reader = Process()
        reader.executableURL = URL(fileURLWithPath: "/bin/cat")
        reader.arguments = [one("file")]
        reader.standardError = Pipe()
        try reader.begin()
        usleep(300_000)
        #expect(reader.isRunning, "it waits for the server")
        one.killProcess()
        try eventually("the reader's call ends", seconds: 5) { !reader.isRunning }
        #expect(reader.terminationStatus == 1)
        var space = statvfs()
        #expect(statvfs(one.path, &space) == -1 && errno == ENOTCONN)
        try ending.fileHandleForWriting.close()
        holder.waitUntilExit()
        drive.signalServer(SIGCONT)
    }

    /// The processes that end connections go with the mounts, also with one that is killed before its own is ready.
    @Test func aMountThatIsKilledAtOnceLeavesNoProcess() throws {
        func guards() -> Set<String> {
            Set(((try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []).filter { process in
                let words = (try? String(contentsOfFile: "/proc/\(process)/cmdline", encoding: .utf8))?.split(separator: "\0") ?? []
                return words.dropFirst().first == "--guard"
            })
        }
        let drive = try Drive()
        defer { drive.end() }
        let before = guards()
        let one = try drive.mount("one")
        try eventually("it has a guard") { guards().count == before.count + 1 }
        for round in 0..<10 {
            usleep(UInt32(round * 700))
            one.kill()
            try one.start()
        }
        one.kill()
        try eventually("all have gone", seconds: 5) { guards().isSubset(of: before) }
        try one.start()
        try one.unmount()
        #expect(guards().isSubset(of: before))
    }
}
