import Foundation
import Shared

// Changes that the server makes on a person's behalf: restoring, undoing, resolving. Mounts see them as any other change of the feed.
extension Drive {
    /// Runs `body` on a committer, in one transaction. What goes through many nodes takes a number for each (`Committer.step`). Nothing is
    /// guarded: it takes something back.
    func amend<T: Sendable>(
        _ session: Session, _ namespace: NamespaceID, _ body: @escaping @Sendable (Committer) throws -> T
    ) async throws(DriveError) -> (value: T, sequence: Int64) {
        let time = now()
        let answer = try await write { sql -> (value: T, sequence: Int64) in
            try Self.require(.editor, sql, session, namespace)
            let request = CommitRequest(commit: .make(), upload: nil, device: session.deviceName, operations: [])
            let committer = try Committer(sql, session, namespace, request, time)
            committer.step()
            let value = try body(committer)
            try committer.finish()
            return (value, committer.sequence)
        }
        onCommit(namespace, answer.sequence)
        return answer
    }

    /// The same, where what was done is the answer.
    func amend(
        _ session: Session, _ namespace: NamespaceID, _ body: @escaping @Sendable (Committer, inout RestoreAnswer) throws -> Void
    ) async throws(DriveError) -> RestoreAnswer {
        let (answer, sequence) = try await amend(session, namespace) { committer -> RestoreAnswer in
            var answer = RestoreAnswer()
            try body(committer, &answer)
            return answer
        }
        var numbered = answer
        numbered.sequence = sequence
        return numbered
    }
}

extension Committer {
    static let maximumNotes = 200

    func note(_ sentence: String, _ answer: inout RestoreAnswer) {
        if answer.notes.count < Self.maximumNotes { answer.notes.append(sentence) }
    }

    /// Gives a file the content of one of its versions again, as a new version.
    ///
    /// - Returns: false when it holds that content already.
    @discardableResult
    func repeatVersion(_ version: VersionID, in row: NodeRow) throws -> Bool {
        guard row.version != version, let source = try sql.first("SELECT modified FROM versions WHERE id = $1", [.id(version)]),
              let content = try NodeRow.content(sql, version) else { return false }
        guard try content != (NodeRow.content(sql, row.version) ?? .empty) || row.version == nil else { return false }
        var row = row
        let new = VersionID.make()
        try ledger.addVersion(
            new, of: row.id, content, session, request.device, time, modified: source.time(0), kind: .restore,
            parents: [row.version, version].compactMap(\.self))
        row.version = new
        (row.modified, row.changed) = (source.time(0), time)
        put(row)
        return true
    }

    /// The same for a file that was empty before its first version.
    func empty(_ row: NodeRow) throws -> Bool {
        guard let version = row.version, try NodeRow.content(sql, version) != .empty else { return false }
        var row = row
        row.version = .make()
        (row.modified, row.changed) = (time, time)
        try ledger.addVersion(row.version!, of: row.id, .empty, session, request.device, time, modified: time, kind: .restore, parents: [version])
        put(row)
        return true
    }

    /// A name that is free: the name itself, or `NAME (restored).EXT` with a number from the second on.
    func freeRestoredName(_ parent: NodeID, _ name: String) throws -> String {
        guard try entry(parent, name) != nil else { return name }
        var number = 1
        while true {
            let candidate = ConflictedCopy.name(of: name, mark: number == 1 ? " (restored)" : " (restored \(number))")
            if try entry(parent, candidate) == nil { return candidate }
            number += 1
        }
    }

    /// Takes a node out of its places: what is nowhere any more goes to the trash, with what a directory holds.
    func takeAway(_ entry: LiveEntry, _ answer: inout RestoreAnswer) throws {
        guard let row = try node(entry.node), row.shared == nil else { return }
        step()
        if row.isDirectory {
            for child in try sql.query("SELECT id, name, node FROM entries WHERE parent = $1 AND deleted_at IS NULL", [.id(row.id)]) {
                try takeAway(LiveEntry(id: child.blob(0) ?? [], parent: row.id, name: child.text(1) ?? "", node: try child.id(2)), &answer)
            }
        } else if row.links <= 1 {
            answer.removed += 1
        }
        guard let current = try node(entry.node) else { return }
        if current.isDirectory, try !isEmpty(current.id) { return note("\(entry.name) stays: it holds a shared folder.", &answer) }
        try unlink(entry, current, time)
    }

    /// Puts a node at a place, out of the trash or from where it is now. A taken name gets a mark, which is noted.
    ///
    /// - Parameter row: with what else is to change of it.
    /// - Returns: the name that it has got.
    @discardableResult
    func place(_ row: NodeRow, _ parent: NodeID, _ name: String, _ answer: inout RestoreAnswer) throws -> String {
        var row = row
        if let there = try entry(parent, name), there.node == row.id { return name }
        if row.deletedAt != nil {
            row = try revive(row)
            row.links = 0
        } else {
            for old in try entries(of: row.id).prefix(1) {
                try deleteEntry(old, keepsTrash: false)
                row.links -= 1
            }
        }
        let free = try freeRestoredName(parent, name)
        if free != name { note("\(name) is taken by something newer: it came back as \(free).", &answer) }
        row.links += 1
        row.changed = time
        put(row)
        try insertEntry(parent, free, row.id)
        try touch(parent, time)
        return free
    }

    /// The directory, alive: it comes back with those above it when it was removed, which is noted.
    func directoryBack(_ id: NodeID, _ answer: inout RestoreAnswer) throws -> NodeRow? {
        guard let row = try node(id), row.isDirectory else { return nil }
        guard row.deletedAt != nil else { return row }
        let back = try liveDirectory(id)
        note("The folder \(try TreePath.path(sql, of: id)) was gone: it is back.", &answer)
        return back
    }
}
