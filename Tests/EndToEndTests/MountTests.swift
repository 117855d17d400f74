import CXattr
import Foundation
import Glibc
import Testing
import TestSupport

/// What a program may rely on in one mount and across two; docs/SEMANTICS.md names these tests.
@Suite(.serialized) struct MountTests {
    @Test func whatIsWrittenIsReadBackHereAfterARemountAndThroughASecondMount() throws {
        let drive = try Drive()
        defer { drive.end() }
        var random = SeededGenerator("round trip")
        let one = try drive.mount("one")
        let big = random.bytes(9_500_000), small = Array("small\n".utf8)
        try one.write("big", big)
        try one.write("small", small)
        try FileManager.default.createDirectory(atPath: one("folder/deeper"), withIntermediateDirectories: true)
        for index in 0..<50 { try one.write("folder/deeper/\(index)", random.bytes(100 + index)) }
        #expect(link(one("small"), one("hard")) == 0)
        #expect(symlink("small", one("soft")) == 0)
        #expect(setxattr(one("small"), "user.colour", "red", 3, 0) == 0)
        #expect(chmod(one("small"), 0o600) == 0)
        func check(_ mount: Mount) throws {
            #expect(mount.read("big") == big)
            #expect(mount.read("soft") == small)
            var status = stat()
            #expect(stat(mount("hard"), &status) == 0)
            #expect(status.st_nlink == 2 && status.st_mode & 0o7777 == 0o600)
            var value = [CChar](repeating: 0, count: 8)
            #expect(getxattr(mount("hard"), "user.colour", &value, 8) == 3)
            #expect(try mount.names("folder/deeper").count == 50)
        }
        try check(one)
        try one.flush()
        try check(try drive.mount("two"))
        try one.unmount()
        try one.start()
        try check(one)
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }

    /// Whichever comes first, the answer to FUSE_INIT or the setting: it was lost in every second mount.
    @Test func theKernelReadsAheadInLongRequests() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        for round in 0..<8 {
            var status = stat()
            #expect(stat(mount(""), &status) == 0)
            let device = "/sys/class/bdi/\(status.st_dev >> 8 & 0xFFF):\(status.st_dev & 0xFF | status.st_dev >> 12 & 0xFFF00)/read_ahead_kb"
            func setting() -> String? { try? String(contentsOfFile: device, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines) }
            for _ in 0..<200 where setting() != "1024" { usleep(10_000) }
            usleep(20_000)
            #expect(setting() == "1024", "mount \(round)")
            try mount.unmount()
            try mount.start()
        }
    }

    @Test func openFilesBehaveAsOnALocalDisk() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        // Unlinked while open.
        let unlinked = open(mount("gone"), O_RDWR | O_CREAT, 0o644)
        #expect(write(unlinked, "abc", 3) == 3 && unlink(mount("gone")) == 0)
        var buffer = [UInt8](repeating: 0, count: 8)
        #expect(pread(unlinked, &buffer, 8, 0) == 3)
        close(unlinked)
        // Appending, truncating both ways.
        try mount.write("log", Array("one".utf8))
        let appending = open(mount("log"), O_WRONLY | O_APPEND)
        #expect(write(appending, "two", 3) == 3)
        close(appending)
        #expect(truncate(mount("log"), 2) == 0 && truncate(mount("log"), 4) == 0)
        #expect(mount.read("log") == [UInt8(ascii: "o"), UInt8(ascii: "n"), 0, 0])
        // What nobody may run, root may not run either (access(2)).
        #expect(access(mount("log"), R_OK | W_OK) == 0 && access(mount("log"), X_OK) == -1 && errno == EACCES)
        #expect(chmod(mount("log"), 0o100) == 0 && access(mount("log"), X_OK) == 0 && access(mount.path, X_OK) == 0)
        // Sparse, over 4 GiB, with SEEK_DATA and SEEK_HOLE.
        let sparse = open(mount("sparse"), O_RDWR | O_CREAT, 0o644)
        #expect(pwrite(sparse, "x", 1, 5_000_000_000) == 1)
        let data = lseek(sparse, 0, 3)
        #expect(data > 4_900_000_000 && data <= 5_000_000_000)
        #expect(lseek(sparse, 0, 4) == 0)
        #expect(pread(sparse, &buffer, 4, 123) == 4 && buffer[0..<4] == [0, 0, 0, 0])
        close(sparse)
        // A shared writable mapping.
        let mapped = open(mount("mapped"), O_RDWR | O_CREAT, 0o644)
        #expect(ftruncate(mapped, 8192) == 0)
        let memory = mmap(nil, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0)!
        memset(memory + 5000, 7, 10)
        #expect(msync(memory, 8192, MS_SYNC) == 0)
        munmap(memory, 8192)
        close(mapped)
        #expect(mount.read("mapped")?[5000..<5010] == ArraySlice(repeatElement(7, count: 10)))
        // rename: over a file, refused over a full folder, into itself.
        try FileManager.default.createDirectory(atPath: mount("a/b"), withIntermediateDirectories: true)
        #expect(rename(mount("a"), mount("a/b/c")) == -1 && errno == EINVAL)
        #expect(rmdir(mount("a")) == -1 && errno == ENOTEMPTY)
        #expect(rename(mount("log"), mount("sparse")) == 0)
        #expect(mount.read("sparse")?.count == 4)
        #expect(mkdir(mount(String(repeating: "n", count: 256)), 0o755) == -1 && errno == ENAMETOOLONG)
    }

    /// An archive's program sets a folder's time after it filled the folder, and the time stays: here, and on the server.
    @Test func theTimesOfANewFolderStay() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one")
        var times = [timespec(tv_sec: 1_000_000_000, tv_nsec: 123), timespec(tv_sec: 1_100_000_000, tv_nsec: 456)]
        for index in 0..<10 {
            #expect(mkdir(one("d\(index)"), 0o755) == 0)
            for name in 0..<5 { try one.write("d\(index)/\(name)", [1]) }
            #expect(utimensat(AT_FDCWD, one("d\(index)"), &times, 0) == 0)
        }
        try one.flush()
        func check(_ mount: Mount) {
            for index in 0..<10 {
                var status = stat()
                #expect(stat(mount("d\(index)"), &status) == 0)
                #expect(status.st_mtim.tv_sec == 1_100_000_000 && status.st_mtim.tv_nsec == 456, "\(mount("d\(index)"))")
            }
        }
        usleep(500_000)     // for what the server tells of our own changes
        check(one)
        check(try drive.mount("two"))
    }

    @Test func twoMountsSeeEachOther() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        #expect(try two.names() == [])
        try one.write("file", Array("first".utf8))
        try eventually("the creation") { two.read("file") == Array("first".utf8) }
        try two.write("file", Array("second, longer".utf8))
        try eventually("the edit") { one.read("file") == Array("second, longer".utf8) }
        #expect(rename(one("file"), one("renamed")) == 0)
        try eventually("the renaming") { try two.names() == ["renamed"] }
        #expect(unlink(two("renamed")) == 0)
        try eventually("the removal") { try one.names() == [] }
    }

    /// Whoever saves a file must find it, also if somebody elsewhere removed it while it was open.
    @Test func whatIsWrittenAfterARemovalElsewhereBringsTheFileBack() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        #expect(mkdir(one("folder"), 0o755) == 0)
        try one.write("folder/file", Array("as it was".utf8))
        try one.write("folder/read", Array("only read".utf8))
        try one.flush()
        try eventually("both files elsewhere") { two.read("folder/file") != nil && two.read("folder/read") != nil }
        let file = open(one("folder/file"), O_RDWR), reader = open(one("folder/read"), O_RDWR)
        #expect(file >= 0 && reader >= 0)
        try FileManager.default.removeItem(atPath: two("folder"))
        try eventually("the removal is seen") { try one.names() == [] }
        #expect(pwrite(file, "as saved!", 9, 0) == 9)
        #expect(close(file) == 0 && close(reader) == 0)
        try one.flush()
        for mount in [one, two] {
            try eventually("it is back on \(mount.path)") { mount.read("folder/file") == Array("as saved!".utf8) }
            #expect(try mount.names("folder") == ["file"])
        }
        // A program's own removal is none of that.
        let own = open(one("folder/file"), O_RDWR)
        #expect(unlink(one("folder/file")) == 0 && pwrite(own, "gone", 4, 0) == 4 && close(own) == 0)
        try one.flush()
        try eventually("it is gone") { try two.names("folder") == [] }
        #expect(try one.names("folder") == [] && drive.fsck().status == 0)
    }

    @Test func filesOfOneNameMadeOnTwoMountsAreBothKept() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        #expect(try one.names() == [] && two.names() == [])     // from here on both know the folder
        drive.stopServer()
        try one.write("same", Array("from one".utf8))
        try two.write("same", Array("from two".utf8))
        for mount in [one, two] { #expect(mkdir(mount("folder"), 0o755) == 0) }
        try one.write("folder/1", [1])
        try two.write("folder/2", [2])
        try drive.startServer()
        try one.flush()
        try two.flush()
        for mount in [one, two] {
            try eventually("both files and one folder on \(mount.path)") {
                let names = try mount.names()
                let contents = Set(names.filter { $0.hasPrefix("same") }.compactMap { mount.read($0) })
                return names.count == 3 && contents == [Array("from one".utf8), Array("from two".utf8)]
                    && (try? mount.names("folder")) == ["1", "2"]
            }
        }
        #expect(try drive.fsck().status == 0)
    }

    @Test func offlineWorkGoesOnAndArrivesLater() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one", ["--deadline", "2"])
        try one.write("before", [1, 2, 3])
        try one.write("dropped", [UInt8](repeating: 9, count: 5000))
        try one.flush()
        #expect(try one.boxfs(["cache", "drop", one.path]).status == 0)
        #expect(one.read("before") == [1, 2, 3])
        drive.stopServer(SIGKILL)
        let start = Date()
        #expect(one.read("dropped") == nil)
        #expect(Date().timeIntervalSince(start) < 10)
        #expect(one.read("before") == [1, 2, 3])
        try one.write("while away", [4])
        #expect(try one.names().contains("while away"))
        try one.unmount(["--now"])
        try one.start()
        #expect(one.read("while away") == [4])
        try drive.startServer()
        try one.flush()
        #expect(try drive.mount("two").read("while away") == [4])
    }

    @Test func aFullQuotaIsTold() throws {
        let drive = try Drive()
        defer { drive.end() }
        try drive.addAccount("bob", quota: "1MiB")
        let mount = try drive.mount("one", account: "bob")
        try mount.write("fits", [UInt8](repeating: 1, count: 500_000))
        try mount.flush()
        let descriptor = open(mount("too much"), O_WRONLY | O_CREAT, 0o644)
        let bytes = [UInt8](repeating: 2, count: 2_000_000)
        #expect(write(descriptor, bytes, bytes.count) == -1 && errno == EDQUOT)
        close(descriptor)
    }

    @Test func aFlippedBitInTheCacheIsFetchedAgain() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        let bytes = [UInt8]("some content".utf8)
        try mount.write("file", bytes)
        try mount.flush()
        try mount.unmount()
        let chunks = try #require(FileManager.default.enumerator(atPath: mount.stateFolder + "/cache/chunks"))
        let file = try #require(chunks.compactMap { $0 as? String }.first { $0.hasSuffix("") && $0.count > 60 })
        let descriptor = open(mount.stateFolder + "/cache/chunks/" + file, O_WRONLY)
        #expect(pwrite(descriptor, "X", 1, 3) == 1)
        close(descriptor)
        try mount.start()
        #expect(mount.read("file") == bytes)
    }
}
