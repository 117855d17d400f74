import Foundation
import Glibc
import GRDB
import Shared
import Testing
import TestSupport
@testable import BoxFS

/// Processes that die with a transaction open: what was closed is there for the next one, once, and all of it or nothing.
@Suite struct StatementJournalTests {
    private let folder = FileManager.default.temporaryDirectory.path + "/boxfs-journal-\(UUID().uuidString)", namespace = NamespaceID.make()
    private let caller = Caller(uid: 0, gid: 0, pid: 1, umask: 0)
    private var journal: String { folder + "/replica.db-statements" }

    private func opened(isNew: Bool = false) throws -> MountedFileSystem { try LocalReplica.open(folder, namespace, isNew: isNew) }

    private func die(_ system: inout MountedFileSystem?) throws { try LocalReplica.close(&system, commits: false) }

    private func write(_ system: MountedFileSystem, _ name: String, _ bytes: [UInt8], closes: Bool = true) throws {
        let handle: HandleID
        if let inode = try? system.lookup(.root, name).inode {
            handle = try system.open(inode, flags: O_RDWR | O_TRUNC, caller: caller).handle
        } else {
            handle = try system.create(.root, name, mode: 0o644, flags: O_RDWR, caller: caller).1.handle
        }
        try bytes.withUnsafeBytes { try system.write(handle, offset: 0, $0) }
        guard closes else { return }
        try system.flush(handle)
        system.release(handle)
    }

    private func read(_ system: MountedFileSystem, _ name: String) throws -> [UInt8]? {
        guard let inode = try? system.lookup(.root, name).inode else { return nil }
        let handle = try system.open(inode, flags: O_RDONLY, caller: caller).handle
        defer { system.release(handle) }
        return try system.readBytes(system.read(handle, offset: 0, count: 1 << 20), count: 1 << 20)
    }

    private func records(_ system: MountedFileSystem) throws -> [String] {
        try system.tree.database.read { try String.fetchAll($0, sql: "SELECT id || ' ' || kind || ' ' || inode FROM log ORDER BY id") }
    }

    @Test func whatWasClosedIsThereAndTheRestIsNot() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var system: MountedFileSystem? = try opened(isNew: true), wrote: [String: [UInt8]] = [:], random = SeededGenerator("journal")
        // Enough to end transactions on the way: files of every kind of row.
        for index in 0..<150 {
            wrote["f\(index % 90)"] = random.bytes([0, 5, 4096, 16_384, 70_000].randomElement(using: &random)!)
            try write(system!, "f\(index % 90)", wrote["f\(index % 90)"]!)
            if index % 7 == 3 {
                try system!.rename(.root, "f\(index % 90)", .root, "r\(index)", flags: 0, caller: caller)
                wrote["r\(index)"] = wrote.removeValue(forKey: "f\(index % 90)")
            }
        }
        try write(system!, "last", [1, 2, 3])
        wrote["last"] = [1, 2, 3]
        let log = try records(system!), modified = try system!.getattr(.root).modified
        try write(system!, "open", [4], closes: false)
        try system!.unlink(.root, "last", caller: caller)
        try die(&system)
        for _ in 0..<2 {        // the second time there is nothing to do
            system = try opened()
            for (name, bytes) in wrote { #expect(try read(system!, name) == bytes, "\(name)") }
            #expect(try read(system!, "open") == nil, "nobody closed it")
            #expect(try records(system!) == log && system!.getattr(.root).modified == modified)
            try LocalReplica.close(&system)
        }
    }

    /// It is the journal that does it.
    @Test func withoutTheJournalItWouldBeGone() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var system: MountedFileSystem? = try opened(isNew: true)
        try write(system!, "f", [1])
        try die(&system)
        unlink(journal)
        system = try opened()
        #expect(try read(system!, "f") == nil)
        try die(&system)
    }

    /// A record that is not whole ends it; one of a transaction that has ended counts for nothing.
    @Test(arguments: 0..<12) func aRecordCountsOnceOrNotAtAll(_ round: Int) throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var random = SeededGenerator("records of round \(round)")
        var system: MountedFileSystem? = try opened(isNew: true), ends: [Int] = []
        let count = Int.random(in: 1...12, using: &random)
        for index in 0..<count {
            try write(system!, "f\(index)", [UInt8(index)])
            ends.append(try Data(contentsOf: URL(fileURLWithPath: journal)).count)
        }
        let kept = try Data(contentsOf: URL(fileURLWithPath: journal)), log = try records(system!)
        if round.isMultiple(of: 2) {
            try die(&system)
            // A bit is another one, as of a page that a power cut kept from before.
            var damaged = kept
            let place = Int.random(in: 0..<damaged.count, using: &random)
            damaged[place] ^= UInt8(1 << Int.random(in: 0..<8, using: &random))
            try damaged.write(to: URL(fileURLWithPath: journal))
            system = try opened()
            for index in 0..<count { #expect(try read(system!, "f\(index)") == (ends[index] <= place ? [UInt8(index)] : nil)) }
        } else {
            try system!.tree.lock.withLock { () throws(FileSystemError) in try system!.tree.commit() }
            try die(&system)
            try kept.write(to: URL(fileURLWithPath: journal))
            system = try opened()
            for index in 0..<count { #expect(try read(system!, "f\(index)") == [UInt8(index)]) }
            #expect(try records(system!) == log)
        }
        try LocalReplica.close(&system)
    }

    /// A change that the journal does not have makes the next close end the transaction.
    @Test func aChangeThatNobodyNotedEndsTheTransaction() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var system: MountedFileSystem? = try opened(isNew: true)
        try write(system!, "f", [1])
        try system!.tree.lock.withLock { () throws(FileSystemError) in
            try system!.tree.change { try $0.database.execute(sql: "INSERT INTO meta (key, value) VALUES ('other', 7)") }
        }
        try write(system!, "g", [2])
        try die(&system)
        unlink(journal)
        system = try opened()
        #expect(try read(system!, "f") == [1] && read(system!, "g") == [2])
        #expect(try system!.tree.meta("other") == "7")
        try LocalReplica.close(&system)
    }

    /// Of a database that is damaged, what was closed last is put together as well.
    @Test func aRepairHasWhatTheJournalHolds() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var system: MountedFileSystem? = try opened(isNew: true)
        try LocalReplica.close(&system)
        system = try opened()
        try write(system!, "f", [1, 2, 3])
        try die(&system)
        let database = folder + "/replica.db"
        let page = try #require(try DatabaseQueue(path: database).read {
            try Row.fetchOne($0, sql: "SELECT (rootpage - 1) * page_size, page_size FROM sqlite_master, pragma_page_size WHERE name = 'entries_inode'")
        })
        let file = Glibc.open(database, O_WRONLY), noise = [UInt8](repeating: 0xAA, count: Int(page[1] as Int64))
        #expect(pwrite(file, noise, noise.count, off_t(page[0] as Int64)) == noise.count)
        close(file)
        let report = try ReplicaRepair.run(folder) { _ in [] }
        let rescue = try #require(report.rescue), name = try #require((report.kept + report.incomplete).first)
        #expect(FileManager.default.contents(atPath: "\(rescue)/\(name)").map { Array($0) } == [1, 2, 3], "\(report)")
        let aside = try #require(report.aside)
        #expect(access(aside + "/replica.db-statements", F_OK) == 0)
    }

    /// A call that fails takes back what it noted.
    @Test func whatWasTakenBackIsNotExecuted() throws {
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var system: MountedFileSystem? = try opened(isNew: true)
        try system!.tree.lock.withLock { () throws(FileSystemError) in
            #expect(throws: FileSystemError.self) {
                try system!.tree.change { rows in
                    try rows.execute(sql: "INSERT INTO meta (key, value) VALUES ('other', 7)")
                    throw FileSystemError.noSpace
                }
            }
            // Values of every kind.
            try system!.tree.change { try $0.execute(sql: "INSERT INTO meta (key, value) VALUES ('kinds', quote(?) || quote(?) || quote(?) || quote(?) || quote(?))", arguments: [nil, -5, 1.5, "a'ä", Data([0, 255])]) }
        }
        try write(system!, "f", [1])
        try die(&system)
        system = try opened()
        #expect(try system!.tree.meta("other") == nil && read(system!, "f") == [1])
        #expect(try system!.tree.meta("kinds") == "NULL-51.5'a''ä'X'00FF'")
        try LocalReplica.close(&system)
    }
}
