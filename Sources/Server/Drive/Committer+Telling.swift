import Shared

// What the feed tells of an operation besides what it changed. The caller believes that what it asked for came about, and takes the answer to
// mean that whatever the feed said before of the same names and nodes is out of date: so all of them are told under the operation's number.
extension Committer {
    struct Place: Hashable { let parent: NodeID, name: String }

    /// Makes the feed tell a node and its entries again: the caller's replica differs from the truth.
    func tellAgain(_ id: NodeID) throws {
        guard let row = try node(id) else { return }
        put(row)
        for entry in try entries(of: row.id) { toldNames.insert(Place(parent: entry.parent, name: entry.name)) }
        try sql.execute("UPDATE entries SET sequence = $1 WHERE node = $2 AND deleted_at IS NULL", [.integer(sequence), .id(row.id)])
    }

    /// Tells what an operation spoke of and has not told yet.
    ///
    /// - Parameter isRefused: the caller takes back what it believed; nobody else is to hear of the names.
    func tellAll(of operation: Shared.Operation, isRefused: Bool) throws {
        let (names, nodes) = operation.spokenOf
        for id in nodes {
            guard let row = try node(id) else { continue }
            for row in [row, try successor(of: row)].compactMap({ $0 }) where row.sequence != sequence { try tellAgain(row.id) }
        }
        for (parent, name, believed) in names {
            guard let directory = try node(parent), !toldNames.contains(Place(parent: directory.id, name: name)) else { continue }
            let occupant = try entry(directory.id, name)
            if let occupant { try tellAgain(occupant.node) }
            if !isRefused, let believed, let row = try node(believed), row.deletedAt == nil, row.id != occupant?.node { try tellAbsence(of: row.id, directory.id, name) }
        }
    }

    /// Tells that a living node is not where the caller believes it to be: of what stands there instead, the caller may never hear, if that goes
    /// before the next look at the feed.
    private func tellAbsence(of node: NodeID, _ parent: NodeID, _ name: String) throws {
        let isKnown = try sql.execute(
            "UPDATE entries SET sequence = $1 WHERE parent = $2 AND name = $3 AND node = $4 AND deleted_at IS NOT NULL AND sequence > 0",
            [.integer(sequence), .id(parent), .text(name), .id(node)]) > 0
        if !isKnown { try insertEntry(parent, name, node, deletedAt: time) }
    }
}
