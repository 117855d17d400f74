import Foundation
import Testing
@testable import Server

@Suite struct SQLiteStoreTests {
    private struct Refusal: Error {}

    private func synchronous(_ store: SQLiteStore) async throws -> Int64? {
        try await store.write(.synced) { try $0.first("PRAGMA synchronous", [])?.int(0) }
    }

    /// `PRAGMA synchronous` answers 1 for NORMAL and 2 for FULL.
    @Test func orderedWritesLeaveTheOthersSynced() async throws {
        let folder = NSTemporaryDirectory() + "boxfs-store-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let store = try SQLiteStore(path: folder + "/db")
        #expect(try await synchronous(store) == 2)
        #expect(try await store.write(.ordered) { try $0.first("PRAGMA synchronous", [])?.int(0) } == 1)
        #expect(try await synchronous(store) == 2)
        await #expect(throws: Refusal.self) { try await store.write(.ordered) { _ in throw Refusal() } }
        #expect(try await synchronous(store) == 2)
    }

    @Test(arguments: [Durability.synced, .ordered]) func aBodyThatThrowsLeavesNothing(_ durability: Durability) async throws {
        let folder = NSTemporaryDirectory() + "boxfs-store-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let store = try SQLiteStore(path: folder + "/db")
        try await store.write(.synced) { try $0.execute("CREATE TABLE t (a INTEGER)", []) }
        await #expect(throws: Refusal.self) {
            try await store.write(durability) { sql in
                try sql.execute("INSERT INTO t (a) VALUES ($1)", [.integer(1)])
                throw Refusal()
            }
        }
        #expect(try await store.read { try $0.first("SELECT count(*) FROM t", [])?.int(0) } == 0)
    }
}
