import CFuse3
import Foundation
import Glibc
import Shared
import Synchronization

/// Lets programs that watch folders see what changed elsewhere.
///
/// The kernel tells watchers of system calls, not of invalidations. So a thread of ours makes the call that would have made the change,
/// through our own mount: mknod, mkdir or symlink for an entry that appeared; unlink or rmdir for one that went; open, ftruncate to the same length, close for content. Its
/// requests come back to us with the thread's number (`fuse_in_header.pid`), and change nothing:
///
/// 1. the entry was invalidated before, so the kernel looks the name up: this one look-up answers "no such name", kept by nobody;
/// 2. mknod answers with what stands there. The kernel holds the folder's lock from 1 to 2, so no other program sees the "no such name".
///
/// For an entry that went it is the other way round: the look-up is answered with an inode that never was, which then is unlinked. (Of
/// the kernel's notify_delete watchers hear nothing: seen on Linux 6.)
///
/// A program that looked the name up before 1 makes the kernel answer EEXIST; then it is invalidated again. What cannot be shown (the queue is
/// full, a file that may not be written) is not: a watcher is told late or not at all, and files are never touched.
final class ChangeReplay: Sendable {
    private static let attempts = 3

    private struct State {
        var thread: pid_t = 0
        /// The name whose look-up by our thread finds nothing, or finds what is not there.
        var name: (parent: InodeNumber, name: String, shows: Pretence)?
        var pretended: UInt64 = 0
        var waiting: [RemoteChange] = []
        var isPaused = false, isBusy = false, isEnded = false
    }
    private let state = Mutex(State())
    private let signal = DispatchSemaphore(value: 0)

    func add(_ changes: [RemoteChange]) {
        state.withLock { $0.waiting += changes.prefix(max(0, RemoteChange.maximumWaiting - $0.waiting.count)) }
        signal.signal()
    }

    /// Whether a request is one of our thread's.
    func isOurs(_ thread: pid_t) -> Bool { state.withLock { $0.thread == thread } }

    enum Pretence: Sendable { case nothing, file, directory }

    /// How a look-up by our thread is to be answered; nil: as any.
    func pretence(_ parent: InodeNumber, _ name: String) -> Pretence? {
        state.withLock { state in state.name.flatMap { $0.parent == parent && $0.name == name ? $0.shows : nil } }
    }

    /// Numbers from here on belong to inodes that never were.
    static let firstPretended: UInt64 = 1 << 63

    func makePretended() -> InodeNumber {
        state.withLock { state in
            state.pretended += 1
            return InodeNumber(rawValue: Self.firstPretended + state.pretended)
        }
    }

    // MARK: The thread

    /// The thread waits in the kernel for answers that this process gives. Killed in such a moment it would keep the session's descriptor open, and
    /// so the kernel from ending the connection and with it the wait: the process stayed for ever. So it has no descriptors of the process,
    /// and hands nothing to a dispatch queue: see `Errands`.
    ///
    /// - Parameter invalidate: makes the kernel forget an entry, before it returns.
    func start(_ mountPoint: String, _ invalidate: @escaping @Sendable (InodeNumber, String) -> Void) {
        let errands = Errands()
        Thread.detachNewThread { [self] in
            defer { errands.end() }
            guard boxfs_leave_descriptors() == 0 else { return }
            state.withLock { $0.thread = boxfs_thread_id() }
            while true {
                signal.wait()
                while let change = next() {
                    show(change, mountPoint) { parent, name in errands.run { invalidate(parent, name) } }
                    state.withLock { $0.isBusy = false }
                }
                if state.withLock({ $0.isEnded }) { return }
            }
        }
    }

    private func next() -> RemoteChange? {
        state.withLock { state in
            guard !state.isPaused, !state.isEnded, !state.waiting.isEmpty else { return nil }
            state.isBusy = true
            return state.waiting.removeFirst()
        }
    }

    /// Returns when our thread has nothing open in the mount, which could not be unmounted otherwise; after two seconds in any case.
    func pause() {
        state.withLock { $0.isPaused = true }
        for _ in 0..<400 where state.withLock({ $0.isBusy }) { usleep(5_000) }
    }

    func resume() {
        state.withLock { $0.isPaused = false }
        signal.signal()
    }

    func end() {
        state.withLock { $0.isEnded = true }
        signal.signal()
    }

    private func show(_ change: RemoteChange, _ mountPoint: String, _ invalidate: (InodeNumber, String) -> Void) {
        let path = "\(mountPoint)/\(change.path)"
        defer { state.withLock { $0.name = nil } }
        switch change.kind {
        case .modified: modify(path)
        case .created(let name, let parent, let mode):
            state.withLock { $0.name = (parent, name, .nothing) }
            create(path, mode) { invalidate(parent, name) }
        case .removed(let name, let parent, let isDirectory):
            state.withLock { $0.name = (parent, name, isDirectory ? .directory : .file) }
            // The kernel may remember that there is no such name.
            invalidate(parent, name)
            _ = isDirectory ? rmdir(path) : unlink(path)
        }
    }

    private func create(_ path: String, _ mode: UInt32, _ invalidate: () -> Void) {
        for _ in 0..<Self.attempts {
            let made: Int32 = switch mode & S_IFMT {
            case S_IFDIR: mkdir(path, mode & 0o777)
            case S_IFLNK: symlink("-", path)
            case S_IFREG, S_IFIFO, S_IFSOCK: mknod(path, mode & (S_IFMT | 0o777), 0)
            default: 0      // device nodes: only root may
            }
            guard made != 0, errno == EEXIST else { return }
            invalidate()
        }
    }

    private func modify(_ path: String) {
        var known = stat()
        guard lstat(path, &known) == 0, known.st_mode & S_IFMT == S_IFREG else { return }
        // While a file is open for writing, execve(2) of it fails with ETXTBSY: of programs watchers see a change of attributes.
        guard known.st_mode & 0o111 == 0 else { return _ = chmod(path, known.st_mode & 0o7777) }
        let file = open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
        guard file >= 0 else { return }
        var status = stat()
        if fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG { ftruncate(file, status.st_size) }
        close(file)
    }
}

/// A thread that does one thing at a time for another one, which waits for it.
///
/// A dispatch queue will not do for a thread without descriptors: its worker is made by the thread that hands it the work, and so has no descriptors
/// either, nor for any other queue that it serves later. What it tells the kernel is lost (EBADF).
private final class Errands: Sendable {
    private let errand = Mutex<(@Sendable () -> Void)?>(nil)
    private let given = DispatchSemaphore(value: 0), done = DispatchSemaphore(value: 0)

    init() {
        Thread.detachNewThread { [self] in
            while true {
                given.wait()
                let next = errand.withLock { errand in
                    defer { errand = nil }
                    return errand
                }
                guard let next else { return }
                next()
                done.signal()
            }
        }
    }

    func run(_ body: @escaping @Sendable () -> Void) {
        errand.withLock { $0 = body }
        given.signal()
        done.wait()
    }

    func end() { given.signal() }
}
