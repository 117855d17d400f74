import GRDB
import Shared

extension MountedFileSystem {
    func opendir(_ number: InodeNumber) throws(FileSystemError) -> HandleID {
        if number.isOfVersions { return try openVersionsFolder(number) }
        return try tree.lock.withLock { () throws(FileSystemError) in register(try tree.hydrated(number), flags: 0) }
    }

    func readdir(_ id: HandleID, offset: Int64, plus: Bool, _ take: (DirectoryEntry) -> Bool) throws(FileSystemError) {
        if id.isOfVersions { return try readVersionsFolder(id, offset: offset, plus: plus, take) }
        let handle = try handle(id)
        try handle.lock.withLock { () throws(FileSystemError) in
            try tree.lock.withLock { () throws(FileSystemError) in
                tree.trim()
                if offset == 0 { try list(handle) }
                defer { releaseLoaded(handle) }
                try give(handle, from: offset, plus: plus, take)
            }
        }
    }

    /// Reads the listing anew: the start of a listing, or rewinddir(3).
    private func list(_ handle: Handle) throws(FileSystemError) {
        let number = handle.inode.number
        handle.listing = try tree.database.read { database in
            try Row.fetchAll(
                database.cachedStatement(sql: "SELECT name, inode FROM entries WHERE parent = ? ORDER BY name"), arguments: [Int64(number.rawValue)]
            ).map { Handle.Listed(name: $0[0], inode: InodeNumber(rawValue: UInt64($0[1] as Int64))) }
        }
        handle.listingVersion = handle.inode.directoryVersion
    }

    /// Offsets: 0 `.`, 1 `..`, n + 2 the listing's n-th; each entry carries its successor's.
    private func give(_ handle: Handle, from offset: Int64, plus: Bool, _ take: (DirectoryEntry) -> Bool) throws(FileSystemError) {
        var at = max(0, offset)
        if at == 0 {
            guard take(DirectoryEntry(name: ".", attributes: attributes(handle.inode), nextOffset: 1)) else { return }
            at = 1
        }
        if at == 1 {
            let parent = try tree.place(of: handle.inode.number)?.parent ?? .root
            guard take(DirectoryEntry(name: "..", attributes: attributes(try tree.inode(parent)), nextOffset: 2)) else { return }
            at = 2
        }
        var loaded = 0      // listed entries before this index have been looked for in memory
        let unchanged = handle.listingVersion == handle.inode.directoryVersion
        while Int(at) - 2 < handle.listing.count {
            let listed = handle.listing[Int(at) - 2]
            if plus, Int(at) - 2 >= loaded {
                loaded = Int(at) - 2 + Self.loadCount
                releaseLoaded(handle)
                try load(handle, from: Int(at) - 2)
            }
            at += 1
            // What was removed since must not come back to life in the kernel's cache.
            if !unchanged, try tree.entry(handle.inode.number, listed.name) != listed.inode { continue }
            let inode = try tree.inode(listed.inode)
            if plus { tree.addLookup(inode) }
            if !take(DirectoryEntry(name: listed.name, attributes: attributes(inode), nextOffset: at)) {
                if plus { tree.dropLookups(inode.number, 1) }
                return
            }
            if !plus { tree.releaseIfUnused(inode) }
        }
    }

    private static let loadCount = 32

    /// Brings the next inodes of a listing into memory with one statement.
    private func load(_ handle: Handle, from index: Int) throws(FileSystemError) {
        let wanted = handle.listing[index..<min(index + Self.loadCount, handle.listing.count)]
        guard wanted.count == Self.loadCount, wanted.allSatisfy({ tree.inodes[$0.inode] == nil }) else { return }
        let marks = [String](repeating: "?", count: Self.loadCount).joined(separator: ", ")
        let inodes = try tree.database.read { database in
            let statement = try database.cachedStatement(sql: "SELECT \(Inode.columns) FROM nodes WHERE inode IN (\(marks))")
            return try Row.fetchAll(statement, arguments: StatementArguments(wanted.map { Int64($0.inode.rawValue) })).map { try Inode(row: $0) }
        }
        for inode in inodes { tree.inodes[inode.number] = inode }
        handle.loaded = inodes
    }

    /// Lets go of what was loaded and not taken.
    private func releaseLoaded(_ handle: Handle) {
        for inode in handle.loaded { tree.releaseIfUnused(inode) }
        handle.loaded = []
    }

    func releasedir(_ id: HandleID) {
        if id.isOfVersions { return closeVersions(id) }
        guard let handle = unregister(id) else { return }
        tree.lock.withLock {
            handle.inode.uses -= 1
            tree.releaseIfUnused(handle.inode)
        }
    }
}
