import CFuse3
import Glibc
import Shared

// libfuse's callbacks: each copies what it was lent and hands on. fuse_lowlevel.h says what each gets and may answer.

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
        // HANDLE_KILLPRIV: the kernel knows capabilities and its cached mode best; it sends a setattr when a write clears set-user-ID.
        let refused = UInt32(BOXFS_CAP_AUTO_INVAL_DATA | BOXFS_CAP_READDIRPLUS_AUTO | BOXFS_CAP_SPLICE_READ | BOXFS_CAP_HANDLE_KILLPRIV)
        connection.pointee.want = (connection.pointee.want & ~refused) | (wanted & connection.pointee.capable)
        connection.pointee.max_write = 1 << 20
        connection.pointee.max_background = 64
        connection.pointee.time_gran = 1
        _ = context
    }
    operations.statfs = { request, _ in
        perform(request) { (system, request) throws(FileSystemError) in
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
        withName(request, name) { name in
            let parent = inode(parent), replay = KernelContext.of(request).replay
            perform(request) { (system, request) throws(FileSystemError) in
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
        if number < ChangeReplay.firstPretended { KernelContext.of(request).fileSystem.forget(inode(number), count: count) }
        fuse_reply_none(request)
    }
    operations.forget_multi = { request, count, list in
        let system = KernelContext.of(request).fileSystem
        for item in UnsafeBufferPointer(start: list, count: count) where item.ino < ChangeReplay.firstPretended { system.forget(inode(fuse_ino_t(item.ino)), count: item.nlookup) }
        fuse_reply_none(request)
    }
    operations.mknod = { request, parent, name, mode, device in
        withName(request, name) { name in
            let parent = inode(parent)
            perform(request) { (system, request) throws(FileSystemError) in
                if request.isReplay { return try request.reply(shown: system.lookup(parent, name), mode, system) }
                request.reply(entry: try system.mknod(parent, name, mode: mode, device: UInt64(device), caller: request.caller), system)
            }
        }
    }
    operations.mkdir = { request, parent, name, mode in
        withName(request, name) { name in
            let parent = inode(parent)
            perform(request) { (system, request) throws(FileSystemError) in
                if request.isReplay { return try request.reply(shown: system.lookup(parent, name), S_IFDIR, system) }
                request.reply(entry: try system.mkdir(parent, name, mode: mode, caller: request.caller), system)
            }
        }
    }
    operations.symlink = { request, target, parent, name in
        guard let target = String(validatingCString: target!) else { return _ = fuse_reply_err(request, EILSEQ) }
        withName(request, name) { name in
            let parent = inode(parent)
            perform(request) { (system, request) throws(FileSystemError) in
                if request.isReplay { return try request.reply(shown: system.lookup(parent, name), S_IFLNK, system) }
                request.reply(entry: try system.symlink(parent, name, target: target, caller: request.caller), system)
            }
        }
    }
    operations.readlink = { request, number in
        let number = inode(number)
        perform(request) { (system, request) throws(FileSystemError) in
            let target = try system.readlink(number)
            request.answer { fuse_reply_readlink($0, target) }
        }
    }
    operations.link = { request, number, parent, name in
        withName(request, name) { name in
            let number = inode(number), parent = inode(parent)
            perform(request) { (system, request) throws(FileSystemError) in
                request.reply(entry: try system.link(number, parent, name), system)
            }
        }
    }
    operations.unlink = { request, parent, name in
        withName(request, name) { name in
            let parent = inode(parent)
            perform(request) { (system, request) throws(FileSystemError) in
                if !request.isReplay { try system.unlink(parent, name, caller: request.caller) }
                request.done()
            }
        }
    }
    operations.rmdir = { request, parent, name in
        withName(request, name) { name in
            let parent = inode(parent)
            perform(request) { (system, request) throws(FileSystemError) in
                if !request.isReplay { try system.rmdir(parent, name, caller: request.caller) }
                request.done()
            }
        }
    }
    operations.rename = { request, parent, name, newParent, newName, flags in
        withName(request, name) { name in
            withName(request, newName) { newName in
                let parent = inode(parent), newParent = inode(newParent)
                perform(request) { (system, request) throws(FileSystemError) in
                    try system.rename(parent, name, newParent, newName, flags: flags, caller: request.caller)
                    request.done()
                }
            }
        }
    }
}

private func addFiles(_ operations: inout fuse_lowlevel_ops) {
    operations.create = { request, parent, name, mode, info in
        withName(request, name) { name in
            let parent = inode(parent)
            nonisolated(unsafe) let info = info!.pointee     // a plain C struct, copied
            perform(request) { (system, request) throws(FileSystemError) in
                let (attributes, file) = try system.create(parent, name, mode: mode, flags: info.flags, caller: request.caller)
                if request.reply(create: attributes, file, info: info) == -ENOENT {
                    system.release(file.handle)
                    system.forget(attributes.inode, count: 1)
                }
            }
        }
    }
    operations.open = { request, number, info in
        let number = inode(number)
        nonisolated(unsafe) let info = info!.pointee
        perform(request) { (system, request) throws(FileSystemError) in
            let file = try system.open(number, flags: info.flags, caller: request.caller)
            if request.reply(open: file, info: info) == -ENOENT { system.release(file.handle) }
        }
    }
    operations.read = { request, _, size, offset, info in
        let handle = handle(info)
        perform(request) { (system, request) throws(FileSystemError) in
            try request.reply(pieces: try system.read(handle, offset: Int64(offset), count: size))
        }
    }
    operations.write = { request, _, bytes, size, offset, info in
        let context = KernelContext.of(request), handle = handle(info), request = FuseRequest(request!)
        let lent = UnsafeRawBufferPointer(start: bytes, count: size)
        do throws(FileSystemError) {
            try context.fileSystem.write(handle, offset: Int64(offset), lent)
            request.answer { fuse_reply_write($0, size) }
        } catch {
            guard case .missing(let missing) = error else { return request.fail(error) }
            let copy = [UInt8](lent)
            context.wait(for: missing, request) { (system, request) throws(FileSystemError) in
                try copy.withBytes { bytes throws(FileSystemError) in try system.write(handle, offset: Int64(offset), bytes) }
                request.answer { fuse_reply_write($0, size) }
            }
        }
    }
    operations.flush = { request, _, info in
        let handle = handle(info)
        perform(request) { (system, request) throws(FileSystemError) in
            if !request.isReplay { try system.flush(handle) }
            request.done()
        }
    }
    operations.release = { request, _, info in
        KernelContext.of(request).fileSystem.release(handle(info))
        fuse_reply_err(request, 0)
    }
    operations.fsync = { request, _, dataOnly, info in
        let handle = handle(info)
        perform(request) { (system, request) throws(FileSystemError) in
            try system.fsync(handle, dataOnly: dataOnly != 0)
            request.done()
        }
    }
    operations.fallocate = { request, _, mode, offset, length, info in
        let handle = handle(info)
        perform(request) { (system, request) throws(FileSystemError) in
            try system.fallocate(handle, mode: mode, offset: Int64(offset), length: Int64(length))
            request.done()
        }
    }
    operations.lseek = { request, _, offset, whence, info in
        let handle = handle(info)
        perform(request) { (system, request) throws(FileSystemError) in
            let found = try system.lseek(handle, offset: Int64(offset), whence: whence)
            request.answer { fuse_reply_lseek($0, off_t(found)) }
        }
    }
    operations.copy_file_range = { request, _, sourceOffset, sourceInfo, _, targetOffset, targetInfo, count, _ in
        let source = handle(sourceInfo), target = handle(targetInfo)
        perform(request) { (system, request) throws(FileSystemError) in
            let copied = try system.copyFileRange(
                source, sourceOffset: Int64(sourceOffset), target, targetOffset: Int64(targetOffset), count: count)
            request.answer { fuse_reply_write($0, copied) }
        }
    }
}

private func addDirectories(_ operations: inout fuse_lowlevel_ops) {
    operations.opendir = { request, number, info in
        let number = inode(number)
        nonisolated(unsafe) let info = info!.pointee
        perform(request) { (system, request) throws(FileSystemError) in
            let file = OpenFile(handle: try system.opendir(number), keepCache: true)
            if request.reply(open: file, info: info) == -ENOENT { system.releasedir(file.handle) }
        }
    }
    operations.readdir = { request, _, size, offset, info in list(request, size, offset, handle(info), plus: false) }
    operations.readdirplus = { request, _, size, offset, info in list(request, size, offset, handle(info), plus: true) }
    operations.releasedir = { request, _, info in
        KernelContext.of(request).fileSystem.releasedir(handle(info))
        fuse_reply_err(request, 0)
    }
    operations.fsyncdir = { request, _, _, info in
        let handle = handle(info)
        perform(request) { (system, request) throws(FileSystemError) in
            try system.fsyncdir(handle)
            request.done()
        }
    }
}

private func list(_ request: fuse_req_t?, _ size: Int, _ offset: off_t, _ handle: HandleID, plus: Bool) {
    let buffer = UnsafeMutablePointer<CChar>.allocate(capacity: size)
    defer { buffer.deallocate() }
    var used = 0
    var taken: [InodeNumber] = []
    do throws(FileSystemError) {
        try KernelContext.of(request).fileSystem.readdir(handle, offset: Int64(offset), plus: plus) { item in
            let length: Int
            if plus {
                var entry = item.attributes.entry
                length = fuse_add_direntry_plus(request, buffer + used, size - used, item.name, &entry, off_t(item.nextOffset))
            } else {
                var stat = item.attributes.stat
                length = fuse_add_direntry(request, buffer + used, size - used, item.name, &stat, off_t(item.nextOffset))
            }
            guard length <= size - used else { return false }
            used += length
            if plus, item.name != ".", item.name != ".." { taken.append(item.attributes.inode) }
            return true
        }
        if fuse_reply_buf(request, buffer, used) == -ENOENT {
            for inode in taken { KernelContext.of(request).fileSystem.forget(inode, count: 1) }
        }
    } catch { fuse_reply_err(request, error.errorNumber) }
}

private func addAttributes(_ operations: inout fuse_lowlevel_ops) {
    operations.getattr = { request, number, _ in
        let number = inode(number)
        perform(request) { (system, request) throws(FileSystemError) in request.reply(attributes: try system.getattr(number)) }
    }
    operations.setattr = { request, number, stat, which, info in
        let number = inode(number), handle = info.map { HandleID(rawValue: $0.pointee.fh) }, stat = stat!.pointee
        func has(_ bit: Int32) -> Bool { which & (1 << bit) != 0 }      // FUSE_SET_ATTR_*
        var changes = AttributeChanges()
        if has(0) { changes.mode = stat.st_mode }
        if has(1) { changes.uid = stat.st_uid }
        if has(2) { changes.gid = stat.st_gid }
        if has(3) { changes.size = UInt64(stat.st_size) }
        if has(7) { changes.accessed = .now } else if has(4) { changes.accessed = .at(Timestamp(stat.st_atim)) }
        if has(8) { changes.modified = .now } else if has(5) { changes.modified = .at(Timestamp(stat.st_mtim)) }
        let wanted = changes
        perform(request) { (system, request) throws(FileSystemError) in
            if request.isReplay { return request.reply(attributes: try system.getattr(number)) }
            request.reply(attributes: try system.setattr(number, wanted, handle: handle, caller: request.caller))
        }
    }
    operations.setxattr = { request, number, name, value, size, flags in
        guard let name = String(validatingCString: name!) else { return _ = fuse_reply_err(request, EILSEQ) }
        let number = inode(number)
        let value = Array(UnsafeRawBufferPointer(start: value, count: size))
        perform(request) { (system, request) throws(FileSystemError) in
            try system.setxattr(number, name, value, flags: flags)
            request.done()
        }
    }
    operations.getxattr = { request, number, name, size in
        guard let name = String(validatingCString: name!) else { return _ = fuse_reply_err(request, ENODATA) }
        let number = inode(number)
        perform(request) { (system, request) throws(FileSystemError) in
            try replyXattr(request, try system.getxattr(number, name), size)
        }
    }
    operations.listxattr = { request, number, size in
        let number = inode(number)
        perform(request) { (system, request) throws(FileSystemError) in
            try replyXattr(request, try system.listxattr(number).flatMap { Array($0.utf8) + [0] }, size)
        }
    }
    operations.removexattr = { request, number, name in
        guard let name = String(validatingCString: name!) else { return _ = fuse_reply_err(request, ENODATA) }
        let number = inode(number)
        perform(request) { (system, request) throws(FileSystemError) in
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
