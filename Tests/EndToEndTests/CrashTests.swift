import Foundation
import Glibc
import Testing

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
}
