import CFuse3
import Glibc
import Shared
import Synchronization

/// One request of the kernel, answered exactly once; dropped unanswered, it answers EIO.
///
/// libfuse's pointer is freed by its first answer, so it is taken out before. All that is answered passes `answer`, which tells the
/// mount's `Instruments`.
final class FuseRequest: RequestAccount, @unchecked Sendable {      // libfuse requests may be answered from any thread
    private let pointer: Mutex<UInt>
    let caller: Caller
    /// Sent by our own thread that shows changes to watchers: it changes nothing.
    let isReplay: Bool

    init(_ request: fuse_req_t, _ call: RequestCall) {
        pointer = Mutex(UInt(bitPattern: request))
        let context = fuse_req_ctx(request)!.pointee
        caller = Caller(uid: context.uid, gid: context.gid, pid: context.pid, umask: UInt32(context.umask))
        isReplay = KernelContext.of(request).replay.isOurs(context.pid)
        super.init(call, thread: context.pid)
    }

    deinit { fail(EIO) }

    /// - Parameters:
    ///   - error: the errno that `reply` answers, for the record.
    ///   - readsFile: the reply reads from the disk: it belongs to the request's time. Otherwise that ends before it, as the caller may go on,
    ///     on this thread's processor, before the reply returns.
    /// - Returns: what libfuse says; -ENOENT when the kernel had given the request up.
    @discardableResult
    func answer(error: Int32 = 0, readsFile: Bool = false, _ reply: (fuse_req_t) -> Int32) -> Int32 {
        let taken = pointer.withLock { pointer in
            defer { pointer = 0 }
            return pointer
        }
        guard let request = fuse_req_t(bitPattern: taken) else { return 0 }
        let context = KernelContext.of(request)
        let paths = context.instruments.paths(of: self) { context.fileSystem.path(of: InodeNumber(rawValue: $0)) }
        var end = Clock.now()
        let result = reply(request)
        if readsFile { end = Clock.now() }
        context.instruments.answered(self, at: end, error: result == -ENOENT ? EINTR : error, paths: paths)
        return result
    }

    func fail(_ number: Int32) { answer(error: number) { fuse_reply_err($0, number) } }
    func fail(_ error: FileSystemError) { fail(error.errorNumber) }
    func done() { answer { fuse_reply_err($0, 0) } }

    /// Asks to be told when the waiting program is interrupted. `id` names the wait in `Interruptions`.
    func watchInterrupts(_ id: UInt) {
        pointer.withLock { pointer in
            guard let request = fuse_req_t(bitPattern: pointer) else { return }
            fuse_req_interrupt_func(request, { _, id in Interruptions.shared.raise(UInt(bitPattern: id)) }, UnsafeMutableRawPointer(bitPattern: id))
        }
    }
}

/// Waits that a signal may end. The kernel's interruption carries a number, not a pointer: it may come when all is over.
final class Interruptions: Sendable {
    static let shared = Interruptions()
    private let waits = Mutex<(next: UInt, tokens: [UInt: any FetchToken], early: Set<UInt>)>((1, [:], []))

    func makeID() -> UInt {
        waits.withLock { waits in
            waits.next += 1
            return waits.next
        }
    }

    func register(_ id: UInt, _ token: any FetchToken) {
        let isInterrupted = waits.withLock { waits in
            if waits.early.remove(id) != nil { return true }
            waits.tokens[id] = token
            return false
        }
        if isInterrupted { token.cancel() }
    }

    /// Ends all waits, as their signals would.
    func raiseAll() {
        for token in waits.withLock({ Array($0.tokens.values) }) { token.cancel() }
    }

    func end(_ id: UInt) {
        waits.withLock {
            $0.tokens[id] = nil
            $0.early.remove(id)
        }
    }

    /// Called by libfuse while it holds the request: the answer is given elsewhere.
    func raise(_ id: UInt) {
        let token = waits.withLock { waits in
            if waits.tokens[id] == nil { waits.early.insert(id) }
            return waits.tokens[id]
        }
        if let token { KernelContext.workers.async { token.cancel() } }
    }
}
