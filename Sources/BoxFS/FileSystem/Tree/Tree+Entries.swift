import GRDB
import Shared

// Names, and where nodes stand. The rows answer: nothing of it lies in memory.
extension Tree {
    func entry(_ parent: InodeNumber, _ name: String) throws(FileSystemError) -> InodeNumber? {
        try database.read { database in
            try database.cachedStatement(sql: "SELECT inode FROM entries WHERE parent = ? AND name = ?")
                .integer([Int64(parent.rawValue).databaseValue, name.databaseValue], database).map { InodeNumber(rawValue: UInt64($0)) }
        }
    }

    func requireEntry(_ parent: InodeNumber, _ name: String) throws(FileSystemError) -> Inode {
        guard let number = try entry(parent, name) else { throw VersionsFolder.stands(in: parent, name) ? .readOnly : .notFound }
        return try inode(number)
    }

    func isEmpty(_ directory: InodeNumber) throws(FileSystemError) -> Bool {
        try database.read { database in
            try Int64.fetchOne(
                database.cachedStatement(sql: "SELECT 1 FROM entries WHERE parent = ? LIMIT 1"), arguments: [Int64(directory.rawValue)])
        } == nil
    }

    /// One place where the node stands, nil for the root and for what is unlinked.
    func place(of number: InodeNumber) throws(FileSystemError) -> (parent: InodeNumber, name: String)? {
        try database.read { database in
            try Row.fetchOne(
                database.cachedStatement(sql: "SELECT parent, name FROM entries WHERE inode = ? LIMIT 1"), arguments: [Int64(number.rawValue)]
            ).map { (InodeNumber(rawValue: UInt64($0[0] as Int64)), $0[1]) }
        }
    }

    /// Path from the mount's root, without a leading slash; nil when it is unlinked.
    func path(of number: InodeNumber) throws(FileSystemError) -> String? {
        let (path, top) = try path(of: number, below: .root)
        return top == .root ? path : nil
    }

    /// Path from a directory, or from where the way up ends before it.
    /// - Returns: also what the path begins at.
    func path(of number: InodeNumber, below directory: InodeNumber) throws(FileSystemError) -> (path: String, top: InodeNumber) {
        var parts: [String] = [], at = number
        while at != directory, at != .root, let (parent, name) = try place(of: at) {
            parts.append(name)
            at = parent
        }
        return (parts.reversed().joined(separator: "/"), at)
    }

    /// Whether `directory` is `ancestor` or lies below it.
    func isInside(_ directory: InodeNumber, _ ancestor: InodeNumber) throws(FileSystemError) -> Bool {
        var at = directory
        while at != ancestor {
            guard at != .root, let (parent, _) = try place(of: at) else { return false }
            at = parent
        }
        return true
    }
}
