import CFuse3
import Glibc
import Shared
import Synchronization

// libfuse's callbacks: each copies what it was lent and hands on. fuse_lowlevel.h says what each gets and may answer.

/// `BOXFS_IOC_FLUSH` of Sources/Launcher/main.c: returns when all that was written to the mount before is on the server.
private let flushCommand: UInt32 = 0x42f5

/// What an operation found when it ran first: it is run again after each wait.
private final class FirstValue: Sendable {
    private let found = Mutex<Int64?>(nil)

    func value(_ find: () throws(FileSystemError) -> Int64) throws(FileSystemError) -> Int64 {
        if let known = found.withLock({ $0 }) { return known }
        let value = try find()
        found.withLock { $0 = value }
        return value
    }
}

private func inode(_ number: fuse_ino_t) -> InodeNumber { InodeNumber(rawValue: UInt64(number)) }
private func handle(_ info: UnsafeMutablePointer<fuse_file_info>?) -> HandleID { HandleID(rawValue: info!.pointee.fh) }

func makeOperations() -> fuse_lowlevel_ops {
    var operations = fuse_lowlevel_ops()
    addSession(&operations)
    addNames(&operations)
    addFiles(&operations)
    addDirectories(&operations)
    addAttributes(&operations)
    return operations
}

private func addSession(_ operations: inout fuse_lowlevel_ops) {
    operations.`init` = { user, connection in
        let context = Unmanaged<KernelContext>.fromOpaque(user!).takeUnretainedValue()
        let connection = connection!
        var wanted = UInt32(BOXFS_CAP_ASYNC_READ | BOXFS_CAP_ATOMIC_O_TRUNC | BOXFS_CAP_EXPLICIT_INVAL_DATA)
        wanted |= UInt32(BOXFS_CAP_READDIRPLUS | BOXFS_CAP_PARALLEL_DIROPS)
        wanted |= UInt32(BOXFS_CAP_CACHE_SYMLINKS | BOXFS_CAP_SPLICE_WRITE | BOXFS_CAP_SPLICE_MOVE)
        // HANDLE_KILLPRIV: of protocol 7.26; see boxfs_clear_privileges_here for what took its place.
        let refused = UInt32(BOXFS_CAP_AUTO_INVAL_DATA | BOXFS_CAP_READDIRPLUS_AUTO | BOXFS_CAP_SPLICE_READ | BOXFS_CAP_HANDLE_KILLPRIV)
        connection.pointee.want = (connection.pointee.want & ~refused) | (wanted & connection.pointee.capable)
        connection.pointee.max_write = 1 << 20
        // Reads by read-ahead that wait for the server count too: they must not hold up those of files that are here.
        connection.pointee.max_background = 1024
        connection.pointee.time_gran = 1
        _ = context
    }
    operations.statfs = { request, number in
        perform(request, RequestCall(.statfs, number)) { (system, request) throws(FileSystemError) in
            let statistics = try system.statfs()
            var answer = statvfs()
            answer.f_bsize = UInt(statistics.blockSize)
            answer.f_frsize = UInt(statistics.blockSize)
            answer.f_blocks = UInt(statistics.blocks)
            answer.f_bfree = UInt(statistics.freeBlocks)
            answer.f_bavail = UInt(statistics.freeBlocks)
            answer.f_files = UInt(statistics.files)
            answer.f_ffree = UInt(statistics.freeFiles)
            answer.f_favail = UInt(statistics.freeFiles)
            answer.f_namemax = UInt(statistics.maximumNameLength)
            request.answer { fuse_reply_statfs($0, &answer) }
        }
    }
}

private func addNames(_ operations: inout fuse_lowlevel_ops) {
    operations.lookup = { request, parent, name in
        withName(request, .lookup, parent, name) { name, call in
            let parent = inode(parent), replay = KernelContext.of(request).replay
            perform(request, call) { (system, request) throws(FileSystemError) in
                if request.isReplay, let pretence = replay.pretence(parent, name) {
                    return try request.reply(pretence, replay, isThere: { () throws(FileSystemError) in try system.isThere(parent, name) })
                }
                do throws(FileSystemError) {
                    request.reply(entry: try system.lookup(parent, name), system)
                } catch {
                    guard error == .notFound else { throw error }
                    request.replyNegativeEntry()
                }
            }
        }
    }
    operations.forget = { request, number, count in
        performForget(request, number) { if number < ChangeReplay.firstPretended { $0.forget(inode(number), count: count) } }
    }
    operations.forget_multi = { request, count, list in
        performForget(request, 0) { system in
            for item in UnsafeBufferPointer(start: list, count: count) where item.ino < ChangeReplay.firstPretended { system.forget(inode(fuse_ino_t(item.ino)), count: item.nlookup) }
        }
    }
    operations.mknod = { request, parent, name, mode, device in
        withName(request, .mknod, parent, name) { name, call in
            let parent = inode(parent)
            perform(request, call) { (system, request) throws(FileSystemError) in
                if request.isReplay { return try request.reply(shown: system.lookup(parent, name), mode, system) }
                request.reply(entry: try system.mknod(parent, name, mode: mode, device: UInt64(device), caller: request.caller), system)
            }
        }
    }
    operations.mkdir = { request, parent, name, mode in
        withName(request, .mkdir, parent, name) { name, call in
            let parent = inode(parent)
            perform(request, call) { (system, request) throws(FileSystemError) in
                if request.isReplay { return try request.reply(shown: system.lookup(parent, name), S_IFDIR, system) }
                request.reply(entry: try system.mkdir(parent, name, mode: mode, caller: request.caller), system)
            }
        }
    }
    operations.symlink = { request, target, parent, name in
        guard let target = String(validatingCString: target!) else { return FuseRequest(request!, RequestCall(.symlink, parent)).fail(EILSEQ) }
        withName(request, .symlink, parent, name) { name, call in
            let parent = inode(parent)
            perform(request, call) { (system, request) throws(FileSystemError) in
                if request.isReplay { return try request.reply(shown: system.lookup(parent, name), S_IFLNK, system) }
                request.reply(entry: try system.symlink(parent, name, target: target, caller: request.caller), system)
            }
        }
    }
    operations.readlink = { request, number in
        let call = RequestCall(.readlink, number), number = inode(number)
        perform(request, call) { (system, request) throws(FileSystemError) in
            let target = try system.readlink(number)
            request.answer { fuse_reply_readlink($0, target) }
        }
    }
    operations.link = { request, number, parent, name in
        withName(request, .link, parent, name) { name, place in
            let call = RequestCall(.link, number).to(place)
            let number = inode(number), parent = inode(parent)
            perform(request, call) { (system, request) throws(FileSystemError) in
                request.reply(entry: try system.link(number, parent, name), system)
            }
        }
    }
    operations.unlink = { request, parent, name in
        withName(request, .unlink, parent, name) { name, call in
            let parent = inode(parent)
            perform(request, call) { (system, request) throws(FileSystemError) in
                if !request.isReplay { try system.unlink(parent, name, caller: request.caller) }
                request.done()
            }
        }
    }
    operations.rmdir = { request, parent, name in
        withName(request, .rmdir, parent, name) { name, call in
            let parent = inode(parent)
            perform(request, call) { (system, request) throws(FileSystemError) in
                if !request.isReplay { try system.rmdir(parent, name, caller: request.caller) }
                request.done()
            }
        }
    }
    operations.rename = { request, parent, name, newParent, newName, flags in
        withName(request, .rename, parent, name) { name, call in
            withName(request, .rename, newParent, newName) { newName, place in
                let parent = inode(parent), newParent = inode(newParent)
                perform(request, call.to(place)) { (system, request) throws(FileSystemError) in
                    try system.rename(parent, name, newParent, newName, flags: flags, caller: request.caller)
                    request.done()
                }
            }
        }
    }
}

private func performForget(_ request: fuse_req_t?, _ number: fuse_ino_t, _ body: (any FileSystemOperations) -> Void) {
    let system = KernelContext.of(request).fileSystem, request = FuseRequest(request!, RequestCall(.forget, number))
    request.during { body(system) }
    request.answer {
        fuse_reply_none($0)
        return 0
    }
}

private func addFiles(_ operations: inout fuse_lowlevel_ops) {
    operations.create = { request, parent, name, mode, info in
        withName(request, .create, parent, name) { name, call in
            let parent = inode(parent)
            nonisolated(unsafe) let info = info!.pointee     // a plain C struct, copied
            perform(request, call) { (system, request) throws(FileSystemError) in
                let (attributes, file) = try system.create(parent, name, mode: mode, flags: info.flags, caller: request.caller)
                if request.reply(create: attributes, file, info: info) == -ENOENT {
                    system.release(file.handle)
                    system.forget(attributes.inode, count: 1)
                }
            }
        }
    }
    operations.open = { request, number, info in
        let call = RequestCall(.open, number), number = inode(number)
        nonisolated(unsafe) let info = info!.pointee
        perform(request, call) { (system, request) throws(FileSystemError) in
            // Our own thread writes nothing, and must not make the kernel drop pages: it would wait for those that are being read.
            var file = try system.open(number, flags: request.isReplay ? O_RDONLY : info.flags, caller: request.caller)
            if request.isReplay { file.keepCache = true }
            if request.reply(open: file, info: info) == -ENOENT { system.release(file.handle) }
        }
    }
    operations.read = { request, number, size, offset, info in
        let handle = handle(info)
        perform(request, RequestCall(.read, number, offset: Int64(offset), length: size)) { (system, request) throws(FileSystemError) in
            try request.reply(pieces: try system.read(handle, offset: Int64(offset), count: size))
        }
    }
    operations.write = { request, number, bytes, size, offset, info in
        let context = KernelContext.of(request), handle = handle(info)
        let request = FuseRequest(request!, RequestCall(.write, number, offset: Int64(offset), length: size))
        let lent = UnsafeRawBufferPointer(start: bytes, count: size)
        do throws(FileSystemError) {
            try request.during { () throws(FileSystemError) in try context.fileSystem.write(handle, offset: Int64(offset), lent) }
            request.reply(written: size)
        } catch {
            guard case .missing(let missing) = error else { return request.fail(error) }
            let copy = [UInt8](lent)
            context.wait(for: missing, request) { (system, request) throws(FileSystemError) in
                try copy.withBytes { bytes throws(FileSystemError) in try system.write(handle, offset: Int64(offset), bytes) }
                request.reply(written: size)
            }
        }
    }
    operations.flush = { request, number, info in
        let handle = handle(info)
        perform(request, RequestCall(.flush, number)) { (system, request) throws(FileSystemError) in
            if !request.isReplay { try system.flush(handle) }
            request.done()
        }
    }
    operations.release = { request, number, info in
        let handle = handle(info)
        perform(request, RequestCall(.release, number)) { (system, request) throws(FileSystemError) in
            system.release(handle)
            request.done()
        }
    }
    operations.fsync = { request, number, dataOnly, info in
        let handle = handle(info)
        perform(request, RequestCall(.fsync, number)) { (system, request) throws(FileSystemError) in
            try system.fsync(handle, dataOnly: dataOnly != 0)
            request.done()
        }
    }
    operations.ioctl = { request, number, command, _, _, _, _, _, _ in
        // Of others, such as isatty(3)'s, there are many, and none is for us.
        guard command == flushCommand else { return _ = fuse_reply_err(request, ENOTTY) }
        let newest = FirstValue()
        perform(request, RequestCall(.ioctl, number)) { (system, request) throws(FileSystemError) in
            try system.requireUploaded(upTo: newest.value { () throws(FileSystemError) in try system.logAll() })
            request.answer { fuse_reply_ioctl($0, 0, nil, 0) }
        }
    }
    operations.fallocate = { request, number, mode, offset, length, info in
        let handle = handle(info)
        perform(request, RequestCall(.fallocate, number, offset: Int64(offset), length: Int(length))) { (system, request) throws(FileSystemError) in
            try system.fallocate(handle, mode: mode, offset: Int64(offset), length: Int64(length))
            request.done()
        }
    }
    operations.lseek = { request, number, offset, whence, info in
        let handle = handle(info)
        perform(request, RequestCall(.lseek, number, offset: Int64(offset))) { (system, request) throws(FileSystemError) in
            let found = try system.lseek(handle, offset: Int64(offset), whence: whence)
            request.answer { fuse_reply_lseek($0, off_t(found)) }
        }
    }
    operations.copy_file_range = { request, _, sourceOffset, sourceInfo, number, targetOffset, targetInfo, count, _ in
        let source = handle(sourceInfo), target = handle(targetInfo)
        perform(request, RequestCall(.copyFileRange, number, offset: Int64(targetOffset), length: count)) { (system, request) throws(FileSystemError) in
            let copied = try system.copyFileRange(
                source, sourceOffset: Int64(sourceOffset), target, targetOffset: Int64(targetOffset), count: count)
            request.reply(written: copied)
        }
    }
}

private func addDirectories(_ operations: inout fuse_lowlevel_ops) {
    operations.opendir = { request, number, info in
        let call = RequestCall(.opendir, number), number = inode(number)
        nonisolated(unsafe) let info = info!.pointee
        perform(request, call) { (system, request) throws(FileSystemError) in
            let file = OpenFile(handle: try system.opendir(number), keepCache: true)
            if request.reply(open: file, info: info) == -ENOENT { system.releasedir(file.handle) }
        }
    }
    operations.readdir = { request, number, size, offset, info in
        list(request, RequestCall(.readdir, number, offset: Int64(offset), length: size), size, handle(info))
    }
    operations.readdirplus = { request, number, size, offset, info in
        list(request, RequestCall(.readdirplus, number, offset: Int64(offset), length: size), size, handle(info))
    }
    operations.releasedir = { request, number, info in
        let handle = handle(info)
        perform(request, RequestCall(.releasedir, number)) { (system, request) throws(FileSystemError) in
            system.releasedir(handle)
            request.done()
        }
    }
    operations.fsyncdir = { request, number, _, info in
        let handle = handle(info)
        perform(request, RequestCall(.fsyncdir, number)) { (system, request) throws(FileSystemError) in
            try system.fsyncdir(handle)
            request.done()
        }
    }
}

private func list(_ lent: fuse_req_t?, _ call: RequestCall, _ size: Int, _ handle: HandleID) {
    let system = KernelContext.of(lent).fileSystem, request = FuseRequest(lent!, call), plus = call.operation == .readdirplus
    let buffer = UnsafeMutablePointer<CChar>.allocate(capacity: size)
    defer { buffer.deallocate() }
    var used = 0
    var taken: [InodeNumber] = []
    func take(_ item: DirectoryEntry) -> Bool {
        let length: Int
        if plus {
            var entry = item.attributes.entry
            length = fuse_add_direntry_plus(lent, buffer + used, size - used, item.name, &entry, off_t(item.nextOffset))
        } else {
            var stat = item.attributes.stat
            length = fuse_add_direntry(lent, buffer + used, size - used, item.name, &stat, off_t(item.nextOffset))
        }
        guard length <= size - used else { return false }
        used += length
        request.amount += 1
        if plus, item.name != ".", item.name != ".." { taken.append(item.attributes.inode) }
        return true
    }
    do throws(FileSystemError) {
        try request.during { () throws(FileSystemError) in try system.readdir(handle, offset: call.offset ?? 0, plus: plus, take) }
        let answered = request.answer { fuse_reply_buf($0, buffer, used) }
        if answered == -ENOENT {
            for inode in taken { system.forget(inode, count: 1) }
        }
    } catch { request.fail(error) }
}

private func addAttributes(_ operations: inout fuse_lowlevel_ops) {
    operations.getattr = { request, number, _ in
        let call = RequestCall(.getattr, number), number = inode(number)
        perform(request, call) { (system, request) throws(FileSystemError) in request.reply(attributes: try system.getattr(number)) }
    }
    operations.access = { request, number, mask in
        let call = RequestCall(.access, number), number = inode(number)
        perform(request, call) { (system, request) throws(FileSystemError) in
            // Asked of a mount for root only, to whom everything is open but running what nobody may run.
            let attributes = try system.getattr(number)
            if mask & X_OK != 0, attributes.mode & S_IFMT == S_IFREG, attributes.mode & 0o111 == 0 { throw .accessDenied }
            request.done()
        }
    }
    operations.setattr = { request, number, stat, which, info in
        let call = RequestCall(.setattr, number), number = inode(number), handle = info.map { HandleID(rawValue: $0.pointee.fh) }, stat = stat!.pointee
        func has(_ bit: Int32) -> Bool { which & (1 << bit) != 0 }      // FUSE_SET_ATTR_*
        var changes = AttributeChanges()
        if has(0) { changes.mode = stat.st_mode }
        if has(1) { changes.uid = stat.st_uid }
        if has(2) { changes.gid = stat.st_gid }
        if has(3) { changes.size = UInt64(stat.st_size) }
        if has(7) { changes.accessed = .now } else if has(4) { changes.accessed = .at(Timestamp(stat.st_atim)) }
        if has(8) { changes.modified = .now } else if has(5) { changes.modified = .at(Timestamp(stat.st_mtim)) }
        let wanted = changes
        perform(request, call) { (system, request) throws(FileSystemError) in
            if request.isReplay { return request.reply(shownAttributes: try system.getattr(number)) }
            request.reply(attributes: try system.setattr(number, wanted, handle: handle, caller: request.caller))
        }
    }
    operations.setxattr = { request, number, name, value, size, flags in
        guard let name = String(validatingCString: name!) else { return FuseRequest(request!, RequestCall(.setxattr, number)).fail(EILSEQ) }
        let call = RequestCall(.setxattr, number), number = inode(number)
        let value = Array(UnsafeRawBufferPointer(start: value, count: size))
        perform(request, call) { (system, request) throws(FileSystemError) in
            try system.setxattr(number, name, value, flags: flags)
            request.done()
        }
    }
    operations.getxattr = { request, number, name, size in
        guard let name = String(validatingCString: name!) else { return FuseRequest(request!, RequestCall(.getxattr, number)).fail(ENODATA) }
        let call = RequestCall(.getxattr, number), number = inode(number)
        perform(request, call) { (system, request) throws(FileSystemError) in
            try replyXattr(request, try system.getxattr(number, name), size)
        }
    }
    operations.listxattr = { request, number, size in
        let call = RequestCall(.listxattr, number), number = inode(number)
        perform(request, call) { (system, request) throws(FileSystemError) in
            try replyXattr(request, try system.listxattr(number).flatMap { Array($0.utf8) + [0] }, size)
        }
    }
    operations.removexattr = { request, number, name in
        guard let name = String(validatingCString: name!) else { return FuseRequest(request!, RequestCall(.removexattr, number)).fail(ENODATA) }
        let call = RequestCall(.removexattr, number), number = inode(number)
        perform(request, call) { (system, request) throws(FileSystemError) in
            try system.removexattr(number, name)
            request.done()
        }
    }
}

/// getxattr(2): with a size of 0 the length is asked for.
private func replyXattr(_ request: FuseRequest, _ value: [UInt8], _ size: Int) throws(FileSystemError) {
    if size == 0 {
        request.answer { fuse_reply_xattr($0, value.count) }
    } else if value.count > size {
        throw .resultTooLarge
    } else {
        request.reply(bytes: value)
    }
}
