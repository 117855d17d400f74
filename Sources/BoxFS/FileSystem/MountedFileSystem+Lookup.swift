import GRDB
import Shared

extension MountedFileSystem {
    func lookup(_ parent: InodeNumber, _ name: String) throws(FileSystemError) -> Attributes {
        if let attributes = try lookupVersions(parent, name) { return attributes }
        return try tree.lock.withLock { () throws(FileSystemError) in
            tree.trim()
            let directory = try tree.directory(parent)
            guard let number = try tree.entry(parent, name) else {
                if directory.hydration != .complete { throw .missing(.directory(parent)) }
                throw .notFound
            }
            let inode = try tree.inode(number)
            tree.addLookup(inode)
            return attributes(inode)
        }
    }

    func forget(_ number: InodeNumber, count: UInt64) {
        if number.isOfVersions { return versions.forget(number, count) }
        tree.lock.withLock { tree.dropLookups(number, count) }
    }

    func isKnownToKernel(_ number: InodeNumber) -> Bool { tree.lock.withLock { tree.lookups[number] != nil } }

    func getattr(_ number: InodeNumber) throws(FileSystemError) -> Attributes {
        if number.isOfVersions { return try versionsAttributes(number) }
        return try tree.lock.withLock { () throws(FileSystemError) in
            tree.trim()
            let inode = try tree.inode(number)
            _ = try tree.namespace(of: inode)
            return attributes(inode)
        }
    }

    func readlink(_ number: InodeNumber) throws(FileSystemError) -> String {
        try tree.lock.withLock { () throws(FileSystemError) in
            tree.trim()
            guard let target = try tree.inode(number).target else { throw .invalid }
            return target
        }
    }

    func setattr(_ number: InodeNumber, _ changes: AttributeChanges, handle: HandleID?, caller: Caller) throws(FileSystemError) -> Attributes {
        if let size = changes.size { try truncate(number, to: size, logged: handle == nil) }
        return try tree.lock.withLock { () throws(FileSystemError) in
            let inode = try tree.inode(number)
            try tree.requireWritable(inode)
            let now = Timestamp.now()
            var mask: AttributeMask = []
            var mode = inode.mode
            if let wanted = changes.mode { mode = inode.mode & 0o170000 | wanted & 0o7777 }
            let isOwnerGiven = changes.uid != nil || changes.gid != nil     // chown(2) clears, even where it changes nothing
            if changes.killPrivileges || isOwnerGiven && !options.posixOwners { mode = Self.withoutPrivileges(mode) }
            if mode != inode.mode || changes.mode != nil { mask.insert(.mode) }
            // Without --posix-owners everything belongs to one person: only root gets here with another owner (the
            // kernel refuses the rest), and a restored archive is worth more to root than an error at each file.
            let uid = options.posixOwners ? changes.uid : nil, gid = options.posixOwners ? changes.gid : nil
            if uid != nil { mask.insert(.uid) }
            if gid != nil { mask.insert(.gid) }
            if changes.accessed != nil { mask.insert(.accessed) }
            if changes.modified != nil { mask.insert(.modified) }
            guard !mask.isEmpty else { return attributes(inode) }
            try tree.log(LogRecord(namespace: inode.namespace, kind: .setattr, inode: number, node: inode.id, mask: mask, time: now), of: inode)
            inode.mode = mode
            if let uid { inode.uid = uid }
            if let gid { inode.gid = gid }
            if let time = changes.accessed { inode.accessed = time == .now ? now : Self.time(time, now) }
            if let time = changes.modified { inode.modified = Self.time(time, now) }
            inode.changed = now
            tree.markDirty(inode)
            return attributes(inode)
        }
    }

    private static func time(_ time: AttributeChanges.Time, _ now: Timestamp) -> Timestamp {
        switch time {
        case .now: now
        case .at(let time): time
        }
    }

    /// Set-user-ID goes, and set-group-ID where the group may execute (the kernel's `setattr_should_drop_sgid`).
    static func withoutPrivileges(_ mode: UInt32) -> UInt32 {
        guard mode & 0o170000 == FileType.regular.rawValue else { return mode }
        return mode & ~(0o4000 | (mode & 0o010 != 0 ? 0o2000 : 0))
    }

    private func truncate(_ number: InodeNumber, to size: UInt64, logged: Bool) throws(FileSystemError) {
        guard size <= FileContent.maximumByteCount else { throw .fileTooBig }
        let inode = try tree.lock.withLock { () throws(FileSystemError) in
            let inode = try tree.inode(number)
            try tree.requireWritable(inode)
            if size == 0, inode.isRegular { emptied(inode) }
            inode.uses += 1
            return inode
        }
        defer {
            tree.lock.withLock {
                inode.uses -= 1
                tree.releaseIfUnused(inode)
            }
        }
        try changing(inode) { file throws(FileSystemError) in
            try file.truncate(to: size, inode: number)
            return true
        }
        if logged { try tree.lock.withLock { () throws(FileSystemError) in try tree.logContent(inode) } }
    }

    /// Runs a change of a file's bytes. From before its first byte until it is done the file counts as pending, so what comes from elsewhere
    /// meanwhile waits (`FeedApplier`) and takes the place of nothing that was written. The caller pins the inode by `uses`.
    ///
    /// - Parameter body: returns whether it changed anything. If it fails for what is missing, it changed nothing.
    @discardableResult
    func changing(_ inode: Inode, _ body: (FileContent) throws(FileSystemError) -> Bool) throws(FileSystemError) -> Bool {
        let file = try tree.lock.withLock { () throws(FileSystemError) in
            try tree.requireWritable(inode)     // the role may have changed since the file was opened
            let file = try tree.content(of: inode)
            inode.changesUnderWay += 1
            return file
        }
        let result = Result { () throws(FileSystemError) in try body(file) }
        let isChanged = switch result {
        case .success(let isChanged): isChanged
        case .failure(.missing): false
        case .failure: true
        }
        defer { if !isChanged { fetcher.changeGivenUp() } }
        try tree.lock.withLock { () throws(FileSystemError) in
            inode.changesUnderWay -= 1
            if isChanged { try contentChanged(inode, file) }
        }
        return try result.get()
    }

    /// A file that loses all its content needs none of its manifest. Under `Tree.lock`.
    func emptied(_ inode: Inode) {
        guard inode.file == nil, inode.pages != nil else { return }
        inode.pages = nil
        inode.file = FileContent(size: 0, slots: SlotTable(), cache: tree.cache, store: tree.segments)
    }

    /// Under `Tree.lock`, since before the change or within `changing`.
    func contentChanged(_ inode: Inode, _ file: FileContent) throws(FileSystemError) {
        inode.size = file.byteCount
        inode.touch(file.takeWriteTime() ?? .now())
        file.hasUnlogged = true
        tree.markContentDirty(inode)
        if tree.dirtyContents.count >= Tree.maximumDirtyContents { try tree.commit() }
        if !options.posixOwners, inode.mode & 0o6000 != 0 || inode.xattrs[Self.capabilities] != nil { try dropPrivileges(inode) }
    }

    private static let capabilities = "security.capability"

    /// What a write takes away: file capabilities, and set-user-ID unless root writes. With --posix-owners the kernel does it.
    private func dropPrivileges(_ inode: Inode) throws(FileSystemError) {
        if inode.xattrs[Self.capabilities] != nil {
            try logXattr(inode, Self.capabilities)
            inode.xattrs[Self.capabilities] = nil
        }
        let mode = options.uid == 0 ? inode.mode : Self.withoutPrivileges(inode.mode)
        guard mode != inode.mode else { return }
        try tree.log(
            LogRecord(namespace: inode.namespace, kind: .setattr, inode: inode.number, node: inode.id, mask: .mode, time: inode.changed), of: inode)
        inode.mode = mode
        tree.markDirty(inode)
        fetcher.attributesChanged(inode.number)
    }

    func statfs() throws(FileSystemError) -> FileSystemStatistics {
        let (limit, stored) = fetcher.quota
        let used = stored + tree.cache.unsentBytes
        let blockSize: UInt64 = 4096
        // Without a quota: what a 64-bit file system of no known end shows; df must not say "full".
        let total = limit ?? max(1 << 50, used * 2)
        let files = try tree.lock.withLock { () throws(FileSystemError) in tree.nextInode }
        return FileSystemStatistics(
            blockSize: blockSize, blocks: total / blockSize, freeBlocks: total > used ? (total - used) / blockSize : 0,
            files: files + (1 << 40), freeFiles: 1 << 40, maximumNameLength: UInt64(EntryName.maximumByteCount))
    }
}
