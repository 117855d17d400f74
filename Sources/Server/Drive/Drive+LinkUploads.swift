import Foundation
import Shared

// Files that come through an upload link: they become the link maker's, by the same commits as any.
extension Drive {
    /// Bytes that an upload link still takes; nil: as many as the quota allows.
    func linkSpace(_ visit: LinkVisit) -> UInt64? { visit.link.maximumBytes.map { $0 - min($0, visit.link.received) } }

    /// Names a file that has come. A name that is taken makes a second file beside the first, as any two that were made apart.
    ///
    /// - Throws: `.tooLarge` past the link's limit, whoever else sends at the same time; `.linkEnded`, `.invalidName`, `.quotaExceeded`.
    func receive(_ visit: LinkVisit, _ file: IncomingFile, named name: String, address: String) async throws(DriveError) {
        if let problem = EntryName.problem(with: name) { throw .invalidName(problem) }
        let link = visit.link, content = try await file.finish(), time = now()
        try await reserve(link, content.size, time)
        let node = Node(
            id: .make(), sequence: 0, mode: FileType.regular.rawValue | 0o644, uid: 0, gid: 0, accessed: time, modified: time, changed: time,
            created: time, links: 1)
        var operations: [Shared.Operation] = [.create(node: node, parent: link.node, name: name)]
        if content.size > 0 {
            operations.append(.content(node: node.id, base: nil, version: .make(), content: content, modified: time, changed: time))
        }
        let request = CommitRequest(
            commit: .make(), upload: file.upload, device: Self.linkDeviceName,
            operations: operations.enumerated().map { NumberedOperation(id: Int64($0.offset), operation: $0.element) })
        do throws(DriveError) {
            let answer = try await commit(visit.session, link.namespace, request)
            if let refusal = answer.results.first(where: { $0.outcome == .refused }) { throw .badRequest(refusal.detail ?? "The file was refused.") }
        } catch {
            try await write { sql in
                try sql.execute("UPDATE links SET received = received - $1 WHERE id = $2", [.int(content.size), .id(link.id)])
            }
            throw error
        }
        try await write(.ordered) { sql in try Self.auditVisit(sql, time, visit, "link-uploaded", address, name) }
    }

    /// Takes the bytes off what the link allows, in one statement.
    private func reserve(_ link: LinkRow, _ bytes: UInt64, _ time: Timestamp) async throws(DriveError) {
        try await write { sql in
            let taken = try sql.execute("""
                UPDATE links SET received = received + $1, used = $2
                WHERE id = $3 AND revoked IS NULL AND (expires IS NULL OR expires > $2) AND (maximum_bytes IS NULL OR received + $1 <= maximum_bytes)
                """, [.int(bytes), .time(time), .id(link.id)])
            guard taken == 0 else { return }
            if let row = try sql.first("SELECT \(LinkRow.columns) FROM links WHERE id = $1", [.id(link.id)]), case let state = try LinkRow(row).state(at: time),
               state == .revoked || state == .expired { throw DriveError.linkEnded(state) }
            throw DriveError.tooLarge("The file is larger than what this link still takes.")
        }
    }
}
