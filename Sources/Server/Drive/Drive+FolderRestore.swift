import Foundation
import Shared

// A folder as it was at a time.
extension Drive {
    /// Brings the tree below a folder back: names, places and contents, in one transaction. What was not there then goes to the trash.
    /// What has left the folder since stays where it is; the folder gets a copy of it.
    func restoreFolder(_ session: Session, _ namespace: NamespaceID, _ request: FolderRestoreRequest) async throws(DriveError) -> RestoreAnswer {
        let time = now()
        guard request.at < time else { throw .badRequest("That time has not come yet.") }
        return try await amend(session, namespace) { committer, answer in
            let path = request.path
            guard let id = try TreePath.past(committer.sql, path, from: committer.root, at: request.at) else {
                throw DriveError.notFound("There was nothing at \(path.isEmpty ? "the root" : path) at that time.")
            }
            guard let row = try committer.node(id), row.isDirectory else { throw DriveError.badRequest("\(path) is no folder: restore one of its versions.") }
            var restore = FolderRestore(committer: committer, at: request.at)
            if id == committer.root {
                guard row.arrived <= request.at else { throw DriveError.notFound("There was nothing at that time.") }
            } else if row.deletedAt != nil {
                _ = try committer.directoryBack(id, &restore.answer)
            }
            try restore.run(id)
            answer = restore.answer
            answer.path = try TreePath.path(committer.sql, of: id)
        }
    }
}

/// Makes the tree below a directory what it was at `at`.
private struct FolderRestore {
    let committer: Committer
    let at: Timestamp
    var answer = RestoreAnswer()
    /// Nodes that stood below the directory then.
    private var before: Set<NodeID> = []
    /// Nodes that have stood at a place of theirs already: the next place is a hard link.
    private var placed: Set<NodeID> = []
    /// Files that lost their place below the directory; those that got none again were removed.
    private var taken: Set<NodeID> = []

    init(committer: Committer, at: Timestamp) { (self.committer, self.at) = (committer, at) }

    mutating func run(_ top: NodeID) throws {
        // 1. What is below now and was not below then, or elsewhere below, leaves its place.
        try collect(top)
        try clear(top, isForgotten: false)
        // 2. From the top down, each place gets what it held.
        try fill(top, into: top)
        answer.removed = try taken.count { try committer.node($0)?.deletedAt != nil }
    }

    private mutating func collect(_ directory: NodeID) throws {
        for child in try TreePath.children(committer.sql, of: directory, at: at) where before.insert(child.node).inserted {
            if try committer.node(child.node)?.isDirectory ?? false { try collect(child.node) }
        }
    }

    /// - Parameter isForgotten: the directory was not here then, and nothing in it stays.
    private mutating func clear(_ directory: NodeID, isForgotten: Bool) throws {
        let past = isForgotten ? [:] : Dictionary(try TreePath.children(committer.sql, of: directory, at: at).map { ($0.name, $0.node) }, uniquingKeysWith: { first, _ in first })
        for row in try committer.sql.query("SELECT id, name, node FROM entries WHERE parent = $1 AND deleted_at IS NULL", [.id(directory)]) {
            let entry = Committer.LiveEntry(id: row.blob(0) ?? [], parent: directory, name: row.text(1) ?? "", node: try row.id(2))
            guard let node = try committer.node(entry.node), node.shared == nil else { continue }
            // A directory that is needed elsewhere keeps what belongs into it: only its own entry goes.
            if node.isDirectory { try clear(node.id, isForgotten: !before.contains(node.id)) }
            guard past[entry.name] != entry.node else { continue }
            if !node.isDirectory { taken.insert(node.id) }
            guard let current = try committer.node(entry.node) else { continue }
            if current.isDirectory, try committer.holdsSharedFolder(current.id) { continue }
            try committer.unlink(entry, current, committer.time)
        }
    }

    private mutating func fill(_ directory: NodeID, into place: NodeID) throws {
        for (name, id) in try TreePath.children(committer.sql, of: directory, at: at) {
            guard let row = try committer.node(id), row.shared == nil else { continue }
            let standing = try stand(row, place, name)
            if row.isDirectory {
                try fill(row.id, into: standing)
            }
        }
    }

    /// Sees to it that the node, or a copy of it if it lives elsewhere now, stands at the place.
    ///
    /// - Returns: which node that is.
    private mutating func stand(_ row: NodeRow, _ place: NodeID, _ name: String) throws -> NodeID {
        committer.step()
        var row = row, isBack = false
        if let there = try committer.entry(place, name) {
            if there.node != row.id { return there.node }     // made by this restore: the two were hard links or a copy
        } else if row.deletedAt != nil {
            if row.isRegular, row.version == nil, try isPurged(row) {
                committer.note("\(name) is gone for good.", &answer)
                return row.id
            }
            try committer.place(row, place, name, &answer)
            isBack = true
        } else if placed.contains(row.id), !row.isDirectory {
            row.links += 1
            committer.put(row)
            try committer.insertEntry(place, name, row.id)
        } else {
            // It lives outside of the folder now.
            if row.isDirectory {
                var copy = row
                copy.id = .make()
                (copy.created, copy.changed, copy.arrived) = (committer.time, committer.time, committer.time)
                committer.putNew(copy)
                try committer.insertEntry(place, name, copy.id)
                return copy.id
            }
            answer.files += 1
            return try committer.makeCopy(try version(of: row), of: row, place, name)
        }
        guard placed.insert(row.id).inserted, !row.isDirectory else { return row.id }
        var isChanged = false
        if row.isRegular, let current = try committer.node(row.id) {
            isChanged = try version(of: row).map { try committer.repeatVersion($0, in: current) } ?? committer.empty(current)
        }
        if isChanged || isBack { answer.files += 1 }
        return row.id
    }

    /// What the file held then; where thinning took that away, what is nearest to it. nil: it was empty before its first version.
    private func version(of row: NodeRow) throws -> VersionID? {
        if let found = try committer.sql.first("""
            SELECT id FROM versions WHERE node = $1 AND created <= $2 ORDER BY created DESC, id DESC LIMIT 1
            """, [.id(row.id), .time(at)]) { return try found.id(0) }
        let first = try committer.sql.first("SELECT id, parents FROM versions WHERE node = $1 ORDER BY created, id LIMIT 1", [.id(row.id)])
        guard let first, first.blob(1)?.isEmpty == false else { return nil }
        return try first.id(0)
    }

    private func isPurged(_ row: NodeRow) throws -> Bool {
        try committer.sql.first("SELECT 1 FROM nodes WHERE id = $1 AND purged_at IS NOT NULL", [.id(row.id)]) != nil
    }
}
