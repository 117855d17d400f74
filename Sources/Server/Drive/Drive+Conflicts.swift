import Foundation
import Shared

// Conflicted copies that nobody has decided about yet.
extension Drive {
    static let maximumConflicts = 2000

    /// Newest first, at most `maximumConflicts`.
    func conflicts(_ session: Session, _ namespace: NamespaceID) async throws(DriveError) -> [Conflict] {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            return try sql.query("""
                SELECT c.node, c.copy, c.created, c.device_name, c.device FROM conflicts c
                JOIN nodes o ON o.id = c.node JOIN nodes n ON n.id = c.copy
                WHERE c.namespace = $1 AND c.resolved_at IS NULL AND o.deleted_at IS NULL AND n.deleted_at IS NULL ORDER BY c.created DESC LIMIT $2
                """, [.id(namespace), .int(Self.maximumConflicts)]).map { row in
                Conflict(
                    path: try TreePath.path(sql, of: try row.id(0)), copy: try TreePath.path(sql, of: try row.id(1)), created: row.time(2),
                    device: row.text(3) ?? "", mine: row.blob(4) == session.device.bytes)
            }
        }
    }

    /// Decides about a file's conflicted copies: of a file with several, all are decided alike when the path is the file's.
    func resolve(_ session: Session, _ namespace: NamespaceID, _ request: ResolveRequest) async throws(DriveError) -> RestoreAnswer {
        try await amend(session, namespace) { committer, answer in
            let sql = committer.sql
            guard let id = try TreePath.live(sql, request.path, from: committer.root) else { throw DriveError.notFound("There is no file \(request.path).") }
            let rows = try sql.query("""
                SELECT id, node, copy, device FROM conflicts WHERE resolved_at IS NULL AND node = $1 AND namespace = $2
                UNION SELECT id, node, copy, device FROM conflicts WHERE resolved_at IS NULL AND copy = $1 AND namespace = $2 ORDER BY 1
                """, [.id(id), .id(namespace)])
            guard !rows.isEmpty else { throw DriveError.notFound("\(request.path) is in no conflict.") }
            for row in rows {
                let node: NodeID = try row.id(1), copy: NodeID = try row.id(2)
                let isCopyKept = (request.keep == .mine) == (row.blob(3) == session.device.bytes)
                try sql.execute("UPDATE conflicts SET resolved_at = $1 WHERE id = $2", [.time(committer.time), row.values[0]])
                answer.path = try TreePath.path(sql, of: node)
                guard request.keep != .both, let original = try committer.node(node), let other = try committer.node(copy), original.deletedAt == nil,
                      other.deletedAt == nil else { continue }
                try committer.decide(original, other, keepsCopy: isCopyKept, &answer)
            }
        }
    }
}

extension Committer {
    /// The kept content stands under the file's name; the copy goes to the trash.
    fileprivate func decide(_ original: NodeRow, _ copy: NodeRow, keepsCopy: Bool, _ answer: inout RestoreAnswer) throws {
        if keepsCopy {
            guard original.isRegular, copy.isRegular else {
                throw DriveError.badRequest("Only files can be decided about so: rename or remove what you do not want, or keep both.")
            }
            if let version = copy.version { try repeatVersion(version, in: original) }
            answer.files += 1
        }
        for entry in try entries(of: copy.id) { try takeAway(entry, &answer) }
    }
}
