import Glibc
import Shared
import Synchronization

/// Sees every request of the kernel when it has been answered, and lets `boxfs stats`, `trace` and `why` look.
///
/// Always on, so it must cost next to nothing: two readings of the clock and three additions for each request; for open, read and
/// write a slot in a small table as well. Records are made for those who listen only.
final class Instruments: Sendable {
    static let largestError: Int32 = 133    // EHWPOISON
    private static let errorCount = Int(largestError + 1)

    private let histograms = RequestOperation.allCases.map { _ in Histogram() }
    /// For each operation, how often it was answered by each errno.
    private let errors = AtomicWords(count: RequestOperation.allCases.count * errorCount)
    /// Bytes by operation.
    private let amounts = AtomicWords(count: RequestOperation.allCases.count * 8)
    let recent = RecentRequests()
    let listeners = TraceListeners()

    /// - Parameters:
    ///   - end: by `Clock`.
    ///   - error: the errno that was answered, 0 for a success.
    ///   - paths: of the call's inodes, looked up before the answer, after which they may change; nil unless somebody listens.
    func answered(_ account: RequestAccount, at end: UInt64, error: Int32, paths: TracedPaths?) {
        let operation = account.call.operation, index = Int(operation.rawValue)
        let whole = end - account.began, time = whole - min(whole, paths?.nanoseconds ?? 0)
        histograms[index].add(time)
        if error != 0 { errors.add(1, at: index * Self.errorCount + Int(min(max(error, 0), Self.largestError))) }
        if account.amount > 0 { amounts.add(UInt64(account.amount), at: index * 8) }
        switch operation {
        case .open, .create, .read, .write: recent.note(account, error, time)
        default: break
        }
        guard let paths else { return }
        var record = RequestRecord(RecentRequests.Kept(account, error, time), inode: account.call.inode, caller: paths.caller)
        (record.path, record.newPath) = (paths.path, paths.newPath)
        listeners.tell(record)
    }

    /// The paths of a call and who made it, for those who listen.
    /// - Parameter path: of an inode, nil when it has none.
    func paths(of account: RequestAccount, _ path: (UInt64) -> String?) -> TracedPaths? {
        guard listeners.isListened else { return nil }
        let start = Clock.now(), call = account.call
        func place(_ inode: UInt64, _ name: String?) -> String? {
            guard inode != 0, let folder = path(inode) else { return nil }
            guard let name else { return folder }
            return folder.isEmpty ? name : "\(folder)/\(name)"
        }
        return TracedPaths(
            path: place(call.inode, call.name), newPath: place(call.newParent, call.newName), caller: CallingProcess(thread: account.thread),
            nanoseconds: Clock.now() - start)
    }

    struct TracedPaths {
        var path, newPath: String?
        var caller: CallingProcess?
        /// What it took to find them, which is not the request's time.
        var nanoseconds: UInt64
    }

    // MARK: What was counted

    struct Counts: Codable, Hashable, Sendable {
        var durations = HistogramCounts()
        /// By errno.
        var errors: [Int32: UInt64] = [:]
        /// Bytes read or written, entries listed.
        var amount: UInt64 = 0

        func since(_ earlier: Counts) -> Counts {
            var rest = Counts(durations: durations.since(earlier.durations), amount: amount &- earlier.amount)
            for (error, count) in errors {
                let left = count &- (earlier.errors[error] ?? 0)
                if left > 0 { rest.errors[error] = left }
            }
            return rest
        }
    }

    /// By the operation's name; operations that never came are left out.
    func counts() -> [String: Counts] {
        var all: [String: Counts] = [:]
        for operation in RequestOperation.allCases {
            let index = Int(operation.rawValue)
            var counts = Counts(durations: histograms[index].counts, amount: amounts[index * 8])
            guard counts.durations.sum > 0 || !counts.durations.buckets.isEmpty else { continue }
            for error in 0...Self.largestError {
                let count = errors[index * Self.errorCount + Int(error)]
                if count > 0 { counts.errors[error] = count }
            }
            all[operation.name] = counts
        }
        return all
    }
}
