import CFuse3
import Glibc
import Shared

/// Ten years: the mount is told of changes and invalidates, so the kernel never needs to ask again.
private let longCacheSeconds: Double = 315_360_000

extension Attributes {
    /// Nobody is told of what changes in `.boxfs`.
    fileprivate var cacheSeconds: Double { inode.isOfVersions ? 1 : longCacheSeconds }

    var stat: stat {
        var stat = Glibc.stat()
        stat.st_ino = UInt(inode.rawValue)
        stat.st_mode = mode
        stat.st_nlink = nlink_t(links)
        stat.st_uid = uid
        stat.st_gid = gid
        stat.st_rdev = UInt(device)
        stat.st_size = off_t(clamping: size)
        stat.st_blocks = blkcnt_t(clamping: blocks)
        stat.st_blksize = 1 << 20
        stat.st_atim = accessed.timespec
        stat.st_mtim = modified.timespec
        stat.st_ctim = changed.timespec
        return stat
    }

    var entry: fuse_entry_param {
        var entry = fuse_entry_param()
        entry.ino = fuse_ino_t(inode.rawValue)
        entry.attr = stat
        entry.attr_timeout = cacheSeconds
        entry.entry_timeout = cacheSeconds
        return entry
    }
}

extension FuseRequest {
    func reply(attributes: Attributes) { reply(attributes: attributes, lasting: attributes.cacheSeconds) }

    private func reply(attributes: Attributes, lasting seconds: Double) {
        var stat = attributes.stat
        answer { fuse_reply_attr($0, &stat, seconds) }
    }

    /// Of a file of which our own thread shows a change. The kernel takes the attributes that it gets for a change that was asked for, however old
    /// they are by then (fuse_change_attributes_common, fs/fuse/inode.c): what came from elsewhere and was told in between would be forgotten. So
    /// they do not last: whoever wants to know asks again. Of a program's own change nothing can come from elsewhere before the server answered it.
    func reply(shownAttributes attributes: Attributes) { reply(attributes: attributes, lasting: 0) }

    /// Gives the lookup count back if the kernel does not take the answer.
    func reply(entry attributes: Attributes, _ fileSystem: any FileSystemOperations, attributeSeconds: Double? = nil) {
        var entry = attributes.entry
        if let attributeSeconds { entry.attr_timeout = attributeSeconds }
        made = attributes.inode.rawValue
        if answer({ fuse_reply_entry($0, &entry) }) == -ENOENT { fileSystem.forget(attributes.inode, count: 1) }
    }

    /// A look-up by our own thread, which is about to "make" or to "remove" the name. Kept by nobody.
    func reply(_ pretence: ChangeReplay.Pretence, _ replay: ChangeReplay, isThere: () throws(FileSystemError) -> Bool) throws(FileSystemError) {
        guard pretence != .nothing, try !isThere() else { return fail(.notFound) }
        var entry = fuse_entry_param()
        entry.ino = fuse_ino_t(replay.makePretended().rawValue)
        entry.attr.st_ino = UInt(entry.ino)
        entry.attr.st_mode = (pretence == .directory ? S_IFDIR : S_IFREG) | 0o700
        entry.attr.st_nlink = 1
        (entry.attr.st_uid, entry.attr.st_gid) = (geteuid(), getegid())
        answer { fuse_reply_entry($0, &entry) }
    }

    /// What stands where our own thread asked for something new; it must be of the type that was asked for.
    func reply(shown attributes: Attributes, _ mode: UInt32, _ fileSystem: any FileSystemOperations) {
        guard attributes.mode & S_IFMT == mode & S_IFMT else {
            fileSystem.forget(attributes.inode, count: 1)
            return fail(.exists)
        }
        reply(entry: attributes, fileSystem, attributeSeconds: 0)   // as in `reply(shownAttributes:)`
    }

    /// "No such name", which the kernel may remember.
    func replyNegativeEntry() {
        var entry = fuse_entry_param()
        entry.entry_timeout = longCacheSeconds
        answer(error: ENOENT) { fuse_reply_entry($0, &entry) }
    }

    func reply(open file: OpenFile, info: fuse_file_info) -> Int32 {
        var info = info
        boxfs_set_open(&info, file.handle.rawValue, file.keepCache ? 1 : 0)
        return answer { fuse_reply_open($0, &info) }
    }

    func reply(create attributes: Attributes, _ file: OpenFile, info: fuse_file_info) -> Int32 {
        var info = info
        var entry = attributes.entry
        made = attributes.inode.rawValue
        boxfs_set_open(&info, file.handle.rawValue, file.keepCache ? 1 : 0)
        return answer { fuse_reply_create($0, &entry, &info) }
    }

    func reply(written count: Int) {
        amount = Int64(count)
        answer { fuse_reply_write($0, count) }
    }

    func reply(bytes: [UInt8]) {
        bytes.withUnsafeBytes { bytes in
            _ = answer { fuse_reply_buf($0, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count) }
        }
    }

    /// What is moved in the kernel, bytes: below, the pipe costs more than the copy (docs/PERFORMANCE.md); the longest request does not fit into a
    /// pipe with its head (pipe(7), pipe-max-size), and libfuse would ask for fresh memory each time.
    private static let splicedBytes = 128 << 10..<1 << 20

    /// Answers a read: one long stretch of a file is moved in the kernel, the rest is gathered.
    func reply(pieces: [ReadPiece]) throws(FileSystemError) {
        if pieces.count == 1, case .file(let file, let offset, let count) = pieces[0], Self.splicedBytes.contains(count) {
            amount = Int64(count)
            answer(readsFile: true) { request in charge(.disk) { boxfs_reply_file(request, file.rawValue, off_t(offset), count) } }
            return
        }
        let total = pieces.reduce(0) { $0 + $1.count }
        amount = Int64(total)
        let memory = PartBuffer(), buffer = memory.bytes.baseAddress!
        guard total <= memory.bytes.count else { throw .invalid }       // libfuse makes FUSE_MAX_PAGES of max_write
        var at = 0
        for piece in pieces {
            switch piece {
            case .zeros(let count): memset(buffer + at, 0, count)
            case .bytes(let bytes): bytes.withUnsafeBytes { UnsafeMutableRawBufferPointer(start: buffer + at, count: bytes.count).copyMemory(from: $0) }
            case .file(let file, let offset, let count):
                try charge(.disk) { () throws(FileSystemError) in
                    try readFully(file.rawValue, UnsafeMutableRawBufferPointer(start: buffer + at, count: count), at: Int(offset))
                }
            }
            at += piece.count
        }
        answer { fuse_reply_buf($0, buffer.assumingMemoryBound(to: CChar.self), total) }
    }
}

extension FileSystemOperations {
    /// Whether a name is taken, without holding on to what it names.
    func isThere(_ parent: InodeNumber, _ name: String) throws(FileSystemError) -> Bool {
        do throws(FileSystemError) {
            forget(try lookup(parent, name).inode, count: 1)
            return true
        } catch {
            guard error == .notFound else { throw error }
            return false
        }
    }
}
