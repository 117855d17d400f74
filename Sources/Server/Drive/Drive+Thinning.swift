import Foundation
import Shared

/// Which versions of a file may go.
enum Retention {
    /// All of the first period stay, then the last of each hour, then the last of each day, then none.
    ///
    /// - Parameter versions: of one file, without the current one and named ones, in order of time.
    /// - Returns: those that may go.
    static func expired(_ versions: [(id: VersionID, created: Timestamp)], now: Timestamp, _ settings: RetentionSettings) -> [VersionID] {
        var expired: [VersionID] = []
        var later: (period: Int64, seconds: Int64)?
        for version in versions.reversed() {
            let seconds = Self.period(age: (now.nanoseconds - version.created.nanoseconds) / 1_000_000_000, settings)
            guard let seconds else {
                expired.append(version.id)
                continue
            }
            guard seconds > 0 else { continue }
            let period = version.created.nanoseconds / 1_000_000_000 / seconds
            if let later, later.period == period, later.seconds == seconds { expired.append(version.id) } else { later = (period, seconds) }
        }
        return expired
    }

    /// One version stays in so many seconds; 0: all, nil: none.
    private static func period(age: Int64, _ settings: RetentionSettings) -> Int64? {
        if age < settings.allSeconds { return 0 }
        if age < settings.hourlySeconds { return 3600 }
        return age < settings.dailySeconds ? 86_400 : nil
    }
}

struct ThinningReport: Codable, Sendable {
    var versions = 0, purged = 0
    var bytes: UInt64 = 0
}

extension Drive {
    /// Versions that others took the place of stay so long for merges, and files that lived less than a minute so long in the trash, seconds.
    static let transientSeconds: Int64 = 3600
    private static let nodesAtOnce = 500

    /// Drops versions that retention lets go, and what has been in the trash too long. The chunks go with the next `collectGarbage`.
    ///
    /// Works in steps of a few hundred files, each a transaction of its own: commits go on beside it.
    func thin() async throws(DriveError) -> ThinningReport {
        let time = now()
        var report = ThinningReport()
        let namespaces = try await read { sql in try sql.query("SELECT id FROM namespaces", []).map { try $0.id(0, NamespaceTag.self) } }
        for namespace in namespaces {
            let settings = try await read { try Self.retention($0, namespace) }
            var after = NodeID(high: 0, low: 0)
            while true {
                let from = after
                let (nodes, expired) = try await read { try Self.expired($0, namespace, from, time, settings) }
                if !expired.isEmpty {
                    let bytes = try await write { try Self.drop($0, namespace, expired) }
                    report.versions += expired.count
                    report.bytes += bytes
                }
                guard nodes.count == Self.nodesAtOnce, let last = nodes.last else { break }
                after = last
            }
            while true {
                let nodes = try await read { try Self.overdue($0, namespace, time, settings) }
                guard !nodes.isEmpty else { break }
                let answer = try await write { try Self.purge($0, namespace, nodes, time) }
                report.purged += nodes.count
                report.bytes += answer.bytes
            }
        }
        try await write(.ordered) { try Self.forget($0, time) }
        return report
    }

    /// The next files with more than one version, and what may go of them.
    private static func expired(
        _ sql: any SQLConnection, _ namespace: NamespaceID, _ after: NodeID, _ time: Timestamp, _ settings: RetentionSettings
    ) throws -> (nodes: [NodeID], versions: [VersionID]) {
        let nodes = try sql.query("""
            SELECT id FROM nodes WHERE namespace = $1 AND id > $2 AND version IS NOT NULL
            AND (SELECT count(*) FROM versions v WHERE v.node = nodes.id) > 1 ORDER BY id LIMIT $3
            """, [.id(namespace), .id(after), .int(nodesAtOnce)]).map { try $0.id(0, NodeTag.self) }
        let transient = time.adding(seconds: -transientSeconds)
        var expired: [VersionID] = []
        for node in nodes {
            var plain: [(id: VersionID, created: Timestamp)] = []
            for row in try sql.query("""
                SELECT v.id, v.created, v.superseded FROM versions v JOIN nodes n ON n.id = v.node
                WHERE v.node = $1 AND v.id <> n.version AND v.name IS NULL AND NOT EXISTS (SELECT 1 FROM event_changes c WHERE c.version = v.id)
                AND NOT EXISTS (SELECT 1 FROM recent_changes r WHERE r.version = v.id) ORDER BY v.created, v.id
                """, [.id(node)]) {
                if row.isNull(2) { plain.append((try row.id(0), row.time(1))) } else if row.time(2) < transient { expired.append(try row.id(0)) }
            }
            expired += Retention.expired(plain, now: time, settings)
        }
        return (nodes, expired)
    }

    private static func drop(_ sql: any SQLConnection, _ namespace: NamespaceID, _ versions: [VersionID]) throws -> UInt64 {
        let ledger = ChunkLedger(sql, namespace)
        for version in versions {
            // Between the reading and now it may have become the current one's equal, or got a name.
            guard try sql.first("""
                SELECT 1 FROM versions v JOIN nodes n ON n.id = v.node WHERE v.id = $1 AND v.name IS NULL AND n.version <> v.id
                """, [.id(version)]) != nil else { continue }
            try ledger.drop(version)
        }
        let usedChange = try ledger.settle()
        try sql.execute("UPDATE namespaces SET used = used + $1 WHERE id = $2", [.integer(usedChange), .id(namespace)])
        return UInt64(max(0, -usedChange))
    }

    /// What has been in the trash too long: for files that lived less than a minute that is an hour, unless a mass change can be undone.
    private static func overdue(_ sql: any SQLConnection, _ namespace: NamespaceID, _ time: Timestamp, _ settings: RetentionSettings) throws -> [NodeID] {
        try sql.query("""
            SELECT id FROM nodes WHERE namespace = $1 AND deleted_at IS NOT NULL AND purged_at IS NULL AND (deleted_at <= $2 OR deleted_at <= $3
            AND deleted_at - arrived BETWEEN 0 AND 59999999999 AND NOT EXISTS (SELECT 1 FROM event_changes c WHERE c.node = nodes.id)) LIMIT $4
            """, [.id(namespace), .time(time.adding(seconds: -settings.trashSeconds)),
                  .time(time.adding(seconds: -min(transientSeconds, settings.trashSeconds))), .int(nodesAtOnce)]).map { try $0.id(0) }
    }

    /// Rows that only help to undo, once nobody can any more.
    private static func forget(_ sql: any SQLConnection, _ time: Timestamp) throws {
        try sql.execute("DELETE FROM recent_changes WHERE time < $1", [.time(time.adding(seconds: -86_400))])
        let month = SQLValue.time(time.adding(seconds: -30 * 86_400))
        try sql.execute("DELETE FROM event_changes WHERE event IN (SELECT id FROM events WHERE last < $1)", [month])
        try sql.execute("DELETE FROM events WHERE last < $1", [month])
        try sql.execute("DELETE FROM conflicts WHERE resolved_at < $1", [month])
        // Where things were longer ago than the longest history.
        try sql.execute("DELETE FROM entries WHERE sequence = 0 AND deleted_at < $1", [.time(time.adding(seconds: -100 * 86_400))])
    }
}
