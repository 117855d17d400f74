import CFuse3
import Dispatch
import Foundation
import Glibc
import Shared
import Synchronization

struct MountOptions: Sendable {
    var allowOther = false
    var posixOwners = false
    var threads: UInt32 = 8

    var isForRootOnly: Bool { geteuid() == 0 && !allowOther && !posixOwners }
}

struct MountError: Error, CustomStringConvertible, Sendable {
    let description: String
    var isBusy = false
}

/// One mount point's connection with the kernel.
final class MountSession: KernelNotifications, @unchecked Sendable {     // libfuse's session is thread-safe once it is mounted
    let mountPoint: String
    private let context: KernelContext
    private let session: OpaquePointer
    /// Tells the kernel of changes, from outside of any request and with no lock held (libfuse doc/README.notifications).
    private let notifications = DispatchQueue(label: "fuse notifications", qos: .userInitiated)
    private let isOver = Atomic(false)

    init(fileSystem: any FileSystemOperations, mountPoint: String, options: MountOptions, instruments: Instruments) throws(MountError) {
        self.mountPoint = mountPoint
        let context = KernelContext(fileSystem: fileSystem, options: options, instruments: instruments)
        self.context = context
        var mountOptions = "noatime,fsname=boxfs,subtype=boxfs"
        // Where root alone enters, nothing is refused to anybody; otherwise the kernel checks, which costs a getattr of the folder after each
        // change in it.
        if !options.isForRootOnly { mountOptions += ",default_permissions" }
        if options.allowOther || options.posixOwners { mountOptions += ",allow_other" }
        if options.posixOwners, geteuid() == 0 { mountOptions += ",suid,dev" }
        var words: [UnsafeMutablePointer<CChar>?] = ["boxfs", "-o", mountOptions].map { (word: String) in strdup(word) }
        defer { for word in words { free(word) } }
        var operations = makeOperations()
        let made = words.withUnsafeMutableBufferPointer { words in
            var arguments = fuse_args(argc: Int32(words.count), argv: words.baseAddress, allocated: 0)
            return fuse_session_new(&arguments, &operations, MemoryLayout<fuse_lowlevel_ops>.size, Unmanaged.passUnretained(context).toOpaque())
        }
        guard let made else { throw MountError(description: "libfuse refused the mount options (\(mountOptions)).") }
        session = made
    }

    func mount() throws(MountError) {
        if access(mountPoint, F_OK) != 0, errno == ENOTCONN { umount2(mountPoint, Int32(MNT_DETACH)) }
        var isMounted = false
        let words = StandardError.words(during: { isMounted = fuse_session_mount(session, mountPoint) == 0 })
        guard isMounted else {
            fuse_session_destroy(session)
            let reason = words.isEmpty ? "" : " (\(words))"
            throw MountError(description: "\(mountPoint) cannot be mounted\(reason). Run `boxfs doctor` to see what is missing.")
        }
        // With --posix-owners the kernel, which knows each writer's capabilities, says what is to be cleared.
        if !context.options.posixOwners { _ = boxfs_clear_privileges_here(session) }
    }

    /// Answers the kernel until the folder is unmounted.
    func run() {
        widenReadAhead()
        context.replay.start(mountPoint) { [self] parent, name in
            _ = fuse_lowlevel_notify_inval_entry(session, fuse_ino_t(parent.rawValue), name, name.utf8.count)
        }
        defer { context.replay.end() }
        _ = boxfs_session_loop(session, context.options.threads, context.options.threads)
    }

    func destroy() {
        isOver.store(true, ordering: .relaxed)
        fuse_session_unmount(session)
        fuse_session_destroy(session)
    }

    /// The kernel reads 128 KiB ahead by default; longer requests cost less. Only root may say so.
    private func widenReadAhead() {
        DispatchQueue.global().async { [mountPoint] in
            // The answer to FUSE_INIT sets it (`process_init_reply`, fs/fuse/inode.c); every other request waits for that.
            var attributes = stat()
            guard lstat(mountPoint, &attributes) == 0 else { return }
            guard let table = try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8) else { return }
            for line in table.split(separator: "\n") {
                let words = line.split(separator: " ")
                guard words.count > 4, words[4] == mountPoint else { continue }
                try? "1024".write(toFile: "/sys/class/bdi/\(words[2])/read_ahead_kb", atomically: false, encoding: .utf8)
            }
        }
    }

    /// Ends the mount; `run` returns.
    func unmount() throws(MountError) {
        context.replay.pause()
        do throws(MountError) { try detach() } catch {
            context.replay.resume()
            throw error
        }
    }

    private func detach() throws(MountError) {
        // Nobody uses the mount any more; but what the kernel read ahead may still wait, for which umount(2) would wait.
        Interruptions.shared.raiseAll()
        if geteuid() == 0 {
            guard umount2(mountPoint, 0) == 0 || errno == EINVAL else { throw failure(errno) }
            return
        }
        let process = Process(), answer = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["fusermount3", "-u", mountPoint]
        process.standardError = answer
        do { try process.run() } catch { throw MountError(description: "fusermount3 cannot be started: \(error).") }
        let words = StandardError.sentence(answer.fileHandleForReading.readDataToEndOfFile())
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw isBusy() ? failure(EBUSY) : MountError(description: "\(mountPoint) cannot be unmounted (\(words)).")
        }
    }

    /// Whether the kernel would refuse to unmount: a program has a file open here, works in a folder of it, or mounted something on it.
    func isBusy() -> Bool {
        guard geteuid() == 0 else { return isBusyForUser() }
        // umount(2): with MNT_EXPIRE the first call only marks a mount that nobody uses; looking it up takes the mark away again.
        let isBusy = umount2(mountPoint, Int32(MNT_EXPIRE)) != 0 && errno == EBUSY
        _ = access(mountPoint, F_OK)
        return isBusy
    }

    /// What a user may learn: the handles that are open, and where the user's own programs work.
    private func isBusyForUser() -> Bool {
        // The kernel tells of a close a little later.
        for _ in 0..<20 where context.fileSystem.openHandleCount > 0 { usleep(10_000) }
        if context.fileSystem.openHandleCount > 0 { return true }
        let processes = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        for process in processes where process.allSatisfy(\.isNumber) {
            for link in ["cwd", "root"] {
                guard let path = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/\(link)") else { continue }
                if path == mountPoint || path.hasPrefix(mountPoint + "/") { return true }
            }
        }
        return false
    }

    private func failure(_ number: Int32) -> MountError {
        number == EBUSY
            ? MountError(description: "\(mountPoint) is in use: a program has a file open in it or works in it. Close it and try again.", isBusy: true)
            : MountError(description: "\(mountPoint) cannot be unmounted: \(String(cString: strerror(number))).")
    }

    // MARK: Notifications

    func invalidate(_ inode: InodeNumber, data: Bool) { invalidate(inode, data: data, pauseMilliseconds: 1) }

    private func invalidate(_ inode: InodeNumber, data: Bool, pauseMilliseconds: Int) {
        tell(data ? [inode] : []) { [self] session in
            // A negative offset: attributes only, for which the kernel takes no lock.
            let result = fuse_lowlevel_notify_inval_inode(session, fuse_ino_t(inode.rawValue), data ? 0 : -1, 0)
            // The kernel does not know it yet: an answer that names it, and holds what it was before, is still being taken. Nor does it any more
            // when its "forget" is on the way.
            guard result == -ENOENT, context.fileSystem.isKnownToKernel(inode) else { return }
            notifications.asyncAfter(deadline: .now() + .milliseconds(pauseMilliseconds)) { [self] in
                guard !isOver.load(ordering: .relaxed) else { return }
                invalidate(inode, data: data, pauseMilliseconds: min(2 * pauseMilliseconds, 1000))
            }
        }
    }

    func invalidate(entry name: String, in parent: InodeNumber) {
        tell([parent]) { _ = fuse_lowlevel_notify_inval_entry($0, fuse_ino_t(parent.rawValue), name, name.utf8.count) }
    }

    func delete(entry name: String, of child: InodeNumber, in parent: InodeNumber) {
        tell([parent, child]) { session in
            let length = name.utf8.count
            if fuse_lowlevel_notify_delete(session, fuse_ino_t(parent.rawValue), fuse_ino_t(child.rawValue), name, length) != 0 {
                _ = fuse_lowlevel_notify_inval_entry(session, fuse_ino_t(parent.rawValue), name, length)
            }
        }
    }

    func afterwards(_ done: @escaping @Sendable () -> Void) { notifications.async(execute: done) }

    func replay(_ changes: [RemoteChange]) {
        notifications.async { [self] in context.replay.add(changes) }
    }

    /// Hands on a notification for which the kernel locks these inodes, once no request holds such a lock while it waits for the network.
    private func tell(_ inodes: [InodeNumber], _ notification: @escaping @Sendable (OpaquePointer) -> Void) {
        notifications.async { [self] in
            if !context.waiting.putOff(inodes, { [self] in tell(inodes, notification) }) { notification(session) }
        }
    }
}
