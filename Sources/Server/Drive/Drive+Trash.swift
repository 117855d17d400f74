import Foundation
import Shared

// The trash: nodes that no entry names any more, with the place where they were last.
extension Drive {
    /// - Parameter folder: only what was removed from this one, which may be gone too.
    func trash(_ session: Session, _ namespace: NamespaceID, folder: NodeID? = nil, after: String?, limit: Int) async throws(DriveError) -> TrashPage {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            let count = min(max(limit, 1), Self.maximumPage)
            let (time, id) = try Self.cursor(after)
            // Parameters are numbered by their place in the text.
            let from = folder == nil ? "nodes n" : "(SELECT DISTINCT node FROM entries WHERE parent = $1 AND deleted_at IS NOT NULL) e JOIN nodes n ON n.id = e.node"
            let first = folder == nil ? 1 : 2
            let rows = try sql.query("""
                SELECT n.id, n.deleted_at, n.mode, v.size FROM \(from) LEFT JOIN versions v ON v.id = n.version
                WHERE n.namespace = $\(first) AND n.deleted_at IS NOT NULL AND n.purged_at IS NULL
                AND (n.deleted_at < $\(first + 1) OR n.deleted_at = $\(first + 1) AND n.id < $\(first + 2))
                ORDER BY n.deleted_at DESC, n.id DESC LIMIT $\(first + 3)
                """, (folder.map { [.id($0)] } ?? []) + [.id(namespace), .integer(time), .blob(id), .int(count)])
            let items = try rows.compactMap { row -> TrashItem? in
                let node: NodeID = try row.id(0)
                let parent = try TreePath.lastPlace(sql, of: node)?.parent
                if let folder, parent != folder { return nil }
                let isParentDeleted = try parent.flatMap { try NodeRow.fetch(sql, $0)?.deletedAt } != nil
                return TrashItem(
                    node: node, path: try TreePath.path(sql, of: node), deleted: row.time(1), mode: UInt32(truncatingIfNeeded: row.int(2)),
                    size: UInt64(row.int(3)), parentDeleted: isParentDeleted)
            }
            let next = try rows.count == count ? rows.last.map { "\($0.time(1).nanoseconds).\(try $0.id(0, NodeTag.self))" } : nil
            return TrashPage(items: items, next: next)
        }
    }

    /// Brings one thing back to where it was; a folder with what was removed with it.
    func restoreTrash(_ session: Session, _ namespace: NamespaceID, _ request: TrashRequest) async throws(DriveError) -> RestoreAnswer {
        try await amend(session, namespace) { committer, answer in
            guard let id = try Self.trashed(committer.sql, namespace, request, root: committer.root), let row = try committer.node(id), row.deletedAt != nil else {
                throw DriveError.notFound("There is no such thing in the trash.")
            }
            try committer.bringBack(row, &answer)
            answer.path = try TreePath.path(committer.sql, of: row.id)
        }
    }

    /// What a request names: the newest that was removed from the path.
    private static func trashed(_ sql: any SQLConnection, _ namespace: NamespaceID, _ request: TrashRequest, root: NodeID) throws -> NodeID? {
        if let node = request.node {
            return try sql.first("""
                SELECT id FROM nodes WHERE id = $1 AND namespace = $2 AND deleted_at IS NOT NULL AND purged_at IS NULL
                """, [.id(node), .id(namespace)]).map { try $0.id(0) }
        }
        guard let path = request.path else { throw DriveError.badRequest("Either node or path says what.") }
        var names = TreePath.names(path)
        guard let name = names.popLast() else { throw DriveError.badRequest("The root was never removed.") }
        // The folder may have been removed and made again: each that was there is looked into.
        var folders: [NodeID] = [root]
        for part in names {
            folders = try folders.flatMap { folder in
                try sql.query("SELECT DISTINCT node FROM entries WHERE parent = $1 AND name = $2 AND namespace = $3", [.id(folder), .text(part), .id(namespace)]).map { try $0.id(0, NodeTag.self) }
            }
        }
        var best: (node: NodeID, deleted: Timestamp)?
        for folder in folders {
            for row in try sql.query("""
                SELECT e.node, n.deleted_at FROM entries e JOIN nodes n ON n.id = e.node
                WHERE e.parent = $1 AND e.name = $2 AND e.deleted_at IS NOT NULL AND n.deleted_at = e.deleted_at AND n.purged_at IS NULL
                AND n.namespace = $3
                """, [.id(folder), .text(name), .id(namespace)]) where best == nil || row.time(1) > best!.deleted { best = (try row.id(0), row.time(1)) }
        }
        return best?.node
    }

    /// Drops for good what the request names, or all that is in the trash.
    /// Nobody can take it back, so of a shared folder's trash it is for those who answer for the folder.
    func purgeTrash(_ session: Session, _ namespace: NamespaceID, _ request: TrashRequest) async throws(DriveError) -> PurgeAnswer {
        let time = now()
        return try await write { sql in
            try Self.require(.manager, sql, session, namespace)
            var nodes: [NodeID]
            if request.node != nil || request.path != nil {
                let root = try Self.namespaceInformation(sql, namespace).root
                guard let id = try Self.trashed(sql, namespace, request, root: root) else { throw DriveError.notFound("There is no such thing in the trash.") }
                nodes = try [id] + Self.removedWith(sql, id)
            } else {
                nodes = try sql.query("""
                    SELECT id FROM nodes WHERE namespace = $1 AND deleted_at IS NOT NULL AND purged_at IS NULL AND deleted_at <= $2
                    """, [.id(namespace), .time(request.before ?? time)]).map { try $0.id(0) }
            }
            let answer = try Self.purge(sql, namespace, nodes, time)
            try Self.audit(sql, time, session.account, device: session.deviceName, address: nil, "trash-purged", namespace, detail: "\(answer.files) files")
            return answer
        }
    }

    /// Drops the nodes' versions. The rows of nodes and entries stay: they tell replicas that were away.
    static func purge(_ sql: any SQLConnection, _ namespace: NamespaceID, _ nodes: [NodeID], _ time: Timestamp) throws -> PurgeAnswer {
        let ledger = ChunkLedger(sql, namespace)
        var files = 0
        for node in nodes {
            try ledger.dropVersions(of: node)
            let isDirectory = try sql.first("SELECT mode FROM nodes WHERE id = $1", [.id(node)]).map { $0.int(0) & 0o170000 == Int64(FileType.directory.rawValue) }
            if isDirectory == false { files += 1 }
            try sql.execute("UPDATE nodes SET version = NULL, purged_at = $1 WHERE id = $2", [.time(time), .id(node)])
            try sql.execute("DELETE FROM event_changes WHERE node = $1", [.id(node)])
            // Names that newer rows speak of need no row of a node that is gone for good.
            try sql.execute("""
                DELETE FROM entries WHERE node = $1 AND deleted_at IS NOT NULL AND (sequence = 0 OR EXISTS (SELECT 1 FROM entries e
                WHERE e.parent = entries.parent AND e.name = entries.name AND e.deleted_at IS NOT NULL AND e.sequence > entries.sequence))
                """, [.id(node)])
        }
        let usedChange = try ledger.settle()
        try sql.execute("UPDATE namespaces SET used = used + $1 WHERE id = $2", [.integer(usedChange), .id(namespace)])
        return PurgeAnswer(files: files, bytes: UInt64(max(0, -usedChange)))
    }

    /// What was in a directory and was removed with it: within the hour before it, as `rm -r` does.
    static func removedWith(_ sql: any SQLConnection, _ directory: NodeID) throws -> [NodeID] {
        var seen: Set<NodeID> = [directory]
        return try removedWith(sql, directory, &seen)
    }

    private static func removedWith(_ sql: any SQLConnection, _ directory: NodeID, _ seen: inout Set<NodeID>) throws -> [NodeID] {
        guard let row = try NodeRow.fetch(sql, directory), row.isDirectory, let deleted = row.deletedAt else { return [] }
        let children = try sql.query("""
            SELECT DISTINCT e.node FROM entries e JOIN nodes n ON n.id = e.node
            WHERE e.parent = $1 AND e.deleted_at IS NOT NULL AND e.deleted_at = n.deleted_at AND n.purged_at IS NULL AND n.deleted_at >= $2
            AND n.namespace = e.namespace
            """, [.id(directory), .time(deleted.adding(seconds: -3600))]).map { try $0.id(0, NodeTag.self) }
        var found: [NodeID] = []
        for child in children where seen.insert(child).inserted { found += try [child] + removedWith(sql, child, &seen) }
        return found
    }
}

extension Committer {
    /// Brings a node of the trash back to its last place, a directory with what was removed with it.
    func bringBack(_ row: NodeRow, _ answer: inout RestoreAnswer) throws {
        if try sql.first("SELECT purged_at FROM nodes WHERE id = $1", [.id(row.id)])?.isNull(0) == false {
            throw DriveError.notFound("What it held is gone for good.")
        }
        let within = try Drive.removedWith(sql, row.id)     // before its rows say that it is alive
        try putBack(row, &answer)
        for id in within { if let child = try node(id), child.deletedAt != nil { try putBack(child, &answer) } }
    }

    private func putBack(_ row: NodeRow, _ answer: inout RestoreAnswer) throws {
        step()
        let last = try TreePath.lastPlace(sql, of: row.id)
        let place = try last.flatMap { try directoryBack($0.parent, &answer) }
        if place == nil { note("The folder where \(last?.name ?? "it") was is gone for good: it is in the root now.", &answer) }
        guard let current = try node(row.id), current.deletedAt != nil else { return }
        try self.place(current, place?.id ?? root, last?.name ?? "restored", &answer)
        if !row.isDirectory { answer.files += 1 }
    }
}
