import GRDB
import Shared

// Nodes that were made here and that the server merged with others which are here as well, under other names. The server goes on taking what is
// said of them, and means the others; the feed says nothing of them any more, so they go when they have no name and nothing more to say.
// Their inodes' numbers are in `Tree.merged` and in `meta`.
extension Tree {
    private static let mergedKey = "merged "

    static func loadMerged(_ database: Database) throws -> Set<InodeNumber> {
        let keys = try String.fetchAll(database, sql: "SELECT key FROM meta WHERE key GLOB ?", arguments: [mergedKey + "*"])
        return Set(keys.compactMap { UInt64($0.dropFirst(mergedKey.count)).map(InodeNumber.init(rawValue:)) })
    }

    /// What a folder holds moves to the other, for as long as the feed has not said so. What has a namesake there stays, and appears with the
    /// name that the server gave it.
    /// - Returns: what the kernel is to forget.
    func merge(_ inode: Inode, into other: Inode) throws(FileSystemError) -> [KernelEvent] {
        merged.insert(inode.number)
        try setMeta(Self.mergedKey + "\(inode.number.rawValue)", "")
        guard inode.isDirectory else { return [] }
        try rename(inode.id, other.id, inLog: ["parent", "other_parent"])
        let names = try change { rows in
            try String.fetchAll(
                rows.database, sql: "UPDATE OR IGNORE entries SET parent = ? WHERE parent = ? RETURNING name",
                arguments: [Int64(other.number.rawValue), Int64(inode.number.rawValue)])
        }
        inode.directoryVersion += 1
        other.directoryVersion += 1
        return names.map { .entry($0, in: other.number) }
    }

    /// Says of records that wait that they are about another node.
    func rename(_ id: NodeID, _ other: NodeID, inLog columns: [String]) throws(FileSystemError) {
        try change { rows in
            for column in columns {
                try rows.execute(sql: "UPDATE log SET \(column) = ? WHERE \(column) = ?", arguments: [other.data, id.data])
            }
        }
    }

    /// Unlinks those that have no name and nothing more to say. What is written to one later, by a program that has it open, is sent all the same.
    func releaseMerged() throws(FileSystemError) {
        for number in merged {
            let inode: Inode
            do throws(FileSystemError) { inode = try self.inode(number) } catch {
                guard error == .stale else { throw error }
                merged.remove(number)
                try change { try $0.execute(sql: "DELETE FROM meta WHERE key = ?", arguments: [Self.mergedKey + "\(number.rawValue)"]) }
                continue
            }
            if inode.links > 0, try place(of: number) == nil, try !isPending(inode) {
                inode.links = 0
                inode.wasRemovedElsewhere = inode.isRegular
                markDirty(inode)
            }
            releaseIfUnused(inode)
        }
    }
}
