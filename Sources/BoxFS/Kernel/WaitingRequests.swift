import Shared
import Synchronization

/// Requests that wait for the network, and the notifications that must wait for them.
///
/// While a request is unanswered the kernel holds what it locked for it: the pages of a read (`folio_lock`), the directory of a lookup or a
/// listing (`i_rwsem`). A notification about the same inode asks for the same lock, within write(2) on /dev/fuse, where no signal ends it:
/// fuse_reverse_inval_inode and fuse_reverse_inval_entry of fs/fuse. Sent meanwhile, it would hold up all the notifications behind it until the
/// request's deadline, and in a mount process that is killed it would wait for ever, as nobody is left to answer the request.
///
/// What is left open: a request that comes to wait while its inode's notification is on its way into the kernel.
final class WaitingRequests: Sendable {
    private struct State {
        var waiting: [UInt64: Int] = [:]
        var putOff: [UInt64: [@Sendable () -> Void]] = [:]
    }
    private let state = Mutex(State())

    func begin(_ call: RequestCall) {
        state.withLock { state in
            for inode in Self.inodes(call) { state.waiting[inode, default: 0] += 1 }
        }
    }

    /// The request was answered, or waits for something else and said so before.
    func end(_ call: RequestCall) {
        let free = state.withLock { state in
            var free: [@Sendable () -> Void] = []
            for inode in Self.inodes(call) {
                let left = state.waiting[inode, default: 1] - 1
                state.waiting[inode] = left > 0 ? left : nil
                if left == 0 { free += state.putOff.removeValue(forKey: inode) ?? [] }
            }
            return free
        }
        for action in free { action() }
    }

    /// - Returns: whether `action` was kept, to be called when no request of one of these inodes waits any more. It has to ask again.
    func putOff(_ inodes: [InodeNumber], _ action: @escaping @Sendable () -> Void) -> Bool {
        state.withLock { state in
            guard let inode = inodes.map(\.rawValue).first(where: { state.waiting[$0] != nil }) else { return false }
            state.putOff[inode, default: []].append(action)
            return true
        }
    }

    private static func inodes(_ call: RequestCall) -> Set<UInt64> { Set([call.inode, call.newParent]) }
}
