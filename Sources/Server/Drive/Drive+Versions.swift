import Foundation
import Shared

// The history of files.
extension Drive {
    func versions(
        _ session: Session, _ namespace: NamespaceID, node: NodeID?, path: String?, after: String?, limit: Int
    ) async throws(DriveError) -> VersionPage {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            let row = try Self.file(sql, namespace, node, path)
            let count = min(max(limit, 1), Self.maximumPage)
            let (time, id) = try Self.cursor(after)
            let rows = try sql.query("""
                \(Self.versionQuery) WHERE v.node = $1 AND v.superseded IS NULL AND (v.created < $2 OR v.created = $2 AND v.id < $3)
                ORDER BY v.created DESC, v.id DESC LIMIT $4
                """, [.id(row.id), .integer(time), .blob(id), .int(count)])
            let versions = try rows.map { try Self.version($0) }
            return VersionPage(
                node: row.id, deleted: row.deletedAt != nil, versions: versions,
                next: versions.count == count ? versions.last.map { "\($0.created.nanoseconds).\($0.id)" } : nil)
        }
    }

    func version(_ session: Session, _ namespace: NamespaceID, _ version: VersionID) async throws(DriveError) -> VersionInformation {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            _ = try Self.fileOfVersion(sql, namespace, version)
            guard let row = try sql.first("\(Self.versionQuery) WHERE v.id = $1", [.id(version)]) else { throw DriveError.notFound("There is no such version.") }
            var information = try Self.version(row)
            information.content = try NodeRow.content(sql, version)
            return information
        }
    }

    /// A named version is kept for ever; nil takes the name away.
    func nameVersion(_ session: Session, _ namespace: NamespaceID, _ version: VersionID, _ name: String?) async throws(DriveError) {
        if let name {
            guard (1...255).contains(name.utf8.count), !name.unicodeScalars.contains(where: { $0.value < 32 }) else {
                throw .badRequest("A version's name is one line of 1 to 255 bytes.")
            }
        }
        _ = try await amend(session, namespace) { committer -> Bool in
            let sql = committer.sql
            let row = try Self.fileOfVersion(sql, namespace, version)
            if let name, try sql.first("SELECT 1 FROM versions WHERE node = $1 AND name = $2 AND id <> $3", [.id(row.id), .text(name), .id(version)]) != nil {
                throw DriveError.nameTaken(name)
            }
            try sql.execute("UPDATE versions SET name = $1, superseded = NULL WHERE id = $2", [name.map { .text($0) } ?? .null, .id(version)])
            return true
        }
    }

    /// Gives the file the version's content again, or makes a new file of it.
    func restoreVersion(_ session: Session, _ namespace: NamespaceID, _ version: VersionID, to path: String?) async throws(DriveError) -> RestoreAnswer {
        try await amend(session, namespace) { committer, answer in
            let sql = committer.sql
            guard let row = try committer.node(try Self.fileOfVersion(sql, namespace, version).id) else { throw DriveError.notFound("There is no such version.") }
            if let path {
                answer.path = try committer.copy(version, of: row, to: path)
            } else {
                var row = row
                if row.deletedAt != nil {
                    try committer.bringBack(row, &answer)
                    row = try committer.node(row.id) ?? row
                }
                if try !committer.repeatVersion(version, in: row) { committer.note("The file holds this content already.", &answer) }
                answer.path = try TreePath.path(sql, of: row.id)
            }
            answer.files = 1
        }
    }

    // MARK: Rows

    private static let versionQuery = """
        SELECT v.id, v.node, v.size, v.created, v.modified, a.name, v.device, v.kind, v.parents, v.name, n.version
        FROM versions v JOIN nodes n ON n.id = v.node LEFT JOIN accounts a ON a.id = v.author
        """

    private static func version(_ row: SQLRow) throws -> VersionInformation {
        VersionInformation(
            id: try row.id(0), node: try row.id(1), size: UInt64(row.int(2)), created: row.time(3), modified: row.time(4), author: row.text(5),
            device: row.text(6) ?? "", kind: row.text(7).flatMap(VersionInformation.Kind.init) ?? .write,
            parents: VersionInformation.parents(row.blob(8) ?? []),
            name: row.text(9), current: row.values[0] == row.values[10])
    }

    /// `TIME.ID`, as pages give it; nil begins at the newest.
    static func cursor(_ text: String?) throws -> (time: Int64, id: [UInt8]) {
        guard let text else { return (.max, [UInt8](repeating: 255, count: 16)) }
        let parts = text.split(separator: ".", maxSplits: 1)
        guard parts.count == 2, let time = Int64(parts[0]), let id = Identifier<EntryTag>(String(parts[1])) else {
            throw DriveError.badRequest("after is no cursor of this call.")
        }
        return (time, id.bytes)
    }

    /// The file by its identity or by its path, also one in the trash.
    private static func file(_ sql: any SQLConnection, _ namespace: NamespaceID, _ node: NodeID?, _ path: String?) throws -> NodeRow {
        guard (node == nil) != (path == nil) else { throw DriveError.badRequest("Either node or path says of which file.") }
        let id = try node ?? TreePath.latest(sql, path ?? "", from: try namespaceInformation(sql, namespace).root)
        guard let id, let row = try NodeRow.fetch(sql, id), row.namespace == namespace else { throw DriveError.notFound("There is no such file.") }
        guard row.isRegular else { throw DriveError.badRequest("Only files have versions.") }
        return row
    }

    private static func fileOfVersion(_ sql: any SQLConnection, _ namespace: NamespaceID, _ version: VersionID) throws -> NodeRow {
        guard let found = try sql.first("SELECT node FROM versions WHERE id = $1", [.id(version)]),
              let row = try NodeRow.fetch(sql, try found.id(0)), row.namespace == namespace else { throw DriveError.notFound("There is no such version.") }
        return row
    }
}

extension Committer {
    /// A new file of a version's content.
    ///
    /// - Returns: its path.
    func copy(_ version: VersionID, of row: NodeRow, to path: String) throws -> String {
        var names = TreePath.names(path)
        guard let name = names.popLast() else { throw DriveError.badRequest("The new file needs a name.") }
        if let problem = EntryName.problem(with: name) { throw DriveError.invalidName(problem) }
        guard let parent = try TreePath.live(sql, names.joined(separator: "/"), from: root), let directory = try node(parent), directory.isDirectory else {
            throw DriveError.notFound("There is no folder \(names.joined(separator: "/")).")
        }
        guard try entry(directory.id, name) == nil else { throw DriveError.nameTaken(path) }
        try makeCopy(version, of: row, directory.id, name)
        return (names + [name]).joined(separator: "/")
    }

    /// A file of its own with the node's attributes and a version's content; an empty one without.
    @discardableResult
    func makeCopy(_ version: VersionID?, of row: NodeRow, _ directory: NodeID, _ name: String) throws -> NodeID {
        var copy = row
        copy.id = .make()
        (copy.links, copy.deletedAt, copy.version) = (1, nil, nil)
        (copy.created, copy.changed, copy.arrived) = (time, time, time)
        putNew(copy)
        try insertEntry(directory, name, copy.id)
        if let version, let content = try NodeRow.content(sql, version), let source = try sql.first("SELECT modified FROM versions WHERE id = $1", [.id(version)]) {
            copy.version = .make()
            copy.modified = source.time(0)
            try ledger.addVersion(copy.version!, of: copy.id, content, session, request.device, time, modified: copy.modified, kind: .restore, parents: [version])
            put(copy)
        }
        try touch(directory, time)
        return copy.id
    }
}
