import Glibc
import Shared

// Open files: their data.
extension MountedFileSystem {
    func create(_ parent: InodeNumber, _ name: String, mode: UInt32, flags: Int32, caller: Caller) throws(FileSystemError) -> (Attributes, OpenFile) {
        try tree.lock.withLock { () throws(FileSystemError) in
            let inode: Inode
            if let number = try tree.entry(parent, name) {      // it came from elsewhere just now
                if flags & O_EXCL != 0 { throw .exists }
                inode = try tree.inode(number)
                guard inode.isRegular else { throw inode.isDirectory ? .isDirectory : .exists }
                if flags & O_ACCMODE != O_RDONLY { try tree.requireWritable(inode) }
                if flags & O_TRUNC != 0 {
                    emptied(inode)
                    let file = try tree.content(of: inode)
                    try file.truncate(to: 0, inode: number)
                    try contentChanged(inode, file)
                    inode.pagesValid = false
                }
            } else {
                inode = try makeAbsentNode(parent, name, mode: FileType.regular.rawValue | mode & 0o7777, caller: caller)
                inode.file = FileContent(size: 0, slots: SlotTable(), cache: tree.cache, store: tree.segments)
            }
            tree.addLookup(inode)
            return (attributes(inode), OpenFile(handle: register(inode, flags: flags), keepCache: true))
        }
    }

    func open(_ number: InodeNumber, flags: Int32, caller: Caller) throws(FileSystemError) -> OpenFile {
        if number.isOfVersions { return try openVersion(number, flags: flags) }
        if flags & O_TRUNC != 0, flags & O_ACCMODE != O_RDONLY {
            let changes = AttributeChanges(size: 0, killPrivileges: caller.uid != 0)
            _ = try setattr(number, changes, handle: HandleID(rawValue: 0), caller: caller)
        }
        return try tree.lock.withLock { () throws(FileSystemError) in
            tree.trim()
            let inode = try tree.inode(number)
            guard inode.isRegular else { throw inode.isDirectory ? .isDirectory : .invalid }
            if flags & O_ACCMODE != O_RDONLY { try tree.requireWritable(inode) }
            let keep = inode.pagesValid
            inode.pagesValid = true
            return OpenFile(handle: register(inode, flags: flags), keepCache: keep)
        }
    }

    /// Throws ESTALE for a file of a shared folder that was left: an empty answer would be a lie.
    func content(_ inode: Inode) throws(FileSystemError) -> FileContent {
        try tree.lock.withLock { () throws(FileSystemError) in
            _ = try tree.namespace(of: inode)
            return try tree.content(of: inode)
        }
    }

    func read(_ id: HandleID, offset: Int64, count: Int) throws(FileSystemError) -> [ReadPiece] {
        if id.isOfVersions {
            let opened = try versions.opened(id), file = try opened.file()
            return try read(file.content, of: file.of, opened.readAhead.withLock { $0.window(offset: offset, count: count) }, offset, count)
        }
        let handle = try handle(id)
        return try read(content(handle.inode), of: handle.inode.number, handle.readAhead.withLock { $0.window(offset: offset, count: count) }, offset, count)
    }

    /// - Parameter ahead: stretches of 4 MiB that a sequential reader will come to.
    private func read(_ file: FileContent, of number: InodeNumber, _ ahead: Range<Int>?, _ offset: Int64, _ count: Int) throws(FileSystemError) -> [ReadPiece] {
        if let ahead {
            let chunks = file.absentChunks(ahead)
            if chunks.isEmpty { file.warm(ahead) } else { fetcher.prefetch(chunks, for: number) }
        }
        return try file.read(offset: offset, count: count, inode: number)
    }

    func write(_ id: HandleID, offset: Int64, _ bytes: UnsafeRawBufferPointer) throws(FileSystemError) {
        guard !bytes.isEmpty else { return }
        guard offset >= 0, offset <= Int64(FileContent.maximumByteCount) - Int64(bytes.count) else { throw .fileTooBig }
        let handle = try handle(id)
        try checkQuota(handle.inode, end: offset + Int64(bytes.count))
        let pressure = tree.cache.pressure
        if let wait = handle.pace.withLock({ $0.milliseconds(bytes.count, pressure: pressure) }) { throw .missing(.pace(milliseconds: wait)) }
        try changing(handle.inode) { file throws(FileSystemError) in
            try file.write(offset: Int(offset), bytes, inode: handle.inode.number)
            return true
        }
        // What fills the cache is sent before it is closed.
        if pressure > 0 { try tree.lock.withLock { () throws(FileSystemError) in try tree.logContent(handle.inode) } }
    }

    /// A shared folder counts for its owner, whose quota the server knows.
    ///
    /// - Parameter end: where the file will end, if it does not end further behind already.
    private func checkQuota(_ inode: Inode, end: Int64) throws(FileSystemError) {
        let (limit, used) = fetcher.quota
        guard let limit else { return }
        let growth = tree.lock.withLock { inode.namespace == Namespace.home ? end - Int64(inode.size) : 0 }
        if growth > 0, used + tree.cache.unsentBytes + UInt64(growth) > limit { throw .quotaExceeded }
    }

    func flush(_ id: HandleID) throws(FileSystemError) {
        if id.isOfVersions { return }
        let handle = try handle(id)
        guard handle.isWritable else { return }
        try tree.lock.withLock { () throws(FileSystemError) in
            try tree.logContent(handle.inode)
            try tree.keep()
        }
    }

    func release(_ id: HandleID) {
        if id.isOfVersions { return closeVersions(id) }
        guard let handle = unregister(id) else { return }
        tree.lock.withLock {
            let inode = handle.inode
            inode.uses -= 1
            if handle.isWritable {
                tree.openWriters -= 1
                // A mapped page may be written after the last close's flush; a failure shows in `Tree.failure`.
                try? tree.logContent(inode)
                if tree.openWriters == 0 { tree.writersGone() }
            }
            if inode.uses == 0 { inode.file?.closeDescriptors() }
            tree.releaseIfUnused(inode)
        }
    }

    func fsync(_ id: HandleID, dataOnly: Bool) throws(FileSystemError) {
        if id.isOfVersions { return }
        let inode = try handle(id).inode
        let (file, log) = try tree.lock.withLock { () throws(FileSystemError) in
            let file = inode.isRegular ? try tree.content(of: inode) : nil
            try tree.logContent(inode)
            return (file, tree.lastLog)
        }
        func syncRows(_ hasChanged: Bool) throws(FileSystemError) {
            let rows = try tree.lock.withLock { () throws(FileSystemError) in
                if hasChanged { tree.markContentDirty(inode) }
                try tree.logContent(inode)
                try tree.commit()
                return file?.savedRows(log: tree.lastLog)
            }
            try tree.database.sync()
            file?.rowsAreSynced(rows)
        }
        if let file { try file.sync(log: log, dataOnly: dataOnly, rows: syncRows) } else { try syncRows(false) }
        if options.durability == .server, !fetcher.isUploaded(inode.number) { throw .missing(.uploaded(upTo: tree.lock.withLock { tree.lastLog })) }
    }

    func logAll() throws(FileSystemError) -> Int64 { try tree.lock.withLock { () throws(FileSystemError) in try tree.logOpenFiles() } }

    func requireUploaded(upTo log: Int64) throws(FileSystemError) {
        if fetcher.acknowledgedLog < log { throw .missing(.uploaded(upTo: log)) }
    }

    func fsyncdir(_ id: HandleID) throws(FileSystemError) {
        try fsync(id, dataOnly: false)
    }

    func fallocate(_ id: HandleID, mode: Int32, offset: Int64, length: Int64) throws(FileSystemError) {
        let keepSize: Int32 = 1, punchHole: Int32 = 2, zeroRange: Int32 = 16     // fallocate(2)
        guard offset >= 0, length > 0, offset <= Int64.max - length else { throw .invalid }
        let handle = try handle(id)
        let end = UInt64(offset + length)
        switch mode {
        case 0, keepSize, zeroRange, zeroRange | keepSize, punchHole | keepSize: break
        default: throw .notSupported
        }
        if mode & punchHole == 0 {
            guard end <= FileContent.maximumByteCount else { throw .fileTooBig }
            // The server's space cannot be set aside: what a quota would refuse is refused now.
            try checkQuota(handle.inode, end: Int64(end))
        }
        guard mode != keepSize else { return try tree.lock.withLock { () throws(FileSystemError) in try tree.requireWritable(handle.inode) } }
        try changing(handle.inode) { file throws(FileSystemError) in
            if mode & (punchHole | zeroRange) != 0 { try file.punchHole(UInt64(offset)..<end, inode: handle.inode.number) }
            if mode & keepSize == 0, end > file.byteCount { try file.truncate(to: end, inode: handle.inode.number) }
            return true
        }
    }

    func lseek(_ id: HandleID, offset: Int64, whence: Int32) throws(FileSystemError) -> Int64 {
        let seekData: Int32 = 3, seekHole: Int32 = 4     // lseek(2)
        guard offset >= 0 else { throw .noSuchOffset }
        guard whence == seekData || whence == seekHole else { throw .invalid }
        let file = id.isOfVersions ? try versions.opened(id).file().content : try content(handle(id).inode)
        return Int64(try file.seek(UInt64(offset), data: whence == seekData))
    }

    func copyFileRange(
        _ sourceID: HandleID, sourceOffset: Int64, _ targetID: HandleID, targetOffset: Int64, count: Int
    ) throws(FileSystemError) -> Int {
        if sourceID.isOfVersions { throw .crossDevice }     // the caller reads and writes instead
        let source = try handle(sourceID), target = try handle(targetID)
        let from = try content(source.inode), size = from.byteCount
        guard sourceOffset >= 0, targetOffset >= 0 else { throw .invalid }
        guard UInt64(sourceOffset) < size else { return 0 }
        let length = min(UInt64(count), size - UInt64(sourceOffset))
        guard UInt64(targetOffset) + length <= FileContent.maximumByteCount else { throw .fileTooBig }
        try checkQuota(target.inode, end: targetOffset + Int64(length))
        let isShared = try changing(target.inode) { to throws(FileSystemError) in
            guard source.inode.namespace == target.inode.namespace,
                  let parts = sharedSlots(from, sourceOffset, to, targetOffset, length, sourceSize: size) else { return false }
            to.share(parts, at: Int(targetOffset), byteCount: Int(length))
            return true
        }
        if isShared { return Int(length) }
        var copied = 0
        let most = min(Int(length), Self.copyByteCount)
        while copied < most {
            // Up to the next multiple of 4 MiB, where the caller's next call may begin to share.
            let at = sourceOffset + Int64(copied)
            let part = min(most - copied, SlotTable.stretchEnd(Int(at)) - Int(at))
            do throws(FileSystemError) {
                let bytes = try readBytes(from.read(offset: at, count: part, inode: source.inode.number), count: part)
                guard !bytes.isEmpty else { break }     // the source was truncated meanwhile
                try bytes.withBytes { bytes throws(FileSystemError) in try write(targetID, offset: targetOffset + Int64(copied), bytes) }
                copied += bytes.count
            } catch {
                guard copied > 0 else { throw error }
                break
            }
        }
        return copied
    }

    /// What one call copies at most when it cannot share, in bytes: some milliseconds of work.
    private static let copyByteCount = 16 << 20

    /// The source's slots when chunks can be shared: both ranges start at a multiple of 4 MiB, all is sealed, and nothing in the target
    /// follows 4 MiB that would be cut short.
    private func sharedSlots(
        _ from: FileContent, _ sourceOffset: Int64, _ to: FileContent, _ targetOffset: Int64, _ length: UInt64, sourceSize: UInt64
    ) -> SlotTable? {
        let stretch = UInt64(SlotTable.stretch)
        guard from !== to, UInt64(sourceOffset).isMultiple(of: stretch), UInt64(targetOffset).isMultiple(of: stretch) else { return nil }
        guard length.isMultiple(of: stretch) || (UInt64(sourceOffset) + length == sourceSize && to.byteCount <= UInt64(targetOffset) + length)
        else { return nil }
        let parts = from.lock.withLock { from.slots.part(Int(sourceOffset)..<Int(sourceOffset) + Int(length)) }
        return parts.flatMap { $0.allSatisfy { $0.segment == nil } ? $0 : nil }
    }

    func readBytes(_ pieces: [ReadPiece], count: Int) throws(FileSystemError) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        for piece in pieces {
            switch piece {
            case .zeros(let count): bytes.append(contentsOf: repeatElement(0, count: count))
            case .bytes(let part): bytes += part
            case .file(let descriptor, let offset, let count):
                let part = [UInt8](unsafeUninitializedCapacity: count) { buffer, done in
                    done = readAll(descriptor.rawValue, UnsafeMutableRawBufferPointer(buffer), at: Int(offset)) ? count : 0
                }
                guard part.count == count else { throw .io }
                bytes += part
            }
        }
        return bytes
    }
}
