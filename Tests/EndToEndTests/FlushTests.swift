import Foundation
import Glibc
import Testing

/// `boxfs flush` without a terminal asks the mount by ioctl(2) and loads nothing; all that is not a plain yes is the command line's to say.
@Suite(.serialized) struct FlushTests {
    @Test func aFileAFolderAndTheMountAreFlushed() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one"), other = try drive.mount("two")
        #expect(mkdir(mount("d"), 0o755) == 0)
        // Open and not closed: what was written counts all the same.
        let file = open(mount("d/open"), O_WRONLY | O_CREAT, 0o644)
        #expect(write(file, "abc", 3) == 3)
        for (number, path) in [mount("d/open"), mount("d"), mount.path].enumerated() {
            try mount.write("d/f\(number)", [1, 2, 3])
            #expect(try mount.boxfs(["flush", path]) == (0, ""))
            #expect(try drive.serverTree().keys.contains("d/f\(number)"), "it is on the server when the command returns")
        }
        close(file)
        try eventually("the other has it") { other.read("d/open") == Array("abc".utf8) }
        // Other requests of this kind are none of ours.
        let terminal = open(mount("d/f0"), O_RDONLY)
        #expect(isatty(terminal) == 0 && errno == ENOTTY)
        close(terminal)
        try mount.unmount()
        try other.unmount()
    }

    /// The kernel's copies are gone when `boxfs cache drop` returns, not some time later.
    @Test func aDroppedCacheIsEmptyWhenTheCommandReturns() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one"), size = 4096
        let pages = try (0..<6000).map { number in
            try mount.write("f\(number)", [UInt8](repeating: 1, count: size))
            let file = open(mount("f\(number)"), O_RDONLY)
            defer { close(file) }
            return try #require(mmap(nil, size, PROT_READ, MAP_SHARED, file, 0))
        }
        defer { for page in pages { munmap(page, size) } }
        func held() -> Int {
            pages.count { page in
                var isHere: UInt8 = 0
                return mincore(page, size, &isHere) == 0 && isHere & 1 == 1
            }
        }
        try mount.flush()
        for page in pages { #expect(page.load(as: UInt8.self) == 1) }
        #expect(held() == pages.count)
        #expect(try mount.boxfs(["cache", "drop", mount.path]).status == 0)
        #expect(held() == 0)
        for page in pages { #expect(page.load(as: UInt8.self) == 1) }
    }

    @Test func whatIsNoYesIsExplained() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one", ["--deadline", "2"])
        let elsewhere = try mount.boxfs(["flush", drive.root])
        #expect(elsewhere.status == 3 && elsewhere.output.contains("not in a BoxFS mount"))
        #expect(try mount.boxfs(["flush", mount("nothing")]).status != 0)
        try mount.write("file", [1])
        drive.stopServer()
        try mount.write("file", [2])
        let start = Date(), late = try mount.boxfs(["flush", "--timeout", "1", mount.path])
        #expect(late.status == 5 && Date().timeIntervalSince(start) < 3)
        // Longer than a call's deadline: the command line goes on waiting, until the server is back.
        let waiting = Waiting { try? mount.boxfs(["flush", mount("file")]) }
        sleep(3)
        try drive.startServer()
        #expect(try waiting.result(seconds: 20)?.status == 0)
        try mount.unmount()
    }

    @Test func aWaitCanBeInterrupted() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        drive.stopServer()
        try mount.write("file", [1])
        let process = Process()
        process.executableURL = URL(fileURLWithPath: Drive.binaries + "/boxfs")
        process.arguments = ["flush", mount.path]
        process.standardError = Pipe()
        try process.begin()
        usleep(300_000)
        #expect(process.isRunning)
        let start = Date()
        kill(process.processIdentifier, SIGKILL)    // the one that no test's thread blocks for its children
        process.waitUntilExit()
        #expect(Date().timeIntervalSince(start) < 1)
        try drive.startServer()
        try mount.unmount()
    }
}
