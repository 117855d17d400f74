import Foundation
import Glibc
import Testing
import TestSupport

/// The mount's own files are damaged: nothing unsent is lost, and what is said is right.
@Suite(.serialized) struct DamagedStateTests {
    enum Damage: CaseIterable { case flipped, truncated, missing }

    private func harm(_ path: String, _ damage: Damage, _ random: inout SeededGenerator) throws {
        switch damage {
        case .missing: #expect(unlink(path) == 0)
        case .truncated:
            var status = stat()
            #expect(stat(path, &status) == 0 && truncate(path, status.st_size * 2 / 5) == 0)
        case .flipped:
            let file = open(path, O_RDWR)
            defer { close(file) }
            for page in stride(from: 1, to: lseek(file, 0, SEEK_END) / 4096, by: 4) {
                let bytes = random.bytes(48)
                #expect(pwrite(file, bytes, 48, page * 4096) == 48)
            }
        }
    }

    @Test(arguments: Damage.allCases) func aDamagedDatabaseIsRepaired(_ damage: Damage) throws {
        let drive = try Drive()
        defer { drive.end() }
        var random = SeededGenerator("damaged database")
        let one = try drive.mount("one")
        var sent: [String: [UInt8]] = [:], unsent: [String: [UInt8]] = [:]
        let whole = 4 << 20, head = 128 << 10
        #expect(mkdir(one("folder"), 0o755) == 0)
        for index in 0..<40 {
            sent["folder/sent\(index)"] = random.bytes(3000)
            try one.write("folder/sent\(index)", sent["folder/sent\(index)"]!)
        }
        try one.flush()
        drive.stopServer()
        for index in 0..<6 {
            unsent["folder/unsent\(index)"] = random.bytes(index == 0 ? 5_000_000 : 20_000)
            try one.write("folder/unsent\(index)", unsent["folder/unsent\(index)"]!)
        }
        try one.unmount(["--now"])
        // Sealed and not sent: the commit takes longer than we wait.
        try drive.startServer()
        try one.start(["--upload-limit", "64KiB"])
        let chunks = one.stateFolder + "/cache/chunks"
        try eventually("all is sealed") {
            let sizes = try FileManager.default.subpathsOfDirectory(atPath: chunks).compactMap { try FileManager.default.attributesOfItem(atPath: "\(chunks)/\($0)")[.size] as? Int }
            return sizes.contains(whole - head) && sizes.filter { $0 == 20_000 }.count >= 5
        }
        drive.stopServer(SIGKILL)
        unsent["folder/later"] = random.bytes(50_000)
        try one.write("folder/later", unsent["folder/later"]!)
        try one.unmount(["--now"])
        let state = one.stateFolder
        let before = try one.boxfs(["doctor", "--repair", one.path])
        #expect(before.status == 0 && before.output.contains("in order"), "\(before)")
        try harm(state + "/replica.db", damage, &random)
        try drive.startServer()
        if damage == .missing {
            let refused = try one.boxfs(["mount", one.path])
            #expect(refused.status != 0 && refused.output.contains("doctor --repair"), "\(refused)")
        }
        let repaired = try one.boxfs(["doctor", "--repair", one.path])
        #expect(repaired.status == 0 && repaired.output.contains("damaged") && repaired.output.contains("/rescue/"), "\(repaired)")
        print("\(damage): \(repaired.output)")
        // Every byte that was not sent lies in rescue/: under its path, or as a piece.
        let rescue = state + "/rescue"
        var held: Set<[UInt8]> = []
        for name in try FileManager.default.subpathsOfDirectory(atPath: rescue) {
            if let data = FileManager.default.contents(atPath: "\(rescue)/\(name)") { held.insert(Array(data)) }
        }
        for (name, bytes) in unsent {
            // A long file may have been sealed, with a chunk for its head.
            let isHeld = [[0], [0, whole], [0, head, whole]].contains { starts in
                let starts = starts.filter { $0 < bytes.count }
                return zip(starts, starts.dropFirst() + [bytes.count]).allSatisfy { held.contains(Array(bytes[$0..<$1])) }
            }
            #expect(isHeld, "\(name)")
        }
        try one.start([])
        for (name, bytes) in sent { #expect(one.read(name) == bytes, "\(name)") }
        try one.write("folder/new", [1, 2, 3])
        try one.flush()
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }

    @Test func aStateFolderHasOneMount() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one")
        try FileManager.default.createDirectory(atPath: drive.root + "/other", withIntermediateDirectories: true)
        let second = try one.boxfs(["mount", drive.root + "/other", "--cache-dir", one.stateFolder])
        #expect(second.status != 0 && second.output.contains("Another mount"), "\(second)")
        let repair = try one.boxfs(["doctor", "--repair", one.path])
        #expect(repair.status != 0 && repair.output.contains("Another mount"), "\(repair)")
        try one.write("still", [1])
        #expect(one.read("still") == [1])
    }

    /// A chunk that only this machine had is gone, as after a power cut: what else waits is sent, and what is lost is said.
    @Test func aLostUnsentChunkStopsNothing() throws {
        let drive = try Drive()
        defer { drive.end() }
        var random = SeededGenerator("lost chunk")
        let proxy = try FaultProxy(to: drive.port)
        defer { proxy.end() }
        let one = try drive.mount("one", through: proxy)
        #expect(try one.names() == [])
        proxy.fault = .silent      // nothing arrives
        let lost = random.bytes(700_000), kept = random.bytes(400_000)
        try one.write("lost", lost)
        try one.write("kept", kept)
        let chunks = one.stateFolder + "/cache/chunks"
        func chunk(_ bytes: [UInt8]) throws -> String? {
            try FileManager.default.subpathsOfDirectory(atPath: chunks).first { FileManager.default.contents(atPath: "\(chunks)/\($0)") == Data(bytes) }
        }
        let dirty = one.stateFolder + "/dirty"
        try eventually("both are sealed, and nowhere else") {
            let sizes = try FileManager.default.contentsOfDirectory(atPath: dirty).compactMap { (try? FileManager.default.attributesOfItem(atPath: "\(dirty)/\($0)"))?[.size] as? Int }
            return try sizes.allSatisfy { $0 == 0 } && chunk(lost) != nil && chunk(kept) != nil
        }
        one.kill()
        #expect(unlink("\(chunks)/\(try #require(try chunk(lost)))") == 0)
        proxy.fault = .none
        try one.start()
        try one.write("later", [1, 2, 3])
        let flushed = try one.boxfs(["flush", "--timeout", "30", one.path])
        #expect(flushed.status == 0, "\(flushed)")
        #expect(try one.boxfs(["status", "--json", one.path]).output.contains("700000 bytes of lost are lost"))
        let two = try drive.mount("two")
        #expect(two.read("kept") == kept && two.read("later") == [1, 2, 3])
        for mount in [one, two] { #expect(mount.read("lost") == [UInt8](repeating: 0, count: lost.count)) }
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }

    /// Damage that leaves a file's time and size as they were is seen by nobody but the scrub.
    @Test func aDamagedChunkIsFoundAndFetchedAgain() throws {
        let drive = try Drive()
        defer { drive.end() }
        var random = SeededGenerator("scrub")
        let one = try drive.mount("one", ["--scrub-rest", "0.01"])
        let bytes = random.bytes(300_000)
        for index in 0..<5 { try one.write("file\(index)", random.bytes(100_000)) }
        try one.write("file", bytes)
        try one.flush()
        let chunks = one.stateFolder + "/cache/chunks"
        let name = try #require(try FileManager.default.subpathsOfDirectory(atPath: chunks).first { FileManager.default.contents(atPath: "\(chunks)/\($0)") == Data(bytes) })
        one.kill()
        var status = stat()
        #expect(stat("\(chunks)/\(name)", &status) == 0)
        let file = open("\(chunks)/\(name)", O_WRONLY)
        #expect(pwrite(file, "damaged", 7, 1000) == 7)
        var times = [status.st_atim, status.st_mtim]
        #expect(futimens(file, &times) == 0)
        close(file)
        unlink(one.stateFolder + "/cache/scrub")    // a new pass
        try one.start()
        try eventually("status says so") { try one.boxfs(["status", "--json", one.path]).output.contains("damaged chunk \((name as NSString).lastPathComponent)") }
        try eventually("it was fetched again") { FileManager.default.contents(atPath: "\(chunks)/\(name)") == Data(bytes) }
        #expect(one.read("file") == bytes)
    }
}
