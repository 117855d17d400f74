import Foundation
import Glibc
import Testing

/// Work without the server, in quantity, and catching up.
@Suite(.serialized) struct OfflineTests {
    @Test func tenThousandCreationsArriveLater() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        try mount.write("before", [0])
        try mount.flush()
        drive.stopServer()
        let start = Date()
        for folder in 0..<20 {
            #expect(mkdir(mount("d\(folder)"), 0o755) == 0)
            for index in 0..<500 {
                let file = open(mount("d\(folder)/f\(index)"), O_WRONLY | O_CREAT | O_EXCL, 0o644)
                #expect(file >= 0)
                if index.isMultiple(of: 5) { #expect(write(file, "content \(folder) \(index)", 12) == 12) }
                close(file)
            }
        }
        // Renamed, removed and written again before anybody saw them.
        #expect(rename(mount("d0"), mount("renamed")) == 0)
        for index in 0..<100 { #expect(unlink(mount("d1/f\(index)")) == 0) }
        let created = Date().timeIntervalSince(start)
        try drive.startServer()
        let again = Date()
        try mount.flush()
        print("offline: 10,000 creations in \(created) s, sent in \(Date().timeIntervalSince(again)) s")
        let two = try drive.mount("two")
        #expect(try two.names() == (["before", "renamed"] + (1..<20).map { "d\($0)" }).sorted())
        for folder in ["renamed"] + (1..<20).map({ "d\($0)" }) { #expect(try two.names(folder).count == (folder == "d1" ? 400 : 500)) }
        #expect(two.read("renamed/f10") == Array("content 0 10".utf8) && two.read("d19/f495") == Array("content 19 4".utf8))
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }

    /// A commit that was cut and not answered holds its chunks in the cache over a remount, and lets them go with the answer.
    @Test func whatWasSentAfterARemountIsCleanAgain() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        #expect(try mount.names() == [])    // the root's entries are here from now on
        drive.signalServer(SIGSTOP)
        try mount.write("file", [UInt8](repeating: 7, count: 9 << 20))
        func hasUnsent() throws -> Bool { try mount.boxfs(["status", mount.path]).output.contains("of it only here") }
        try eventually("the commit was cut and its data sealed") {
            let dirty = try FileManager.default.contentsOfDirectory(atPath: mount.stateFolder + "/cache/chunks").filter { $0.utf8.count == 2 }
            return try dirty.reduce(0) { try $0 + FileManager.default.contentsOfDirectory(atPath: mount.stateFolder + "/cache/chunks/" + $1).count } >= 2
        }
        usleep(300_000)
        try mount.unmount(["--now"])
        try mount.start()
        #expect(try hasUnsent(), "its chunks are kept until they are sent")
        drive.signalServer(SIGCONT)
        try mount.flush()
        #expect(try !hasUnsent())
    }

    /// The kernel holds a page for the read; being told of the same file meanwhile must not tie the mount to the server's answer.
    @Test func aMountThatWaitsForTheServerCanBeKilled() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one", ["--deadline", "60"])
        defer { umount2(mount.path, Int32(MNT_FORCE)) }     // frees a mount process that cannot die
        try mount.write("file", [UInt8](repeating: 7, count: 6 << 20))
        try mount.flush()
        #expect(try mount.boxfs(["cache", "drop", mount.path]).status == 0)
        drive.stopServer(SIGKILL)
        let reader = Process()
        reader.executableURL = URL(fileURLWithPath: "/bin/cat")
        reader.arguments = [mount("file")]
        reader.standardOutput = FileHandle.nullDevice
        reader.standardError = FileHandle.nullDevice
        try reader.begin()
        usleep(300_000)
        #expect(reader.isRunning, "it waits for the server")
        #expect(try mount.boxfs(["cache", "drop", mount.path]).status == 0)
        usleep(200_000)
        let process = try #require(mount.process)
        Glibc.kill(process.processIdentifier, SIGKILL)
        try eventually("the mount process is gone", seconds: 5) { !process.isRunning }
        try eventually("its reader got an error", seconds: 5) { !reader.isRunning }
    }

    @Test func aFolderThatWasNeverVisitedIsNotToBeHadOffline() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one")
        let count = 600
        for index in 0..<count {
            #expect(mkdir(one("d\(index)"), 0o755) == 0)
            try one.write("d\(index)/file", [7])
        }
        try one.unmount()
        // The second mount learns the root's entries; the server dies while the folders still come in the background.
        let two = try drive.mount("two", ["--deadline", "4"])
        #expect(try two.names().count == count && two.read("d0/file") == [7])
        drive.stopServer(SIGKILL)
        func ask(_ name: String) -> (error: Int32, seconds: Double) {
            let start = Date()
            var status = stat()
            let error = stat(two(name), &status) == 0 ? 0 : errno
            return (error, Date().timeIntervalSince(start))
        }
        let last = "d\(count - 1)"
        let answer = ask(last + "/file")
        #expect(answer.error == EIO && answer.seconds > 2 && answer.seconds < 8, "\(answer)")
        #expect(open(two(last + "/new"), O_CREAT | O_WRONLY, 0o644) == -1 && errno == EIO)
        // Whoever waits can be interrupted, and does not hold up others.
        let start = Date()
        let listing = Waiting { try? run("timeout", ["-s", "KILL", "0.5", "ls", two(last)]) }
        #expect(ask("d0/file").error == 0)
        #expect(try listing.result(seconds: 3)?.status != 0)
        #expect(Date().timeIntervalSince(start) < 3)
        #expect(mkdir(two("new"), 0o755) == 0)
        try drive.startServer()
        try eventually("it is there again") { two.read(last + "/file") == [7] }
    }

    /// Who mounts and walks away has a folder to work in.
    @Test func aNewMountNeedsTheServerNoMore() throws {
        let drive = try Drive()
        defer { drive.end() }
        let first = try drive.mount("one")
        try first.write("known", [1])
        try first.unmount()
        let mount = try drive.mount("two", ["--deadline", "2"])
        drive.stopServer()
        #expect(try mount.names() == ["known"])
        try mount.write("file", [1])
        try drive.startServer()
        try mount.unmount()
    }
}
