import Foundation
import Glibc
import Testing

/// The power is cut at any point: what was synced, or answered by the server, is there with the right bytes.
@Suite(.serialized) struct PowerCutTests {
    /// What a name held from one point of the log on; nil: nothing. While it was being changed either may be there, or a mixture.
    private struct Step { let name: String, begin: Int, end: Int, bytes: [UInt8]? }

    /// What must be there after a cut. Names that were being changed are left out.
    private func expected(_ steps: [Step], at cut: Int) -> [String: [UInt8]?] {
        var result: [String: [UInt8]?] = [:], changing: Set<String> = []
        for step in steps {
            if step.end <= cut { result.updateValue(step.bytes, forKey: step.name) } else if step.begin < cut { changing.insert(step.name) }
        }
        return result.filter { !changing.contains($0.key) }
    }

    private func sync(_ path: String) {
        let file = open(path, O_RDONLY)
        #expect(file >= 0 && fsync(file) == 0, "fsync of \(path): errno \(errno)")
        close(file)
    }

    /// Changes files as programs do, syncs each, and leaves others unsynced.
    private func work(in one: Mount, _ disk: RecordedDisk, seconds: Double, _ random: inout SeededGenerator) throws -> [Step] {
        var steps: [Step] = [], held: [String: [UInt8]] = [:]
        let end = Date(timeIntervalSinceNow: seconds)
        var number = 0
        while Date() < end {
            number += 1
            let name = "f\(random.next() % 12)", begin = disk.position
            let bytes = random.bytes([40, 6_000, 200_000, 4_300_000][Int(random.next() % 8) % 4])
            switch random.next() % 5 {
            case 0, 1:      // saved by renaming a new file over the old one
                try one.write("new", bytes)
                sync(one("new"))
                #expect(rename(one("new"), one(name)) == 0)
                sync(one(name))
                held[name] = bytes
            case 2:         // written anew
                try one.write(name, bytes)
                sync(one(name))
                held[name] = bytes
            case 3:         // changed in place
                guard var old = held[name] else { continue }
                let at = Int(random.next() % UInt64(old.count)), piece = bytes.prefix(3000)
                let file = open(one(name), O_WRONLY)
                #expect(pwrite(file, Array(piece), piece.count, off_t(at)) == piece.count && fsync(file) == 0)
                close(file)
                if old.count < at + piece.count { old += [UInt8](repeating: 0, count: at + piece.count - old.count) }
                old.replaceSubrange(at..<at + piece.count, with: piece)
                held[name] = old
            default:
                guard held.removeValue(forKey: name) != nil else { continue }
                #expect(unlink(one(name)) == 0)
                sync(one.path)
            }
            steps.append(Step(name: name, begin: begin, end: disk.position, bytes: held[name]))
            try one.write("unsynced\(number % 5)", random.bytes(5000))
            usleep([0, 5_000, 40_000, 160_000][Int(random.next() % 4)])
        }
        return steps
    }

    @Test func whatWasSyncedIsThereAfterAPowerCut() throws {
        let drive = try Drive()
        defer { drive.end() }
        var random = SeededGenerator("power cut")
        let one = try drive.mount("one")
        one.kill()
        let disk = try RecordedDisk(drive.root, folder: drive.root + "/state")
        one.moreEnvironment = disk.environment
        // The first commit is sealed and never ends, as the link is slow: what is in it is on this machine alone.
        try one.start(["--cache-dir", disk.folder, "--upload-limit", "64KiB", "--deadline", "3"])
        var steps: [Step] = []
        // While a file is open for writing the commit waits: it takes up all of these, which then rest in the cache.
        let busy = open(one("busy"), O_WRONLY | O_CREAT, 0o644)
        for index in 0..<12 {
            let begin = disk.position, bytes = random.bytes([300, 9_000, 150_000][index % 3])
            try one.write("f\(index)", bytes)
            sync(one("f\(index)"))
            steps.append(Step(name: "f\(index)", begin: begin, end: disk.position, bytes: bytes))
        }
        close(busy)
        let sealing = disk.position
        usleep(400_000)
        let sealed = disk.position
        steps += try work(in: one, disk, seconds: 1.5, &random)
        one.kill()
        drive.stopServer(SIGKILL)
        one.moreEnvironment = [:]
        try disk.load()
        var checked = 0
        for round in 0..<8 {
            let range = round.isMultiple(of: 2) ? sealing..<sealed + 1 : sealed..<disk.position + 1
            let cut = disk.cut(in: range, &random), state = "\(drive.root)/state\(round)"
            try disk.rebuild(cut: cut, in: state, &random)
            try one.start(["--cache-dir", state, "--deadline", "1"])
            for (name, bytes) in expected(steps, at: cut) {
                #expect(one.read(name) == bytes, "\(name) after a cut at \(cut), round \(round)")
                checked += 1
            }
            if round < 7 { one.kill() }
        }
        print("power cut: \(steps.count) steps, \(checked) files checked")
        #expect(checked > 50)
        // The last of them goes on: all of it arrives.
        let contents = try one.names().filter { $0.hasPrefix("f") }.map { ($0, one.read($0)) }
        try drive.startServer()
        try one.flush()
        let two = try drive.mount("two")
        for (name, bytes) in contents { #expect(two.read(name) == bytes, "\(name) through the second mount") }
        for name in try two.names() { #expect(one.read(name) == two.read(name), "\(name) in both mounts") }
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }

    @Test func whatTheServerAnsweredIsThereAfterAPowerCut() throws {
        let drive = try Drive()
        defer { drive.end() }
        var random = SeededGenerator("server power cut")
        drive.stopServer()
        let disk = try RecordedDisk(drive.root, folder: drive.root + "/data")
        try drive.startServer(environment: disk.environment)
        let one = try drive.mount("one")
        let first = disk.position
        var steps: [Step] = []
        let end = Date(timeIntervalSinceNow: 1.5)
        while Date() < end {
            let begin = disk.position
            var changed: [String: [UInt8]?] = [:]
            for _ in 0...random.next() % 4 {
                let name = "f\(random.next() % 15)"
                if random.next().isMultiple(of: 4), one.read(name) != nil {
                    #expect(unlink(one(name)) == 0)
                    changed.updateValue(nil, forKey: name)
                } else {
                    let bytes = random.bytes([100, 30_000, 700_000][Int(random.next() % 3)])
                    try one.write(name, bytes)
                    changed.updateValue(bytes, forKey: name)
                }
            }
            try one.flush()
            for (name, bytes) in changed { steps.append(Step(name: name, begin: begin, end: disk.position, bytes: bytes)) }
        }
        one.kill()
        drive.stopServer(SIGKILL)
        try disk.load()
        try FileManager.default.moveItem(atPath: disk.folder, toPath: drive.root + "/original")
        var checked = 0
        for round in 0..<5 {
            let cut = disk.cut(in: first..<disk.position + 1, &random)
            try? FileManager.default.removeItem(atPath: disk.folder)
            try disk.rebuild(cut: cut, in: disk.folder, &random)
            let fsck = try drive.fsck()
            #expect(fsck.status == 0, "after a cut at \(cut), round \(round): \(fsck.output)")
            try drive.startServer()
            let two = try drive.mount("two\(round)")
            for (name, bytes) in expected(steps, at: cut) {
                #expect(two.read(name) == bytes, "\(name) after a cut at \(cut), round \(round)")
                checked += 1
            }
            two.kill()
            drive.stopServer(SIGKILL)
        }
        print("server power cut: \(steps.count) steps, \(checked) files checked")
        #expect(checked > 15)
    }
}
