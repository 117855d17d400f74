import Shared

/// Into which namespace each operation of a commit belongs.
///
/// A folder may have become a namespace of its own, or changed hands, while a mount was away that goes on naming what it knew. Nothing of
/// that is lost: what lies in another namespace by now is applied there, in the same transaction, as far as the caller's role goes.
struct CommitRoute {
    enum Place: Hashable { case here, elsewhere(NamespaceID), refused(ProblemCode, String) }
    private let request: CommitRequest
    private let places: [Place]
    private(set) var others: [NamespaceID] = []

    /// All of it belongs into the commit's own namespace.
    var isPlain: Bool { places.isEmpty }

    subscript(index: Int) -> Place { places.isEmpty ? .here : places[index] }

    func operations(of namespace: NamespaceID) -> [NumberedOperation] {
        guard !places.isEmpty else { return request.operations }
        let known = Set(others)
        return zip(request.operations, places).filter { _, place in
            if case .elsewhere(let other) = place { other == namespace } else { !known.contains(namespace) }
        }.map(\.0)
    }

    init(_ committer: Committer) throws {
        request = committer.request
        let sql = committer.sql, own = committer.namespace, account = committer.session.account
        // Most people are in no other namespace: their commits cost nothing more.
        guard try sql.first("SELECT 1 FROM members WHERE account = $1 AND namespace <> $2 LIMIT 1", [.id(account), .id(own)]) != nil else {
            places = []
            return
        }
        var roles: [NamespaceID: Role] = [:], homes: [NodeID: NamespaceID] = [:], junctions: Set<NodeID> = []
        for row in try sql.query("SELECT m.namespace, m.role, s.root FROM members m JOIN namespaces s ON s.id = m.namespace WHERE m.account = $1", [.id(account)]) {
            roles[try row.id(0)] = row.text(1).flatMap(Role.init)
            junctions.insert(try row.id(2))
        }
        func home(_ id: NodeID) throws -> NamespaceID? {
            if let known = homes[id] { return known }
            var found = try sql.first("SELECT namespace FROM nodes WHERE id = $1", [.id(id)])
            if found == nil {
                found = try sql.first("SELECT n.namespace FROM node_aliases a JOIN nodes n ON n.id = a.node WHERE a.alias = $1", [.id(id)])
            }
            homes[id] = try found?.id(0)
            return homes[id]
        }
        /// Of something with a place in a directory: a shared folder's root stands in its member's home.
        func home(of child: NodeID, in parent: NodeID) throws -> NamespaceID? {
            try junctions.contains(child) ? home(parent) : home(child)
        }
        var places: [Place] = [], others: [NamespaceID] = []
        for numbered in request.operations {
            let concerned: [NamespaceID?] = switch numbered.operation {
            case .create(_, let parent, _): [try home(parent)]
            case .link(let node, let parent, _, _), .remove(let node, let parent, _, _, _): [try home(of: node, in: parent), try home(parent)]
            case .rename(let node, let parent, _, let toParent, _, _, _, _):
                [try home(of: node, in: parent), try home(parent), try home(toParent)]
            case .exchange(let node, let parent, _, let other, let otherParent, _, _):
                [try home(of: node, in: parent), try home(parent), try home(of: other, in: otherParent), try home(otherParent)]
            case .setattr(let node, _, _, _, _, _, _), .xattr(let node, _, _, _), .content(let node, _, _, _, _, _): [try home(node)]
            }
            let found = Set(concerned.compactMap { $0 })
            var place = Place.here
            if found.count > 1 {
                place = .refused(.conflict, "It would have crossed the border of a shared folder.")
            } else if let other = found.first, other != own, let role = roles[other] {
                if role < .editor {
                    place = .refused(.forbidden, "You may only read this shared folder.")
                } else {
                    place = .elsewhere(other)
                    if !others.contains(other) { others.append(other) }
                }
            }
            if case .create(let node, let parent, _) = numbered.operation, homes[node.id] == nil { homes[node.id] = try home(parent) }
            places.append(place)
        }
        self.places = others.isEmpty && places.allSatisfy { $0 == .here } ? [] : places
        self.others = others
    }
}
