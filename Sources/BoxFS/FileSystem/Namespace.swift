import Foundation
import GRDB
import Shared

/// One of the namespaces of the mounted tree: the home, or a shared folder for which a junction stands in the home.
///
/// Every node belongs to one; the root of a shared folder stands where its junction stands on the server, and goes by both identifiers.
/// `Tree.lock` guards what may change.
final class Namespace: @unchecked Sendable {
    /// The home's number.
    static let home: Int64 = 1

    /// How the replica's rows name it.
    let number: Int64
    let id: NamespaceID
    let root: InodeNumber
    /// What stands for it in the home; nil for the home itself.
    let junction: NodeID?
    var role: Role
    /// How far its change feed was applied.
    var cursor: Int64 { didSet { answered.removeAll { cursor > $0.before } } }
    /// Commits that were answered and that the feed is not past. What was read before one of them may still be on its way: it is out of date
    /// where the commit spoke of the same, and the feed tells it anew.
    private var answered: [(before: Int64, spokenOf: SpokenOf)] = []
    /// The last place in it where there was nothing more: what a later change took out of the namespace had been told up to here.
    var caughtUp: Int64
    /// The highest number that the answer to a commit told: until the feed comes so far, only this shows that a server lost that commit.
    /// In `meta`, under `toldKey`.
    private(set) var told: Int64 = 0
    /// The right to read it is gone: what was not sent is yet to be rescued.
    var isLost: Bool
    /// Its name when it was left.
    var name: String?
    /// Where it stands again, as it is on the server, when it was left; nil: nowhere.
    var comesBack: Return?

    struct Return: Codable, Sendable {
        let directory: InodeNumber, junction: NodeID
        /// There was no right to it for a while. Otherwise it may only be read now.
        let isGivenAgain: Bool
    }

    init(number: Int64, id: NamespaceID, root: InodeNumber, junction: NodeID?, role: Role, cursor: Int64, isLost: Bool = false) {
        (self.number, self.id, self.root, self.junction, self.role, self.cursor, self.isLost) = (number, id, root, junction, role, cursor, isLost)
        caughtUp = cursor
    }

    var isHome: Bool { number == Self.home }
    var isReadOnly: Bool { role < .editor || isLost }

    /// The server had so many numbers when this mount heard of it last.
    var known: Int64 { max(cursor, told) }

    // MARK: Rows on their way

    /// - Parameter before: the last number before those that the commit took.
    func noteAnswered(_ spokenOf: SpokenOf, before: Int64) {
        if before >= cursor { answered.append((before, spokenOf)) }
    }

    func isOutOfDate(_ entry: Entry) -> Bool { answered.contains { entry.sequence <= $0.before && $0.spokenOf.contains(entry) } }
    func isOutOfDate(_ node: Node) -> Bool { answered.contains { node.sequence <= $0.before && $0.spokenOf.contains(node) } }

    // MARK: Rows

    static func fetchAll(_ database: Database) throws -> [Namespace] {
        try Row.fetchAll(database, sql: "SELECT number, id, root, junction, role, cursor, lost, caught_up FROM namespaces").map { row in
            guard let id = NamespaceID(bytes: row[1] as Data), let role = Role(rawValue: row[4]) else { throw FileSystemError.io }
            let namespace = Namespace(
                number: row[0], id: id, root: InodeNumber(rawValue: UInt64(row[2] as Int64)), junction: (row[3] as Data?).flatMap { NodeID(bytes: $0) },
                role: role, cursor: row[5], isLost: row[6])
            namespace.caughtUp = row[7]
            namespace.told = try Int64.fetchOne(database, sql: "SELECT value FROM meta WHERE key = ?", arguments: [namespace.toldKey]) ?? 0
            if namespace.isLost { try namespace.loadLeaving(database) }
            return namespace
        }
    }

    private var toldKey: String { "told \(number)" }

    /// With the answer's other effects, in one transaction.
    func saveTold(_ sequence: Int64, _ rows: RowChanges) throws {
        told = max(told, sequence)
        try rows.execute(
            sql: "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", arguments: [toldKey, told])
    }

    func forgetTold(_ rows: RowChanges) throws { try rows.execute(sql: "DELETE FROM meta WHERE key = ?", arguments: [toldKey]) }

    func save(_ rows: RowChanges) throws {
        try rows.execute(sql: """
            INSERT INTO namespaces (number, id, root, junction, role, cursor, lost, caught_up) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (number) DO UPDATE SET role = excluded.role, cursor = excluded.cursor, lost = excluded.lost, caught_up = excluded.caught_up
            """, arguments: [
                number, id.data, Int64(root.rawValue), junction?.data, role.rawValue, cursor, isLost, caughtUp,
            ])
        if isLost { try saveLeaving(rows) }
    }

    // What is known of one that is being left lies in `meta`, for the process that goes on with it after a crash.

    private struct Leaving: Codable { let name: String?, comesBack: Return? }
    private var leavingKey: String { "leaving \(number)" }

    private func saveLeaving(_ rows: RowChanges) throws {
        let packed = String(decoding: try JSONEncoder().encode(Leaving(name: name, comesBack: comesBack)), as: UTF8.self)
        try rows.execute(sql: "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", arguments: [leavingKey, packed])
    }

    private func loadLeaving(_ database: Database) throws {
        let packed = try String.fetchOne(database, sql: "SELECT value FROM meta WHERE key = ?", arguments: [leavingKey])
        guard let packed, let leaving = try? JSONDecoder().decode(Leaving.self, from: Data(packed.utf8)) else { return }
        (name, comesBack) = (leaving.name, leaving.comesBack)
    }

    func forgetLeaving(_ rows: RowChanges) throws {
        try rows.execute(sql: "DELETE FROM meta WHERE key = ?", arguments: [leavingKey])
    }

    /// For people: why it was left.
    var reasonOfLeaving: String {
        let name = name ?? ""
        return switch comesBack?.isGivenAgain {
        case nil: "You are no longer in the shared folder \(name)"
        case true?: "You were not in the shared folder \(name) for a while"
        case false?: "The shared folder \(name) may only be read now"
        }
    }
}

extension Tree {
    /// The home's feed says what the others are.
    var namespacesHomeFirst: [Namespace] { namespaces.values.sorted { $0.number < $1.number } }

    /// Of a node that is here.
    func namespace(of inode: Inode) throws(FileSystemError) -> Namespace {
        guard let namespace = namespaces[inode.namespace] else { throw .stale }
        return namespace
    }

    /// Throws EROFS where the role allows no changes.
    func requireWritable(_ inode: Inode) throws(FileSystemError) {
        if inode.namespace != Namespace.home, try namespace(of: inode).isReadOnly { throw .readOnly }
    }

    /// Whether the inode is the root of a shared folder: its place belongs to the home, all else about it does not.
    func isJunction(_ inode: Inode) -> Bool { inode.namespace != Namespace.home && namespaces[inode.namespace]?.root == inode.number }

    /// Whose node an entry of the home names.
    func entryID(_ inode: Inode) -> NodeID {
        guard isJunction(inode) else { return inode.id }
        return namespaces[inode.namespace]?.junction ?? inode.id
    }

    func save(_ namespace: Namespace) throws(FileSystemError) {
        namespaces[namespace.number] = namespace
        try change { try namespace.save($0) }
    }

    /// Says that a node and all below it belong to another namespace: nothing else about them changes.
    func move(_ inode: Inode, to namespace: Int64) throws(FileSystemError) {
        try commit()        // so that the rows tell all there is
        let numbers = try change { rows in
            let numbers = try Int64.fetchAll(rows.database, sql: """
                WITH RECURSIVE below (inode) AS (SELECT ?1 UNION SELECT e.inode FROM below b JOIN entries e ON e.parent = b.inode
                JOIN nodes n ON n.inode = e.inode AND n.namespace = ?2)
                SELECT inode FROM below
                """, arguments: [Int64(inode.number.rawValue), inode.namespace])
            for number in numbers {
                try rows.execute(sql: "UPDATE nodes SET namespace = ? WHERE inode = ?", arguments: [namespace, number])
            }
            return numbers
        }
        for number in numbers { inodes[InodeNumber(rawValue: UInt64(number))]?.namespace = namespace }
        inode.namespace = namespace
    }
}
