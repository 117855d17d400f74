import Foundation
import Glibc
import Testing

/// Programs that watch a folder of one mount (inotify) see what is done in another.
@Suite(.serialized) struct WatchTests {
    /// Prints "ready", then each event as "MASK NAME", until an event for "end" or the time is over.
    private static let watcher = """
        import ctypes, os, select, struct, sys, time
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.inotify_init1(os.O_NONBLOCK)
        names = {0x2: 'MODIFY', 0x8: 'CLOSE_WRITE', 0x100: 'CREATE', 0x200: 'DELETE', 0x4: 'ATTRIB', 0x40: 'MOVED_FROM', 0x80: 'MOVED_TO'}
        assert libc.inotify_add_watch(fd, sys.argv[1].encode(), sum(names)) >= 0
        print('ready', flush=True)
        deadline = time.time() + 25
        while time.time() < deadline:
            if not select.select([fd], [], [], 0.5)[0]: continue
            data, at = os.read(fd, 65536), 0
            while at < len(data):
                _, mask, _, length = struct.unpack_from('iIII', data, at)
                name = data[at + 16:at + 16 + length].rstrip(b'\\0').decode()
                at += 16 + length
                print(names.get(mask & 0xfff, hex(mask)), name, 'DIR' if mask & 0x40000000 else '', flush=True)
                if name == 'end': sys.exit()
        """

    @Test func watchersSeeWhatIsDoneElsewhere() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        try FileManager.default.createDirectory(atPath: one("watched"), withIntermediateDirectories: true)
        try one.write("watched/known", Array("first".utf8))
        try one.write("watched/doomed", [1])
        try one.write("watched/tool", [1])
        try one.write("watched/old name", [1])
        #expect(mkdir(one("watched/gone"), 0o755) == 0)
        try one.flush()
        try eventually("the second mount has the folder") { (try? two.names("watched").count) == 5 && two.read("watched/known") == Array("first".utf8) }
        let process = Process(), output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["python3", "-c", Self.watcher, two("watched")]
        process.standardOutput = output
        try process.begin()
        defer { if process.isRunning { Glibc.kill(process.processIdentifier, SIGKILL) } }
        #expect(String(decoding: output.fileHandleForReading.availableData, as: UTF8.self).hasPrefix("ready"))
        try one.write("watched/known", Array("second!".utf8))
        #expect(chmod(one("watched/tool"), 0o755) == 0)
        try one.write("watched/tool", Array("#!/bin/sh\nexit 7\n".utf8))
        try one.write("watched/made", Array("content".utf8))
        try one.write("watched/empty", [])
        #expect(mkdir(one("watched/folder"), 0o755) == 0 && symlink("made", one("watched/soft")) == 0)
        #expect(unlink(one("watched/doomed")) == 0 && rmdir(one("watched/gone")) == 0)
        #expect(rename(one("watched/old name"), one("watched/new name")) == 0)
        try one.flush()
        try one.write("watched/end", [1])
        try one.flush()
        process.waitUntilExit()
        let events = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self).split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
        for wanted in [
            "MODIFY known", "CLOSE_WRITE known", "CREATE made", "CLOSE_WRITE made", "ATTRIB tool", "CREATE empty", "CREATE folder DIR", "CREATE soft", "DELETE doomed",
            "DELETE old name", "CREATE new name", "DELETE gone DIR", "CREATE end",
        ] { #expect(events.contains(wanted), "\(wanted) is not in \(events)") }
        // Held open for writing, a program could not be started (ETXTBSY).
        #expect(!events.contains("CLOSE_WRITE tool"))
        #expect(try run(two("watched/tool"), []).status == 7)
        for once in ["CREATE made", "CREATE folder DIR", "CREATE end"] { #expect(events.filter { $0 == once }.count == 1, "\(events)") }
        // Showing changes makes none: nothing is pending, everything is as it was made, and the folder can be unmounted at once.
        for mount in [one, two] {
            #expect(mount.read("watched/known") == Array("second!".utf8) && mount.read("watched/made") == Array("content".utf8) && mount.read("watched/empty") == [])
            #expect(mount.read("watched/soft") == Array("content".utf8))
        }
        var here = stat(), there = stat()
        #expect(stat(one("watched/known"), &here) == 0 && stat(two("watched/known"), &there) == 0)
        #expect(here.st_mtim.tv_sec == there.st_mtim.tv_sec && here.st_mtim.tv_nsec == there.st_mtim.tv_nsec)
        let status = try two.boxfs(["status", two.path, "--json"])
        #expect(status.output.contains("\"pendingChanges\" : 0"), "\(status.output)")
        try two.unmount()
        #expect(try drive.fsck().status == 0)
    }

    /// The attributes that the kernel gets while a change is shown may be out of date when it takes them: it asks for them again.
    @Test func attributesThatCameWhileAChangeWasShownAreAskedForAgain() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        let trace = try Trace(two)
        defer { trace.end() }
        func isTraced(_ operation: String, _ name: String, by process: Int32) -> Bool {
            trace.lines.contains { $0["operation"] as? String == operation && $0["path"] as? String == name && $0["process"] as? Int == Int(process) }
        }
        let process = try #require(two.process?.processIdentifier)
        try one.write("empty", [])
        try one.write("full", [1, 2, 3])
        try one.flush()
        // Of an empty file only its appearance is shown.
        for (name, last) in [("empty", "mknod"), ("full", "setattr")] {
            try eventually("\(name) is shown") { isTraced(last, name, by: process) }
            var status = stat()
            #expect(stat(two(name), &status) == 0)
            try eventually("\(name) is asked for") { isTraced("getattr", name, by: getpid()) }
        }
    }
}

/// A mount that is killed while it shows changes to watchers is gone at once: nothing of it waits in the kernel for itself.
@Suite(.serialized) struct KilledWhileWatchedTests {
    @Test func theProcessEnds() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one")
        for round in 0..<6 {
            let two = try drive.mount("two\(round)")
            for index in 0..<200 { try one.write("f\(round)-\(index)", [1]) }
            try one.flush()
            usleep(UInt32.random(in: 0...40_000))
            two.kill()      // fails the test if the process stays
        }
        try one.unmount()
    }

    /// The thread that shows changes has no descriptors. If another had none, what it tells the kernel would be lost, and what it reads and writes
    /// would fail.
    @Test func onlyTheThreadThatShowsChangesHasNoDescriptors() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        let process = try #require(two.process?.processIdentifier)
        var most = 0
        for round in 0..<20 {
            for index in 0..<20 { try one.write("f\(round)-\(index)", [1]) }
            try one.flush()
            try eventually("the files of round \(round) are there") { access(two("f\(round)-19"), F_OK) == 0 }
            for index in 0..<20 { #expect(unlink(one("f\(round)-\(index)")) == 0) }
            try one.flush()
            try eventually("the files of round \(round) are gone") { access(two("f\(round)-19"), F_OK) != 0 }
            most = max(most, threadsWithoutDescriptors(process))
        }
        #expect(most == 1)
    }

    private func threadsWithoutDescriptors(_ process: Int32) -> Int {
        let manager = FileManager.default, tasks = "/proc/\(process)/task"
        return (try? manager.contentsOfDirectory(atPath: tasks))?.filter { task in
            // nil: it ended meanwhile.
            guard let names = try? manager.contentsOfDirectory(atPath: "\(tasks)/\(task)/fd") else { return false }
            return !names.contains { (try? manager.destinationOfSymbolicLink(atPath: "\(tasks)/\(task)/fd/\($0)")) == "/dev/fuse" }
        }.count ?? 0
    }
}
