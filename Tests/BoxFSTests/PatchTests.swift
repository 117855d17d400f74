import ChunkCache
import Foundation
import Glibc
import GRDB
import Shared
import Testing
@testable import BoxFS

/// Patches and the logs of their pieces, against arrays of bytes; a failure prints the writes.
@Suite struct PatchTests {
    private let folder = FileManager.default.temporaryDirectory.path + "/boxfs-patch-\(UUID().uuidString)"

    private func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 1...255) } }

    @Test func showsWhatWasWritten() {
        for _ in 0..<300 {
            let store = SegmentStore(directory: "/nonexistent", firstFile: 1)
            var slot = [UInt8](repeating: 0, count: 1000), written: [UInt8] = []
            var patch = Patch(base: Segment(file: 1, length: 1000, store: store), log: Segment(file: 2, length: 0, store: store))
            var ranges: [Range<Int>] = []
            for _ in 1...60 {
                let start = Int.random(in: 0..<1000), range = start..<min(1000, start + Int.random(in: 1...80))
                ranges.append(range)
                let bytes = bytes(range.count)
                slot.replaceSubrange(range, with: bytes)
                patch.put(PieceRecord(base: 1, range: range, time: .now(), position: written.count))
                written += bytes
                #expect(patch.newest == written.count)
                var shown = [UInt8](repeating: 0, count: 1000), end = 0
                for piece in patch.pieces {
                    #expect(piece.start >= end && piece.count > 0, "\(ranges)")
                    end = piece.end
                    shown.replaceSubrange(piece.range, with: written[piece.position..<piece.position + piece.count])
                }
                #expect(shown == slot, "\(ranges)")
                let asked = Int.random(in: 0..<900), part = asked..<asked + 100
                #expect(Array(patch.pieces(in: part)) == patch.pieces.filter { $0.range.overlaps(part) }, "\(ranges), asked \(part)")
            }
        }
    }

    /// However a log is cut or damaged, it tells of all records before that, and of no other.
    @Test func aLogTellsWhatIsWhole() throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        for round in 0..<100 {
            let path = folder + "/log\(round)", file = open(path, O_RDWR | O_CREAT, 0o600)
            defer { close(file) }
            var records: [PieceRecord] = [], length = 0
            for _ in 0..<Int.random(in: 1...20) {
                let start = Int.random(in: 0..<100_000), bytes = bytes(Int.random(in: 1...300))
                let record = PieceRecord(
                    base: Int64.random(in: 1...3), range: start..<start + bytes.count, time: .now(), position: length + PieceRecord.headByteCount)
                try bytes.withUnsafeBytes { try record.write($0, to: file) }
                records.append(record)
                length = record.end
            }
            #expect(all(path) == records)
            let at = Int.random(in: 0..<length)
            if Bool.random() {
                #expect(ftruncate(file, off_t(at)) == 0)
            } else {
                var byte: UInt8 = 0
                #expect(pread(file, &byte, 1, off_t(at)) == 1)
                byte ^= 1 << UInt8.random(in: 0..<8)
                #expect(pwrite(file, &byte, 1, off_t(at)) == 1)
            }
            #expect(all(path) == records.filter { $0.end <= at }, "cut or damaged at \(at)")
        }
        #expect(PieceRecord.readAll(folder + "/none").end == 0)
    }

    private func all(_ path: String) -> [PieceRecord] { PieceRecord.readAll(path).byBase.values.flatMap { $0 }.sorted { $0.position < $1.position } }

    // MARK: In a replica

    private let caller = Caller(uid: 0, gid: 0, pid: 1, umask: 0)

    private func mount(_ namespace: NamespaceID, isNew: Bool = false) throws -> MountedFileSystem {
        try LocalReplica.open(folder, namespace, isNew: isNew)
    }

    private func text(_ system: MountedFileSystem) throws -> [UInt8] {
        let open = try system.open(system.lookup(.root, "f").inode, flags: O_RDONLY, caller: caller)
        defer { system.release(open.handle) }
        return ResidentInodesTests.bytes(try system.read(open.handle, offset: 0, count: 1 << 20))
    }

    /// A file of 300,000 bytes whose slot a commit froze, and 50 small writes over it.
    private func patchedFile(_ namespace: NamespaceID) throws -> (MountedFileSystem, InodeNumber, [UInt8]) {
        let system = try mount(namespace, isNew: true)
        let (attributes, open) = try system.create(.root, "f", mode: 0o644, flags: O_RDWR, caller: caller)
        var content = bytes(300_000)
        try content.withUnsafeBytes { try system.write(open.handle, offset: 0, $0) }
        try system.flush(open.handle)
        let file = try #require(system.tree.inodes[attributes.inode]?.file)
        file.lock.withLock { file.slots[0].segment?.isFrozen = true }
        for _ in 0..<50 {
            let at = Int.random(in: 0..<299_000), piece = bytes(Int.random(in: 1...1000))
            content.replaceSubrange(at..<at + piece.count, with: piece)
            try piece.withUnsafeBytes { try system.write(open.handle, offset: Int64(at), $0) }
        }
        try system.flush(open.handle)
        #expect(file.lock.withLock { file.slots[0].segment?.patch?.pieces.count ?? 0 } > 10)
        system.release(open.handle)
        return (system, attributes.inode, content)
    }

    /// The rows stay as they were before; the log's records alone tell of the writes and of their time.
    @Test func theLogTellsWhatNoRowDoes() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let namespace = NamespaceID.make()
        var system: MountedFileSystem?, content: [UInt8], inode: InodeNumber
        (system, inode, content) = try patchedFile(namespace)
        try LocalReplica.close(&system)
        system = try mount(namespace)
        #expect(try text(system!) == content)
        let times = try system!.getattr(inode)
        try LocalReplica.close(&system)
        // As a process leaves it that is killed after fsync(2).
        let (base, log) = try DatabaseQueue(path: folder + "/replica.db").read { database in
            let row = try #require(try Row.fetchOne(database, sql: "SELECT base, file FROM segments"))
            return (row[0] as Int64, row[1] as Int64)
        }
        let path = folder + "/dirty/\(log)", late = times.modified.adding(seconds: 5), piece = bytes(100), file = open(path, O_RDWR)
        defer { close(file) }
        func add(_ start: Int) throws {
            let record = PieceRecord(base: base, range: start..<start + 100, time: late, position: PieceRecord.readAll(path).end + PieceRecord.headByteCount)
            try piece.withUnsafeBytes { try record.write($0, to: file) }
        }
        try add(5_000)
        content.replaceSubrange(5_000..<5_100, with: piece)
        try add(299_950)        // beyond the end: half of it was never answered
        content.replaceSubrange(299_950..<300_000, with: piece.prefix(50))
        for _ in 0..<2 {
            system = try mount(namespace)
            #expect(try text(system!) == content)
            #expect(try system!.getattr(inode).modified == late)
            _ = try system!.setattr(inode, AttributeChanges(size: 300_100), handle: nil, caller: caller)
            #expect(try text(system!) == content + [UInt8](repeating: 0, count: 100), "nothing shows up behind the end")
            _ = try system!.setattr(inode, AttributeChanges(size: 300_000, modified: .at(late)), handle: nil, caller: caller)
            try LocalReplica.close(&system)
        }
    }

    /// A power cut may take a log that nothing was synced of.
    @Test func aLostLogBeginsAnew() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let namespace = NamespaceID.make()
        var system: MountedFileSystem?, inode: InodeNumber
        (system, inode, _) = try patchedFile(namespace)
        try LocalReplica.close(&system)
        let log = try DatabaseQueue(path: folder + "/replica.db").read { try Int64.fetchOne($0, sql: "SELECT file FROM segments") }
        #expect(unlink(folder + "/dirty/\(try #require(log))") == 0)
        system = try mount(namespace)
        var content = try text(system!)
        let open = try system!.open(inode, flags: O_RDWR, caller: caller), piece = bytes(500)
        try piece.withUnsafeBytes { try system!.write(open.handle, offset: 7, $0) }
        try system!.fsync(open.handle, dataOnly: false)
        system!.release(open.handle)
        content.replaceSubrange(7..<507, with: piece)
        for _ in 0..<2 {
            #expect(try text(system!) == content)
            try LocalReplica.close(&system)
            system = try mount(namespace)
        }
    }

    /// Format 3: rows named the pieces, of which the log held the bytes alone.
    @Test func aReplicaOfTheFormatBeforeIsRead() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let namespace = NamespaceID.make()
        var system: MountedFileSystem?, content: [UInt8], inode: InodeNumber
        (system, inode, content) = try patchedFile(namespace)
        let pieces = try #require(system!.tree.inodes[inode]?.file?.slots[0].segment?.patch?.pieces)
        try LocalReplica.close(&system)
        try DatabaseQueue(path: folder + "/replica.db").writeWithoutTransaction { database in
            let log = folder + "/dirty/\(try #require(try Int64.fetchOne(database, sql: "SELECT file FROM segments")))"
            let records = try #require(FileManager.default.contents(atPath: log))
            var old = Data(), packed = Data()
            for piece in pieces {
                for number in [piece.start, piece.count, old.count] { withUnsafeBytes(of: UInt32(number).littleEndian) { packed.append(contentsOf: $0) } }
                old += records[piece.position..<piece.position + piece.count]
            }
            try old.write(to: URL(fileURLWithPath: log))
            try database.execute(sql: "\(LocalReplica.undoFormat6); ALTER TABLE segments DROP COLUMN known; ALTER TABLE segments DROP COLUMN bytes; ALTER TABLE segments ADD COLUMN pieces BLOB; PRAGMA user_version = 3")
            try database.execute(sql: "UPDATE segments SET pieces = ?", arguments: [packed])
        }
        for round in 0..<3 {
            system = try mount(namespace)
            #expect(try text(system!) == content, "round \(round)")
            let open = try system!.open(inode, flags: O_RDWR, caller: caller), piece = bytes(500)
            try piece.withUnsafeBytes { try system!.write(open.handle, offset: Int64(10_000 * round), $0) }
            content.replaceSubrange(10_000 * round..<10_000 * round + 500, with: piece)
            try system!.flush(open.handle)
            system!.release(open.handle)
            try LocalReplica.close(&system)
        }
    }
}
