import Foundation
import Glibc
import Testing
import TestSupport

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
            switch random.next() % 7 {
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
            case 3:         // changed in place, more than once
                guard var old = held[name] else { continue }
                let file = open(one(name), O_WRONLY)
                for _ in 0...random.next() % 6 {
                    let begin = disk.position, piece = Array(random.bytes(3000).prefix(Int(random.next() % 3000) + 1)), at = Int(random.next() % UInt64(old.count))
                    #expect(pwrite(file, piece, piece.count, off_t(at)) == piece.count && fsync(file) == 0)
                    if old.count < at + piece.count { old += [UInt8](repeating: 0, count: at + piece.count - old.count) }
                    old.replaceSubrange(at..<at + piece.count, with: piece)
                    steps.append(Step(name: name, begin: begin, end: disk.position, bytes: old))
                }
                close(file)
                held[name] = old
                continue
            case 4, 5:      // appended to and changed in place with fdatasync(2), as a database does
                guard var old = held[name] else { continue }
                let file = open(one(name), O_WRONLY)
                for round in 0..<6 {
                    let begin = disk.position, piece = random.bytes(Int(random.next() % 9000) + 1)
                    let at = round.isMultiple(of: 3) ? Int(random.next() % UInt64(old.count)) : old.count
                    #expect(pwrite(file, piece, piece.count, off_t(at)) == piece.count && fdatasync(file) == 0)
                    old.replaceSubrange(at..<min(old.count, at + piece.count), with: piece)
                    steps.append(Step(name: name, begin: begin, end: disk.position, bytes: old))
                }
                close(file)
                held[name] = old
                continue
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
        var random = SeededGenerator("power cut"), vast = random.bytes(3 << 20)
        let one = try drive.mount("one")
        try one.write("vast", vast)
        try one.flush()
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
        // Its slot is cut where it was edited.
        let edited = open(one("vast"), O_RDWR), begin = disk.position, piece = random.bytes(500)
        #expect(pwrite(edited, piece, 500, 1_234_567) == 500 && fsync(edited) == 0)
        close(edited)
        vast.replaceSubrange(1_234_567..<1_234_567 + 500, with: piece)
        steps.append(Step(name: "vast", begin: begin, end: disk.position, bytes: vast))
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

    /// What is written over synced bytes takes none of them away before it is synced itself, also when another file's sync brings the rows of both.
    @Test func syncedBytesStayUntilOthersAreSynced() throws {
        let drive = try Drive()
        defer { drive.end() }
        var random = SeededGenerator("power cut over synced bytes")
        let state = drive.root + "/state", one = try drive.mount("one", ["--cache-dir", state])
        var synced = random.bytes(3_000_000)
        try one.write("f", synced)
        try one.flush()
        try one.unmount()
        drive.stopServer()
        let disk = try RecordedDisk(drive.root, folder: state)
        one.moreEnvironment = disk.environment
        try one.start(["--cache-dir", disk.folder, "--deadline", "3"])
        let file = open(one("f"), O_RDWR)
        struct Round { let begin: Int, end: Int, synced: [UInt8], written: [UInt8], modified: timespec }
        var rounds: [Round] = []
        for index in 0..<40 {
            let at = Int(random.next() % 2_900_000), piece = random.bytes(2000)
            #expect(pwrite(file, piece, piece.count, off_t(at)) == piece.count && fsync(file) == 0)
            synced.replaceSubrange(at..<at + 2000, with: piece)
            var status = stat()
            #expect(fstat(file, &status) == 0)
            let begin = disk.position
            var written = synced
            let over = max(0, at + Int(random.next() % 3000) - 1500), more = random.bytes(2000)
            if !index.isMultiple(of: 4) {
                #expect(pwrite(file, more, more.count, off_t(over)) == more.count)
                written.replaceSubrange(over..<over + 2000, with: more)
                try one.write("other\(index)", [1])
                sync(one("other\(index)"))
            }
            rounds.append(Round(begin: begin, end: disk.position, synced: synced, written: written, modified: status.st_mtim))
            synced = written
        }
        close(file)
        one.kill()
        one.moreEnvironment = [:]
        try disk.load()
        for index in 0..<10 {
            let round = rounds.randomElement(using: &random)!, cut = disk.cut(in: round.begin..<round.end + 1, &random), state = "\(drive.root)/state\(index)"
            try disk.rebuild(cut: cut, in: state, &random)
            try one.start(["--cache-dir", state, "--deadline", "1"])
            let found = try #require(one.read("f"))
            #expect(found.count == round.synced.count)
            let wrong = found.indices.first { found[$0] != round.synced[$0] && found[$0] != round.written[$0] }
            #expect(wrong == nil, "byte \(wrong ?? 0) after a cut at \(cut) is neither what was synced nor what was written then")
            var status = stat()
            #expect(stat(one("f"), &status) == 0)
            #expect((status.st_mtim.tv_sec, status.st_mtim.tv_nsec) >= (round.modified.tv_sec, round.modified.tv_nsec))
            one.kill()
        }
    }

    @Test func whatTheServerAnsweredIsThereAfterAPowerCut() throws {
        let drive = try Drive()
        defer { drive.end() }
        var random = SeededGenerator("server power cut")
        drive.stopServer()
        let disk = try RecordedDisk(drive.root, folder: drive.root + "/data")
        try drive.startServer(environment: disk.environment)
        let one = try drive.mount("one")
        var steps: [Step] = [], vast = random.bytes(3 << 20)
        try one.write("vast", vast)
        try one.flush()
        let first = disk.position
        steps.append(Step(name: "vast", begin: 0, end: first, bytes: vast))
        let end = Date(timeIntervalSinceNow: 1.5)
        while Date() < end {
            let begin = disk.position
            var changed: [String: [UInt8]?] = [:]
            if random.next().isMultiple(of: 2) {    // of which the server makes short chunks, and others of stretches of what it has
                let at = Int(random.next() % 3) << 20 + Int(random.next() % 5_000), piece = random.bytes(500), file = open(one("vast"), O_WRONLY)
                #expect(pwrite(file, piece, 500, off_t(at)) == 500)
                close(file)
                vast.replaceSubrange(at..<at + 500, with: piece)
                changed["vast"] = vast
            }
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

    /// A file of 6 MiB that the server has, in a mount that cannot reach it.
    private func aFileThatWasSent(_ random: inout SeededGenerator) throws -> (drive: Drive, one: Mount, bytes: [UInt8]) {
        let drive = try Drive(), one = try drive.mount("one", ["--deadline", "3"])
        let bytes = random.bytes(6 << 20)
        try one.write("file", bytes)
        sync(one("file"))
        try one.flush()
        drive.stopServer()
        return (drive, one, bytes)
    }

    /// `bytes` are in the mount after the cut, and once the server is back they are there and in another mount.
    private func expect(_ bytes: [UInt8], after one: Mount, _ drive: Drive) throws {
        try one.start()
        #expect(one.read("file") == bytes)
        try drive.startServer()
        try one.flush()
        #expect(try drive.mount("two").read("file") == bytes)
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }

    /// What was changed of a file and not synced may be lost; the rest of it was synced before, and may not. The cut takes all that was
    /// not synced, names too, though the rows of it were written: another file's fsync may have brought those to the disk.
    @Test(arguments: [100, 300_000]) func theRestOfAChangedFileSurvives(_ count: Int) throws {
        var random = SeededGenerator("the rest")
        let (drive, one, bytes) = try aFileThatWasSent(&random)
        defer { drive.end() }
        let file = open(one("file"), O_WRONLY)
        for at in [10_000, 4_100_000, 4_900_000] { #expect(pwrite(file, random.bytes(count), count, off_t(at)) == count) }
        close(file)
        one.kill()
        let dirty = one.stateFolder + "/dirty"
        for name in try FileManager.default.contentsOfDirectory(atPath: dirty) { unlink("\(dirty)/\(name)") }
        try expect(bytes, after: one, drive)
    }

    /// One slot goes back to what it was before, another keeps the changes that were synced and loses the later ones.
    @Test func theSyncedPartOfAChangedFileSurvives() throws {
        var random = SeededGenerator("the synced part")
        var (drive, one, bytes) = try aFileThatWasSent(&random)
        defer { drive.end() }
        let dirty = one.stateFolder + "/dirty"
        let file = open(one("file"), O_WRONLY), piece = random.bytes(4096)
        #expect(pwrite(file, piece, piece.count, 5_000_000) == piece.count && fsync(file) == 0)
        bytes.replaceSubrange(5_000_000..<5_000_000 + piece.count, with: piece)
        let synced = try Dictionary(uniqueKeysWithValues: FileManager.default.contentsOfDirectory(atPath: dirty).map { name in
            (name, try FileManager.default.attributesOfItem(atPath: "\(dirty)/\(name)")[.size] as! Int)
        })
        for at in [10_000, 5_500_000] { #expect(pwrite(file, random.bytes(4096), 4096, off_t(at)) == 4096) }
        close(file)
        one.kill()
        for name in try FileManager.default.contentsOfDirectory(atPath: dirty) {
            if let size = synced[name] { truncate("\(dirty)/\(name)", off_t(size)) } else { unlink("\(dirty)/\(name)") }
        }
        try expect(bytes, after: one, drive)
    }
}
