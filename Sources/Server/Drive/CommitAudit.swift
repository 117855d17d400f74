import Shared

/// What a commit did, for the audit: one row for each node that it touched, which says the most that was done to it.
struct CommitAudit {
    private enum Action: String { case created, edited, renamed, removed, linked, changed }
    private struct Note {
        var action: Action
        /// Where it lay before it was renamed or removed.
        var place: (parent: NodeID, name: String)?
    }
    private var notes: [NodeID: Note] = [:]
    private var order: [NodeID] = []

    mutating func note(_ operation: Shared.Operation, _ committer: Committer) throws {
        switch operation {
        case .create(let node, _, _): try add(node.id, .created, nil, committer)
        case .link(let node, _, _, _): try add(node, .linked, nil, committer)
        case .rename(let node, let parent, let name, _, _, let replaced, _, _):
            if let replaced, replaced != node { try add(replaced, .removed, nil, committer) }
            try add(node, .renamed, (parent, name), committer)
        case .exchange(let node, let parent, let name, let other, let otherParent, let otherName, _):
            try add(node, .renamed, (parent, name), committer)
            try add(other, .renamed, (otherParent, otherName), committer)
        case .remove(let node, let parent, let name, _, _): try add(node, .removed, (parent, name), committer)
        case .content(let node, _, _, _, _, _): try add(node, .edited, nil, committer)
        case .setattr(let node, _, _, _, _, _, _), .xattr(let node, _, _, _): try add(node, .changed, nil, committer)
        }
    }

    private mutating func add(_ id: NodeID, _ action: Action, _ place: (parent: NodeID, name: String)?, _ committer: Committer) throws {
        let id = try committer.node(id)?.id ?? id
        guard let known = notes[id] else {
            order.append(id)
            notes[id] = Note(action: action, place: place)
            return
        }
        switch (known.action, action) {
        // A temporary file that came and went within one commit was never there for anybody.
        case (.created, .removed): notes[id] = nil
        case (.created, _), (_, .changed), (.renamed, .edited), (.renamed, .linked), (.edited, .linked): break
        default: notes[id] = Note(action: action, place: known.place ?? place)
        }
    }

    /// Writes the rows, with the paths as they are at the end of the commit.
    func save(_ committer: Committer) throws {
        var paths = LastPaths(committer.sql, committer.root)
        for id in order {
            guard let note = notes[id] else { continue }
            let before = try note.place.map { try paths.path(of: $0.parent, $0.name) }
            let path = note.action == .removed ? before : nil
            try Drive.audit(
                committer.sql, committer.time, committer.session.account, device: committer.request.device, address: committer.session.address, note.action.rawValue,
                committer.namespace, detail: note.action == .renamed ? before.map { "from \($0)" } : nil, node: id, path: path ?? paths.path(of: id))
        }
    }
}

/// Paths of nodes as they are, or as they were last for what is gone.
struct LastPaths {
    private let sql: any SQLConnection
    private var known: [NodeID: String]
    /// Rows of removed directories may lead around in a circle: each once lay in the other.
    private static let maximumDepth = 4096

    init(_ sql: any SQLConnection, _ root: NodeID) {
        self.sql = sql
        known = [root: ""]
    }

    mutating func path(of node: NodeID) throws -> String {
        var names: [(NodeID, String)] = [], at = node, prefix = ""
        while names.count < Self.maximumDepth {
            if let path = known[at] {
                prefix = path
                break
            }
            guard let place = try TreePath.lastPlace(sql, of: at) else { break }
            names.append((at, place.name))
            at = place.parent
        }
        for (id, name) in names.reversed() {
            prefix = prefix.isEmpty ? name : "\(prefix)/\(name)"
            known[id] = prefix
        }
        return prefix
    }

    mutating func path(of parent: NodeID, _ name: String) throws -> String {
        let parent = try path(of: parent)
        return parent.isEmpty ? name : "\(parent)/\(name)"
    }
}
