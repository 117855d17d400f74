import CLinux
import Glibc
import Synchronization

/// Space on the disk that is set aside for the replica's transactions.
///
/// The WAL always has blocks allocated beyond its end (fallocate(2) with FALLOC_FL_KEEP_SIZE), enough for the next transactions. When the
/// disk has no more, a file that was kept for that gives up its blocks, and until it could be made again only what must go on does:
/// ending what was answered, removals, and taking note of what was sent, which is what makes space.
final class DatabaseRoom: Sendable {
    /// What a transaction may need, what is allocated for several, and what the reserve holds, in bytes. Transactions end after 20 ms.
    private static let leastBytes: Int64 = 2 << 20, aheadBytes: Int64 = 4 << 20, reserveBytes: Int64 = 4 << 20

    private let reservePath: String
    private struct State {
        /// Up to where the WAL has blocks.
        var allocated: Int64 = 0
        var hasReserve = false
        /// The file system knows no allocation ahead.
        var isUnsupported = false
    }
    private let state = Mutex(State())

    init(reservePath: String) { self.reservePath = reservePath }

    /// Before a transaction begins.
    func ensure(_ wal: Int32) {
        state.withLock { state in
            if Self.allocate(wal, &state) { return }
            truncate(reservePath, 0)
            state.hasReserve = false
            _ = Self.allocate(wal, &state)      // if it fails again, the transaction may
        }
    }

    /// Whether there is space for more than what has to go on.
    func isWhole(_ wal: Int32) -> Bool {
        state.withLock { state in
            guard Self.allocate(wal, &state) else { return false }
            if !state.hasReserve { state.hasReserve = state.isUnsupported || makeReserve() }
            return state.hasReserve
        }
    }

    private static func allocate(_ wal: Int32, _ state: inout State) -> Bool {
        var status = stat()
        guard !state.isUnsupported, fstat(wal, &status) == 0 else { return true }
        let end = Int64(status.st_size)
        guard state.allocated - end < leastBytes else { return true }
        guard linux_allocate_keeping_size(wal, off_t(end + aheadBytes)) == 0 else {
            state.isUnsupported = errno == EOPNOTSUPP
            return state.isUnsupported
        }
        state.allocated = end + aheadBytes
        return true
    }

    private func makeReserve() -> Bool {
        let file = open(reservePath, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else { return false }
        defer { close(file) }
        return linux_allocate_keeping_size(file, off_t(Self.reserveBytes)) == 0
    }
}
