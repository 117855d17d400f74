import Foundation
import GRDB
import Shared

// Calls that change which name leads where.
extension MountedFileSystem {
    func mknod(_ parent: InodeNumber, _ name: String, mode: UInt32, device: UInt64, caller: Caller) throws(FileSystemError) -> Attributes {
        try tree.lock.withLock { () throws(FileSystemError) in
            let inode = try makeNode(parent, name, mode: mode, device: device, caller: caller)
            tree.addLookup(inode)
            return attributes(inode)
        }
    }

    func mkdir(_ parent: InodeNumber, _ name: String, mode: UInt32, caller: Caller) throws(FileSystemError) -> Attributes {
        try mknod(parent, name, mode: FileType.directory.rawValue | mode & 0o7777, device: 0, caller: caller)
    }

    func symlink(_ parent: InodeNumber, _ name: String, target: String, caller: Caller) throws(FileSystemError) -> Attributes {
        guard (1...4095).contains(target.utf8.count) else { throw .nameTooLong }
        return try tree.lock.withLock { () throws(FileSystemError) in
            let inode = try makeNode(parent, name, mode: FileType.symlink.rawValue | 0o777, target: target, caller: caller)
            tree.addLookup(inode)
            return attributes(inode)
        }
    }

    /// A new node and its entry. Under `Tree.lock`.
    private func makeNode(
        _ parent: InodeNumber, _ name: String, mode: UInt32, device: UInt64 = 0, target: String? = nil, caller: Caller
    ) throws(FileSystemError) -> Inode {
        guard FileType(mode: mode) != nil else { throw .invalid }
        guard try tree.entry(parent, name) == nil else { throw .exists }
        return try makeAbsentNode(parent, name, mode: mode, device: device, target: target, caller: caller)
    }

    /// The same where nothing has the name, as far as is known here.
    func makeAbsentNode(
        _ parent: InodeNumber, _ name: String, mode: UInt32, device: UInt64 = 0, target: String? = nil, caller: Caller
    ) throws(FileSystemError) -> Inode {
        let directory = try tree.hydrated(parent)
        guard directory.links > 0 else { throw .notFound }
        try tree.requireWritable(directory)
        try tree.requireRoom()
        let now = Timestamp.now()
        var mode = mode
        var (uid, gid) = (options.uid, options.gid)
        if options.posixOwners {
            (uid, gid) = (caller.uid, caller.gid)
            if directory.mode & 0o2000 != 0 {   // inode(7), S_ISGID: new nodes take the directory's group
                gid = directory.gid
                if mode & 0o170000 == FileType.directory.rawValue { mode |= 0o2000 }
            }
        }
        let inode = tree.makeInode(in: directory.namespace, mode: mode, uid: uid, gid: gid, device: device, time: now)
        inode.target = target
        if let target { inode.size = UInt64(target.utf8.count) }
        let record = LogRecord(namespace: directory.namespace, kind: .create, inode: inode.number, node: inode.id, parent: directory.id, name: name, time: now)
        try tree.change { rows in
            try Self.insertEntry(rows, parent, name, inode.number)
            try tree.record(rows, record)
        }
        tree.register(inode)
        entriesChanged(directory, now)
        return inode
    }

    func link(_ number: InodeNumber, _ newParent: InodeNumber, _ newName: String) throws(FileSystemError) -> Attributes {
        try tree.lock.withLock { () throws(FileSystemError) in
            let inode = try tree.inode(number)
            let directory = try tree.hydrated(newParent)
            guard !inode.isDirectory else { throw .notPermitted }
            guard inode.links > 0, directory.links > 0 else { throw .notFound }
            guard try tree.entry(newParent, newName) == nil else { throw .exists }
            guard inode.namespace == directory.namespace else { throw .crossDevice }
            try tree.requireWritable(directory)
            try tree.requireRoom()
            let now = Timestamp.now()
            let record = LogRecord(namespace: directory.namespace, kind: .link, inode: number, node: inode.id, parent: directory.id, name: newName, time: now)
            try tree.change { rows in
                try Self.insertEntry(rows, newParent, newName, number)
                try tree.record(rows, record)
            }
            inode.links += 1
            inode.changed = now
            tree.addLookup(inode)
            tree.markDirty(inode)
            entriesChanged(directory, now)
            return attributes(inode)
        }
    }

    func unlink(_ parent: InodeNumber, _ name: String, caller: Caller) throws(FileSystemError) {
        try tree.lock.withLock { () throws(FileSystemError) in
            let directory = try tree.hydrated(parent)
            let inode = try tree.requireEntry(parent, name)
            guard !inode.isDirectory else { throw .isDirectory }
            try tree.requireWritable(directory)
            try remove(inode, from: directory, name)
        }
    }

    func rmdir(_ parent: InodeNumber, _ name: String, caller: Caller) throws(FileSystemError) {
        try tree.lock.withLock { () throws(FileSystemError) in
            let directory = try tree.hydrated(parent)
            let inode = try tree.requireEntry(parent, name)
            guard inode.isDirectory else { throw .notDirectory }
            try tree.requireWritable(directory)
            // As a mount point: it is left by `boxfs share leave`, so that `rm -r` never means that.
            guard !tree.isJunction(inode) else { throw .busy }
            try requireEmpty(inode)
            try remove(inode, from: directory, name)
        }
    }

    private func requireEmpty(_ directory: Inode) throws(FileSystemError) {
        guard directory.hydration == .complete else { throw .missing(.directory(directory.number)) }
        guard try tree.isEmpty(directory.number) else { throw .notEmpty }
    }

    private func remove(_ inode: Inode, from directory: Inode, _ name: String) throws(FileSystemError) {
        let now = Timestamp.now()
        let record = LogRecord(
            namespace: directory.namespace, kind: .remove, inode: inode.number, node: inode.id, parent: directory.id, name: name, version: inode.version, time: now)
        try tree.change { rows in
            try Self.deleteEntry(rows, directory.number, name)
            try tree.record(rows, record)
        }
        unlinked(inode, now)
        entriesChanged(directory, now)
    }

    /// One entry fewer names the inode.
    private func unlinked(_ inode: Inode, _ time: Timestamp) {
        inode.links = inode.isDirectory || inode.links == 0 ? 0 : inode.links - 1
        // Between a change of ours and its answer a file may stand where the server has it as well, in a place more than it counts.
        if inode.links == 0, !inode.isDirectory, (try? tree.place(of: inode.number)) ?? nil != nil { inode.links = 1 }
        inode.changed = time
        tree.markDirty(inode)
        if inode.links == 0 {
            inode.wasRemovedElsewhere = false
            inode.file?.hasUnlogged = false
        }
    }

    func rename(
        _ parent: InodeNumber, _ name: String, _ newParent: InodeNumber, _ newName: String, flags: UInt32, caller: Caller
    ) throws(FileSystemError) {
        let noReplace: UInt32 = 1, exchange: UInt32 = 2     // renameat2(2)
        guard flags == 0 || flags == noReplace || flags == exchange else { throw .invalid }
        try tree.lock.withLock { () throws(FileSystemError) in
            let from = try tree.hydrated(parent), to = try tree.hydrated(newParent)
            let inode = try tree.requireEntry(parent, name)
            let target = try tree.entry(newParent, newName).map { number throws(FileSystemError) in try tree.inode(number) }
            guard to.links > 0 else { throw .notFound }
            if target == nil, VersionsFolder.stands(in: newParent, newName) { throw .readOnly }
            guard from.namespace == to.namespace else { throw .crossDevice }
            try tree.requireWritable(from)
            if inode.isDirectory, try tree.isInside(newParent, inode.number) { throw .invalid }
            if let target, target !== inode, tree.isJunction(target) { throw .busy }
            if flags == exchange {
                guard let target else { throw .notFound }
                if target === inode { return }      // links to one file
                if target.isDirectory, try tree.isInside(parent, target.number) { throw .invalid }
                return try swap(inode, from, name, target, to, newName)
            }
            if let target {
                if flags == noReplace { throw .exists }
                if target.number == inode.number { return }     // rename(2): links to one file, nothing happens
                if inode.isDirectory {
                    guard target.isDirectory else { throw .notDirectory }
                    try requireEmpty(target)
                } else if target.isDirectory {
                    throw .isDirectory
                }
            }
            try move(inode, from, name, to, newName, replacing: target)
        }
    }

    private func move(_ inode: Inode, _ from: Inode, _ name: String, _ to: Inode, _ newName: String, replacing target: Inode?) throws(FileSystemError) {
        let now = Timestamp.now()
        // The content of an atomically replaced file must reach the log before the rename that shows it.
        try tree.logContent(inode)
        let record = LogRecord(
            namespace: from.namespace, kind: .rename, inode: inode.number, node: tree.entryID(inode), parent: from.id, name: name, otherNode: target?.id,
            otherParent: to.id, otherName: newName, version: target?.version, time: now)
        try tree.change { rows in
            try Self.deleteEntry(rows, from.number, name)
            if target != nil { try Self.deleteEntry(rows, to.number, newName) }
            try Self.insertEntry(rows, to.number, newName, inode.number)
            try tree.record(rows, record)
        }
        if let target { unlinked(target, now) }
        inode.changed = now
        tree.markDirty(inode)
        entriesChanged(from, now)
        entriesChanged(to, now)
        moved((from.number, name), (to.number, newName))
    }

    /// The kernel gives the new name to the inode that it knew by the old one, which may not be the one that was moved here: it goes by what it was
    /// told (d_move, fs/dcache.c), and may not have heard of the latest change from elsewhere.
    private func moved(_ places: (InodeNumber, String)...) {
        if tree.untoldEntries > 0 { fetcher.moved(places) }
    }

    private func swap(_ one: Inode, _ from: Inode, _ name: String, _ other: Inode, _ to: Inode, _ otherName: String) throws(FileSystemError) {
        let now = Timestamp.now()
        let record = LogRecord(
            namespace: from.namespace, kind: .exchange, inode: one.number, node: tree.entryID(one), parent: from.id, name: name, otherNode: other.id,
            otherParent: to.id, otherName: otherName, time: now)
        try tree.change { rows in
            try Self.deleteEntry(rows, from.number, name)
            try Self.deleteEntry(rows, to.number, otherName)
            try Self.insertEntry(rows, from.number, name, other.number)
            try Self.insertEntry(rows, to.number, otherName, one.number)
            try tree.record(rows, record)
        }
        for inode in [one, other] {
            inode.changed = now
            tree.markDirty(inode)
        }
        entriesChanged(from, now)
        entriesChanged(to, now)
        moved((from.number, name), (to.number, otherName))
    }

    // MARK: Rows

    private func entriesChanged(_ directory: Inode, _ time: Timestamp) {
        directory.touch(time)
        directory.directoryVersion += 1
        tree.markTouched(directory)
    }

    static func insertEntry(_ rows: RowChanges, _ parent: InodeNumber, _ name: String, _ inode: InodeNumber, sequence: Int64 = 0) throws {
        try rows.execute(
            sql: "INSERT INTO entries (parent, name, inode, sequence) VALUES (?, ?, ?, ?)",
            arguments: [Int64(parent.rawValue), name, Int64(inode.rawValue), sequence])
    }

    static func deleteEntry(_ rows: RowChanges, _ parent: InodeNumber, _ name: String) throws {
        try rows.execute(sql: "DELETE FROM entries WHERE parent = ? AND name = ?", arguments: [Int64(parent.rawValue), name])
    }
}
