import Shared

/// Notices when one device removes or rewrites many files of a folder in a short time (ransomware, `rm -rf`, a broken script), and keeps what
/// it takes to undo that in one step.
///
/// Each change's state before it lies in `recent_changes` for the time of the window. When the threshold is passed, the folder's changes go to
/// `event_changes`, and later ones of the same device within the folder go there at once, until the device has been quiet for a window. So
/// long, a tenth of the files elsewhere is enough to be counted in: `rm -rf *` goes from folder to folder.
final class MassChangeGuard {
    enum Kind: String { case removed, rewritten, moved, removedDirectory = "removed-directory" }
    private struct Event { var id: EventID, folder: NodeID }

    private let sql: any SQLConnection
    private let session: Session
    private let namespace: NamespaceID
    private let settings: NamespaceSettings
    private let time: Timestamp
    private let event: Event?
    private var newCount = 0, hasEventChanges = false

    /// nil where the settings want no guard.
    init?(_ sql: any SQLConnection, _ session: Session, _ namespace: NamespaceID, _ settings: NamespaceSettings, _ time: Timestamp) throws {
        guard settings.guardFiles > 0 else { return nil }
        (self.sql, self.session, self.namespace, self.settings, self.time) = (sql, session, namespace, settings, time)
        event = try sql.first("""
            SELECT id, folder FROM events WHERE namespace = $1 AND last > $2 AND device = $3 AND last <= $4 AND undone_at IS NULL ORDER BY last DESC LIMIT 1
            """, [.id(namespace), .time(time.adding(seconds: -settings.guardSeconds)), .id(session.device), .time(time)]).map {
            Event(id: try $0.id(0), folder: try $0.id(1))
        }
    }

    /// Remembers what a node was before the change: the first in the window counts.
    func record(_ kind: Kind, _ row: NodeRow, at place: Committer.LiveEntry) throws {
        if let event, try ancestors(of: place.parent).contains(event.folder) {
            hasEventChanges = true
            try sql.execute("""
                INSERT INTO event_changes (event, node, parent, name, version, kind) VALUES ($1, $2, $3, $4, $5, $6)
                ON CONFLICT (event, node) DO UPDATE SET kind = excluded.kind WHERE event_changes.kind = 'moved'
                OR event_changes.kind = 'rewritten' AND excluded.kind = 'removed'
                """, [.id(event.id), .id(row.id), .id(place.parent), .text(place.name), .id(row.version), .text(kind.rawValue)])
            return
        }
        // An older row than the window's start says what was before another window, one from the future (the clock was set back) too; one of
        // this window keeps its state.
        let start = SQLValue.time(time.adding(seconds: -settings.guardSeconds))
        try sql.execute(
            "DELETE FROM recent_changes WHERE namespace = $1 AND device = $2 AND node = $3 AND (time < $4 OR time > $5)",
            [.id(namespace), .id(session.device), .id(row.id), start, .time(time)])
        try sql.execute("""
            INSERT INTO recent_changes (namespace, device, node, parent, name, version, kind, time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
            ON CONFLICT (namespace, device, node) DO UPDATE SET kind = excluded.kind WHERE recent_changes.kind = 'moved'
            OR recent_changes.kind = 'rewritten' AND excluded.kind = 'removed'
            """, [.id(namespace), .id(session.device), .id(row.id), .id(place.parent), .text(place.name), .id(row.version), .text(kind.rawValue), .time(time)])
        if kind == .removed || kind == .rewritten { newCount += 1 }
    }

    /// At the end of a commit, when the rows of nodes are written.
    func finish() throws {
        if hasEventChanges, let event { try sql.execute("UPDATE events SET last = $1 WHERE id = $2", [.time(time), .id(event.id)]) }
        guard newCount > 0 else { return }
        let device: [SQLValue] = [.id(namespace), .id(session.device), .time(time.adding(seconds: -settings.guardSeconds)), .time(time)]
        let count = try sql.first("""
            SELECT count(*) FROM recent_changes WHERE namespace = $1 AND device = $2 AND time >= $3 AND time <= $4 AND kind IN ('removed', 'rewritten')
            """, device)?.int(0) ?? 0
        let threshold = event == nil ? settings.guardFiles : settings.guardFiles / 10
        guard count > threshold, isDue(count) else { return }
        let rows = try sql.query("SELECT node, parent, kind, time FROM recent_changes WHERE namespace = $1 AND device = $2 AND time >= $3 AND time <= $4", device)
        var above: [NodeID: [NodeID]] = [:], counts: [NodeID: Int64] = [:]
        for row in rows where [Kind.removed.rawValue, Kind.rewritten.rawValue].contains(row.text(2)) {
            let parent: NodeID = try row.id(1)
            if above[parent] == nil { above[parent] = try ancestors(of: parent) }
            for folder in above[parent]! { counts[folder, default: 0] += 1 }
        }
        // The largest folder of which so much changed.
        for (folder, changed) in counts.sorted(by: { ($0.value, above[$1.key]?.count ?? 0) > ($1.value, above[$0.key]?.count ?? 0) }) {
            guard changed > threshold else { break }
            let removed = try rows.count { try $0.text(2) == Kind.removed.rawValue && above[try $0.id(1)]?.contains(folder) ?? false }
            guard try event != nil || changed * 100 > settings.guardPercent * (liveFiles(below: folder) + Int64(removed)) else { continue }
            // Within it, the folder where nearly all of it happened: what was done beside it stays out.
            let inner = try counts.filter { try $0.value * 10 >= changed * 9 && ancestors(of: $0.key).contains(folder) }
            return try raise(inner.max { (above[$0.key]?.count ?? 0, $1.value) < (above[$1.key]?.count ?? 0, $0.value) }?.key ?? folder, rows)
        }
    }

    /// Counting a folder's files takes a while: at each commit while there are few changes, then each time they grew by a twentieth.
    private func isDue(_ count: Int64) -> Bool {
        let step = max(1, count / 20)
        return count <= 4 * settings.guardFiles || count / step != (count - Int64(newCount)) / step
    }

    private func raise(_ folder: NodeID, _ rows: [SQLRow]) throws {
        let id = event?.id ?? .make()
        let folder = try event.map { try common(folder, $0.folder) } ?? folder
        var started = time
        for row in rows {
            guard try ancestors(of: try row.id(1)).contains(folder) else { continue }
            started = min(started, row.time(3))
            let key: [SQLValue] = [.id(namespace), .id(session.device), row.values[0]]
            try sql.execute("""
                INSERT INTO event_changes (event, node, parent, name, version, kind)
                SELECT $1, node, parent, name, version, kind FROM recent_changes WHERE namespace = $2 AND device = $3 AND node = $4
                ON CONFLICT (event, node) DO NOTHING
                """, [.id(id)] + key)
            try sql.execute("DELETE FROM recent_changes WHERE namespace = $1 AND device = $2 AND node = $3", key)
        }
        let path = SQLValue.text(try TreePath.path(sql, of: folder))
        guard event == nil else {
            try sql.execute("UPDATE events SET folder = $1, path = $2, last = $3 WHERE id = $4", [.id(folder), path, .time(time), .id(id)])
            return
        }
        try sql.execute("""
            INSERT INTO events (id, namespace, account, device, device_name, folder, path, started, last) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            """, [.id(id), .id(namespace), .id(session.account), .id(session.device), .text(session.deviceName), .id(folder),
                  path, .time(started), .time(time)])
        try Drive.audit(sql, time, session.account, device: session.deviceName, address: nil, "mass-change", namespace, detail: id.description)
    }

    // MARK: The tree

    private var known: [NodeID: [NodeID]] = [:]

    /// The folder and those above it, where they are or were last.
    private func ancestors(of folder: NodeID) throws -> [NodeID] {
        if let found = known[folder] { return found }
        let path = try TreePath.above(sql, folder).map(\.node)
        known[folder] = path
        return path
    }

    private func common(_ one: NodeID, _ other: NodeID) throws -> NodeID {
        let others = Set(try ancestors(of: other))
        return try ancestors(of: one).first(where: others.contains) ?? one
    }

    private func liveFiles(below folder: NodeID) throws -> Int64 {
        try sql.first("""
            WITH RECURSIVE below (id) AS (
                SELECT $1 UNION ALL
                SELECT e.node FROM below b JOIN entries e ON e.parent = b.id JOIN nodes n ON n.id = e.node
                WHERE e.deleted_at IS NULL AND (n.mode & 61440) = 16384)
            SELECT count(*) FROM below b JOIN entries e ON e.parent = b.id JOIN nodes n ON n.id = e.node
            WHERE e.deleted_at IS NULL AND (n.mode & 61440) <> 16384
            """, [.id(folder)])?.int(0) ?? 0
    }
}
