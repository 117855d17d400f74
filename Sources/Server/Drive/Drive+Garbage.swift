import Foundation
import Shared

struct GarbageReport: Codable, Sendable {
    /// What was removed; `compacted` objects were written anew without what was dead in them.
    var uploads = 0, pages = 0, chunks = 0, objects = 0, compacted = 0
    var bytes: UInt64 = 0
}

extension Drive {
    /// Frees what no version refers to, no live upload leases, and nothing touched for `graceSeconds`; and makes mostly dead objects smaller.
    ///
    /// Crash order: 1. rows of chunks go, in one transaction that sees every lease; 2. objects that no row names are removed. A crash
    /// between leaves objects without rows, which the next run finds.
    ///
    /// - Parameter pauseSeconds: before an object is removed it is looked at again after this time. Its rows come within seconds after it was
    ///   written, and its age proves nothing if the clock was set meanwhile.
    func collectGarbage(graceSeconds: Int64, pauseSeconds: Int64 = 0) async throws(DriveError) -> GarbageReport {
        let time = now()
        let before = Timestamp(nanoseconds: time.nanoseconds - graceSeconds * 1_000_000_000)
        var report = try await write { sql -> GarbageReport in
            var report = GarbageReport()
            for row in try sql.query("SELECT id FROM uploads WHERE expires < $1", [.time(time)]) {
                try Self.dropUpload(sql, try row.id(0))
                report.uploads += 1
            }
            report.pages = try sql.execute("""
                DELETE FROM manifest_pages WHERE reference_count = 0 AND NOT EXISTS (SELECT 1 FROM upload_pages u WHERE u.hash = manifest_pages.hash)
                """, [])
            report.chunks = try sql.execute("""
                DELETE FROM chunks WHERE reference_count = 0 AND arrived < $1
                AND NOT EXISTS (SELECT 1 FROM upload_chunks u WHERE u.hash = chunks.hash AND u.is_stored = 1)
                """, [.time(before)])
            try sql.execute("DELETE FROM objects WHERE arrived < $1 AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.object = objects.name)", [.time(before)])
            let week = Timestamp(nanoseconds: time.nanoseconds - 7 * 86_400 * 1_000_000_000)
            try sql.execute("DELETE FROM commits WHERE created < $1", [.time(week)])
            return report
        }
        report.compacted = try await compact(before: before)
        do {
            let unnamed = try await self.unnamed(chunks.objects().filter { $0.modified < before })
            guard !unnamed.isEmpty else { return report }
            if pauseSeconds > 0 { try await Task.sleep(for: .seconds(pauseSeconds)) }
            for object in try await self.unnamed(unnamed) {
                try await chunks.remove(object: object.name)
                report.objects += 1
                report.bytes += object.byteCount
            }
        } catch { throw Self.translated(error) }
        return report
    }

    /// Those of which no row speaks.
    private func unnamed(_ objects: [StoredObject]) async throws -> [StoredObject] {
        var found: [StoredObject] = []
        for object in objects {
            if try await read({ try $0.first("SELECT 1 FROM objects WHERE name = $1", [.text(object.name)]) }) == nil { found.append(object) }
        }
        return found
    }
}
