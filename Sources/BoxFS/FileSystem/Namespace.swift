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
    var cursor: Int64
    /// The last place in it where there was nothing more: what a later change took out of the namespace had been told up to here.
    var caughtUp: Int64
    /// The right to read it is gone: what was not sent is yet to be rescued.
    var isLost: Bool
    /// When it was left: its name then, and the directory in which it stands again, as it is on the server.
    var name: String?
    var comesBackIn: InodeNumber?
    /// Left because there was no right to it for a while, and there is one again.
    var isGivenAgain = false

    init(number: Int64, id: NamespaceID, root: InodeNumber, junction: NodeID?, role: Role, cursor: Int64, isLost: Bool = false) {
        (self.number, self.id, self.root, self.junction, self.role, self.cursor, self.isLost) = (number, id, root, junction, role, cursor, isLost)
        caughtUp = cursor
    }

    var isHome: Bool { number == Self.home }
    var isReadOnly: Bool { role < .editor || isLost }

    // MARK: Rows

    static func fetchAll(_ database: Database) throws -> [Namespace] {
        try Row.fetchAll(database, sql: "SELECT number, id, root, junction, role, cursor, lost, caught_up FROM namespaces").map { row in
            guard let id = NamespaceID(bytes: row[1] as Data), let role = Role(rawValue: row[4]) else { throw FileSystemError.io }
            let namespace = Namespace(
                number: row[0], id: id, root: InodeNumber(rawValue: UInt64(row[2] as Int64)), junction: (row[3] as Data?).flatMap { NodeID(bytes: $0) },
                role: role, cursor: row[5], isLost: row[6])
            namespace.caughtUp = row[7]
            // An earlier process was leaving it, and may have heard that it was given again: then its new place was passed over.
            if namespace.isLost { (namespace.comesBackIn, namespace.isGivenAgain) = (.root, true) }
            return namespace
        }
    }

    func save(_ database: Database) throws {
        try database.cachedStatement(sql: """
            INSERT INTO namespaces (number, id, root, junction, role, cursor, lost, caught_up) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (number) DO UPDATE SET role = excluded.role, cursor = excluded.cursor, lost = excluded.lost, caught_up = excluded.caught_up
            """).execute(arguments: [
                number, id.data, Int64(root.rawValue), junction?.data, role.rawValue, cursor, isLost, caughtUp,
            ])
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
        let numbers = try change { database in
            let numbers = try Int64.fetchAll(database, sql: """
                WITH RECURSIVE below (inode) AS (SELECT ?1 UNION SELECT e.inode FROM below b JOIN entries e ON e.parent = b.inode
                JOIN nodes n ON n.inode = e.inode AND n.namespace = ?2)
                SELECT inode FROM below
                """, arguments: [Int64(inode.number.rawValue), inode.namespace])
            for number in numbers {
                try database.cachedStatement(sql: "UPDATE nodes SET namespace = ? WHERE inode = ?").execute(arguments: [namespace, number])
            }
            return numbers
        }
        for number in numbers { inodes[InodeNumber(rawValue: UInt64(number))]?.namespace = namespace }
        inode.namespace = namespace
    }
}
