import Foundation
import Glibc
import GRDB
import Shared
import Testing
import TestSupport
@testable import BoxFS

/// A file of some MiB under random edits in place, other writes, commits and restarts, against an array of bytes; and where its chunks begin
/// afterwards. `BOXFS_SEED` repeats the draws.
@Suite struct EditInPlaceTests {
    /// The file, and what it should hold.
    private final class Editing {
        let folder = FileManager.default.temporaryDirectory.path + "/boxfs-edit-\(UUID().uuidString)", namespace = NamespaceID.make()
        let caller = Caller(uid: 0, gid: 0, pid: 1, umask: 0)
        var random: SeededGenerator
        var system: MountedFileSystem?
        var inode = InodeNumber.root, handle: HandleID
        var bytes: [UInt8] = []
        var trail: [String] = []
        /// What is being sent, and what it was when it was cut.
        var sending: (batch: Batch, bytes: [UInt8])?

        /// - Parameter diskMegabytes: the size of a file system of its own for the state folder (tmpfs; needs root).
        init(_ random: SeededGenerator, diskMegabytes: Int? = nil) throws {
            self.random = random
            if let diskMegabytes {
                try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
                try #require(Glibc.mount("disk", folder, "tmpfs", 0, "size=\(diskMegabytes)m,mode=700") == 0, "mounting a tmpfs: errno \(errno)")
            }
            let system = try LocalReplica.open(folder, namespace, isNew: true)
            let (attributes, open) = try system.create(.root, "f", mode: 0o644, flags: O_RDWR, caller: caller)
            (self.system, inode, handle) = (system, attributes.inode, open.handle)
        }

        deinit {
            umount2(folder, Int32(MNT_DETACH))
            try? FileManager.default.removeItem(atPath: folder)
        }

        var tree: Tree { system!.tree }
        func file() throws -> FileContent { try tree.lock.withLock { () throws(FileSystemError) in try tree.content(of: tree.inode(inode)) } }

        func draw(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }

        func write(_ at: Int, _ count: Int) throws {
            trail.append("write \(at) \(count)")
            var piece = [UInt8](repeating: 0, count: count)
            piece.withUnsafeMutableBytes { bytes in
                for at in stride(from: 0, to: count, by: 8) {
                    let word = random.next() | 0x0101_0101_0101_0101        // no byte is 0: what is lost is seen
                    withUnsafeBytes(of: word) { bytes[at..<min(count, at + 8)].copyBytes(from: $0.prefix(count - at)) }
                }
            }
            try piece.withUnsafeBytes { try system!.write(handle, offset: Int64(at), $0) }
            if bytes.count < at + count { bytes += [UInt8](repeating: 0, count: at + count - bytes.count) }
            bytes.replaceSubrange(at..<at + count, with: piece)
        }

        func resize(_ size: Int) throws {
            trail.append("truncate \(size)")
            _ = try system!.setattr(inode, AttributeChanges(size: UInt64(size)), handle: handle, caller: caller)
            bytes = Array(bytes.prefix(size)) + [UInt8](repeating: 0, count: max(0, size - bytes.count))
        }

        func punch(_ range: Range<Int>) throws {
            trail.append("punch \(range)")
            try system!.fallocate(handle, mode: 3, offset: Int64(range.lowerBound), length: Int64(range.count))
            let range = range.clamped(to: 0..<bytes.count)
            bytes.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count))
        }

        func cut() throws {
            guard sending == nil else { return }
            try system!.flush(handle)
            if let batch = try tree.lock.withLock({ try Batch.cut(tree, Namespace.home) }) { sending = (batch, bytes) }
            trail.append("cut")
        }

        /// - Returns: the manifest, if the commit spoke of the content.
        @discardableResult func answer() async throws -> Manifest? {
            guard let (batch, cut) = sending else { return nil }
            trail.append("answer")
            sending = nil
            let sent = try await LocalReplica.answer(batch, tree)
            guard let index = batch.files.firstIndex(where: { $0.inode.number == inode }) else { return nil }
            #expect(try content(of: sent[index]) == cut, "what is sent is what was there: \(trail.suffix(12))")
            return sent[index]
        }

        func takeBack() {
            guard let (batch, _) = sending else { return }
            trail.append("take back")
            tree.lock.withLock {
                batch.takeBack(tree)
                batch.release(tree)
            }
            sending = nil
        }

        func restart() throws {
            takeBack()
            trail.append("restart")
            try system!.flush(handle)
            try end(commits: draw(0..<2) == 0)
            system = try LocalReplica.open(folder, namespace, isNew: false)
            inode = try system!.lookup(.root, "f").inode
            handle = try system!.open(inode, flags: O_RDWR, caller: caller).handle
        }

        func end(commits: Bool = true) throws {
            system!.release(handle)
            try LocalReplica.close(&system, commits: commits)
        }

        /// Whole files by the chunks that they share, or by their bytes.
        func copy() throws {
            trail.append("copy")
            let other = try system!.create(.root, "g\(trail.count)", mode: 0o644, flags: O_RDWR, caller: caller).1.handle
            defer { system!.release(other) }
            func copy(_ from: HandleID, _ to: HandleID) throws {
                var at = 0
                while at < bytes.count {
                    at += try system!.copyFileRange(from, sourceOffset: Int64(at), to, targetOffset: Int64(at), count: bytes.count - at)
                }
            }
            try copy(handle, other)
            #expect(try read(other) == bytes, "the copy: \(trail.suffix(12))")
            try copy(other, handle)
        }

        func read(_ handle: HandleID) throws -> [UInt8] {
            try system!.readBytes(system!.read(handle, offset: 0, count: bytes.count + 100), count: bytes.count + 100)
        }

        private func content(of manifest: Manifest) throws -> [UInt8] {
            var bytes: [UInt8] = []
            for chunk in manifest.chunks {
                var part = [UInt8](repeating: 0, count: Int(chunk.length))
                if !chunk.isHole {
                    let open = try #require(tree.cache.open(chunk))
                    #expect(pread(open.fileDescriptor, &part, part.count, off_t(open.offset)) == part.count)
                    #expect(SHA256.hash(part) == chunk.hash)
                }
                bytes += part
            }
            return bytes
        }

        func check() throws {
            #expect(try read(handle) == bytes, "\(trail.suffix(12))")
            let file = try file()
            file.lock.withLock {
                #expect(file.size == bytes.count && file.slots.count == file.slots.count(size: file.size), "\(trail.suffix(12))")
                let cuts = file.slots.cuts
                #expect(zip(cuts, cuts.dropFirst()).allSatisfy { $0 < $1 } && cuts.allSatisfy { $0 < Int(file.size) }, "\(trail.suffix(12))")
            }
        }
    }

    @Test func theBytesStayRight() async throws {
        var random = SeededGenerator(), cuts = 0
        let end = Date().addingTimeInterval(6)
        repeat {
            let editing = try Editing(SeededGenerator(state: random.next()))
            try editing.write(0, 9_000_000)
            let places = (0..<4).map { _ in editing.draw(0..<9_000_000) }
            for number in 0..<120 where number < 40 || cuts < 2 || Date() < end {
                do { try await step(editing, places) } catch {
                    Issue.record("\(error) after \(editing.trail.suffix(12))")
                    throw error
                }
                cuts = max(cuts, try editing.file().slots.cuts.count)
            }
            editing.takeBack()
            try editing.end()
        } while Date() < end
        #expect(cuts > 1, "some slots were parted")
    }

    private func step(_ editing: Editing, _ places: [Int]) async throws {
        let place = min(places[editing.draw(0..<4)] + editing.draw(0..<20_000), editing.bytes.count)
        switch editing.draw(0..<27) {
        case 0..<10: try editing.write(place, editing.draw(1..<8000))
        case 10, 11: try editing.write(editing.draw(0..<editing.bytes.count + 1), editing.draw(1..<300_000))
        case 12: try editing.resize(editing.draw(0..<10_000_000))
        case 13: try editing.punch(editing.draw(0..<5_000_000)..<editing.draw(5_000_000..<10_000_000))
        case 14..<17: try editing.cut()
        case 17..<20: try await editing.answer()
        case 20: editing.takeBack()
        case 21: try editing.system!.fsync(editing.handle, dataOnly: editing.draw(0..<2) == 0)
        case 22: try editing.restart()
        case 23..<26:
            try await editing.answer()
            try editing.cut()
            try await editing.answer()
            try editing.write(place, editing.draw(1..<8000))
            try editing.cut()
            try await editing.answer()
        default: try editing.copy()
        }
        try editing.check()
    }

    /// Of a place that is edited again and again little is sealed, hashed and sent.
    @Test func theSecondEditConcernsAShortChunk() async throws {
        let editing = try Editing(SeededGenerator())
        try editing.write(0, 12 << 20)
        try editing.cut()
        var known = Set(try #require(try await editing.answer()).chunks)
        #expect(known.count == 4)
        for round in 0..<5 {
            try editing.write((6 << 20) + 100 + round, 4096)
            try editing.cut()
            let manifest = try #require(try await editing.answer()), new = manifest.chunks.filter { !known.contains($0) }
            #expect(manifest.chunks.count == 6, "the head, what is before, what was edited, and what is behind")
            let edited = 64 << 10, half = 2 << 20, lengths = new.map { Int($0.length) }
            #expect(lengths == (round == 0 ? [half, edited, half - edited] : [edited]), "round \(round)")
            known.formUnion(manifest.chunks)
            if round == 2 { try editing.restart() }
            try editing.check()
        }
        // A slot that is edited all over stays what it is.
        for _ in 0..<40 { try editing.write(editing.draw(0..<4 << 20 - 5000), 4096) }
        try editing.cut()
        #expect(try #require(try await editing.answer()).chunks.count == 6)
        try editing.check()
        try editing.end()
    }

    /// Who looks at a long file's head does not wait for 4 MiB, and who changes it does not send them.
    @Test func aLongFileBeginsWithAShortChunk() async throws {
        let head = Manifest.headByteCount, whole = Manifest.maximumChunkByteCount
        for (size, lengths) in [(whole, [whole]), (whole + 1, [head, whole - head, 1]), (3 * whole - 5, [head, whole - head, whole, whole - 5])] {
            let editing = try Editing(SeededGenerator())
            try editing.write(0, size)
            try editing.cut()
            let manifest = try #require(try await editing.answer())
            #expect(manifest.chunks.map { Int($0.length) } == lengths)
            try editing.restart()
            try editing.check()
            try editing.write(100, 4096)
            try editing.cut()
            let edited = try #require(try await editing.answer()).chunks
            if size > whole { #expect(edited.count == lengths.count && edited.dropFirst() == manifest.chunks.dropFirst()) }
            try editing.check()
            try editing.end()
        }
    }

    /// The head's chunk and the one behind it are written anew. Where the disk has no room for that, what was written is sent all the same.
    @Test func onAFullDiskALongFileIsSealedAsItIs() async throws {
        let editing = try Editing(SeededGenerator(), diskMegabytes: 40), whole = Manifest.maximumChunkByteCount
        try editing.write(0, 5 << 20)
        let ballast = editing.folder + "/ballast", file = open(ballast, O_WRONLY | O_CREAT, 0o600), zeros = [UInt8](repeating: 0, count: 1 << 20)
        while Glibc.write(file, zeros, zeros.count) > 0 {}
        #expect(ftruncate(file, lseek(file, 0, SEEK_END) - 2 << 20) == 0)
        close(file)
        try editing.cut()
        #expect(try #require(try await editing.answer()).chunks.map { Int($0.length) } == [whole, 1 << 20])
        try editing.check()
        try editing.restart()
        try editing.check()
        try editing.end()
    }

    /// Where no chunk is left there is no manifest either: the rows alone tell where slots begin.
    @Test func bordersOutliveTheChunks() throws {
        let editing = try Editing(SeededGenerator())
        try editing.write(0, 4 << 20)
        func slots<T>(_ body: (FileContent) -> T) throws -> T {
            let file = try editing.file()
            return file.lock.withLock { body(file) }
        }
        try slots { file in
            let edited = 64 << 10, half = 2 << 20, parts = [half, edited, half - edited]
            file.discard(file.slots[0])
            file.slots.replace(0, by: parts.map { ChunkReference(hash: SHA256.hash([UInt8($0 >> 16)]), length: UInt32($0)) })
        }
        try editing.write(0, 4 << 20)
        #expect(try slots { $0.slots.count { $0.segment != nil } } == 3)
        for _ in 0..<2 {
            try editing.restart()
            try editing.check()
            #expect(try editing.file().slots.cuts.count == 2)
        }
        try editing.end()
    }

    /// However often other places are edited, 4 MiB have 16 chunks at most.
    @Test func aFileDoesNotFallApart() async throws {
        let editing = try Editing(SeededGenerator())
        try editing.write(0, 8 << 20)
        for _ in 0..<40 {
            try editing.write(editing.draw(0..<8 << 20 - 5000), 4096)
            try editing.cut()
            try await editing.answer()
        }
        let slots = try editing.file().slots
        #expect(slots.count > 20 && slots.count <= 32)
        #expect(slots.indices.allSatisfy { slots.end($0) - slots.start($0) >= Patch.grainBytes })
        try editing.check()
        try editing.restart()
        try editing.check()
        #expect(try editing.file().slots.cuts == slots.cuts)
        try editing.end()
    }

    /// A write over a whole slot needs nothing of what is there; if it fails, on a full disk or for want of the next slot's chunk, that is there yet.
    @Test(arguments: [false, true]) func aWriteThatFailsTakesNothingAway(isDiskFull: Bool) async throws {
        let editing = try Editing(SeededGenerator(), diskMegabytes: isDiskFull ? 40 : nil), cache = editing.tree.cache
        try editing.write(0, 8 << 20)
        try editing.cut()
        let chunks = try #require(try await editing.answer()).chunks, ballast = editing.folder + "/ballast"
        if isDiskFull {
            for chunk in chunks { cache.claimUnsent(chunk.hash) }
            let file = open(ballast, O_WRONLY | O_CREAT, 0o600), zeros = [UInt8](repeating: 0, count: 1 << 20)
            while Glibc.write(file, zeros, zeros.count) > 0 {}
            close(file)
        } else {
            cache.dropClean(except: Set(chunks.dropLast().map(\.hash)))
        }
        let before = editing.bytes
        #expect(throws: FileSystemError.self) { try editing.write(0, isDiskFull ? 4 << 20 : 6 << 20) }
        if isDiskFull { #expect(throws: FileSystemError.self) { try editing.write(4 << 20, 9 << 20) } }
        let slots = try editing.file().slots
        #expect(slots.count == 3 && slots.compactMap(\.chunk) == chunks)
        editing.bytes = Array(before.prefix(4_000_000))
        #expect(try editing.read(editing.handle).starts(with: editing.bytes))
        unlink(ballast)
        try editing.write(0, 8 << 20)
        try editing.check()
        cache.markSent(chunks.map(\.hash))
        try editing.end()
    }

    /// Format 6: rows named slots by number.
    @Test(arguments: [false, true]) func aReplicaOfTheFormatBeforeIsRead(isDamaged: Bool) throws {
        let editing = try Editing(SeededGenerator())
        try editing.write(0, 9_000_000)
        try editing.system!.flush(editing.handle)
        try editing.end()
        try DatabaseQueue(path: editing.folder + "/replica.db").writeWithoutTransaction { try $0.execute(sql: "\(LocalReplica.undoFormat7); PRAGMA user_version = 6") }
        guard !isDamaged else { return try repair(editing) }
        editing.system = try LocalReplica.open(editing.folder, editing.namespace, isNew: false)
        editing.handle = try editing.system!.open(editing.inode, flags: O_RDWR, caller: editing.caller).handle
        try editing.check()
        try editing.end()
    }

    private func repair(_ editing: Editing) throws {
        let database = editing.folder + "/replica.db"
        let page = try #require(try DatabaseQueue(path: database).read {
            try Row.fetchOne($0, sql: "SELECT (rootpage - 1) * page_size, page_size FROM sqlite_master, pragma_page_size WHERE name = 'entries_inode'")
        })
        let file = open(database, O_WRONLY), noise = [UInt8](repeating: 0xAA, count: Int(page[1] as Int64))
        #expect(pwrite(file, noise, noise.count, off_t(page[0] as Int64)) == noise.count)
        close(file)
        let report = try ReplicaRepair.run(editing.folder) { _ in [] }
        #expect(report.damage != nil && report.kept == ["f"], "\(report)")
        let kept = FileManager.default.contents(atPath: "\(try #require(report.rescue))/f")
        #expect(kept.map { Array($0) == editing.bytes } == true)
    }
}
