import Glibc
import Shared

/// What a request waited for.
struct Wait: Codable, Hashable, Sendable {
    enum Cause: String, Codable, Sendable, CaseIterable {
        /// Another request held a lock that this one needed.
        case lock
        /// The replica's transaction ended: rows and log went to the kernel (SQLite's WAL).
        case log
        /// Files of this machine's disk: chunks and segments that were read, checked, copied or synced; the WAL that was synced.
        case disk
        /// A chunk, a folder's entries or a manifest came from the server.
        case chunk, directory, manifest
        /// Unsent data filled the cache.
        case room
        /// fsync with `--durability server`.
        case server

        var isNetwork: Bool { self == .chunk || self == .directory || self == .manifest || self == .server }
    }

    var cause: Cause
    var nanoseconds: UInt64
    /// How often; the times of one cause on this machine are added up.
    var count = 1
    /// cause `chunk`: which, and its size in bytes.
    var chunk: String?
    var bytes: UInt64?
    /// It did not come: the answer was an error.
    var failed: Bool?
}

/// Keeps one request's times while it is worked on.
class RequestAccount: @unchecked Sendable {      // used by one thread at a time, which hands the request on
    let call: RequestCall
    /// CLOCK_MONOTONIC when the request was taken from the kernel.
    let began = Clock.now()
    /// The thread that asked (FUSE calls it the process), 0 when the kernel itself did.
    let thread: Int32
    /// A read's or write's bytes, the entries of a listing.
    var amount: Int64 = 0
    /// The inode that the answer tells, where the call names a place: lookup, create.
    var made: UInt64?
    private(set) var waits: [Wait] = []
    private static let maximumWaits = 64
    /// All waits' times, so that what is charged within a charged time counts once.
    private var charged: UInt64 = 0

    init(_ call: RequestCall, thread: Int32) {
        self.call = call
        self.thread = thread
    }

    func add(_ wait: Wait) {
        charged += wait.nanoseconds
        if wait.chunk == nil, let known = waits.firstIndex(where: { $0.cause == wait.cause && $0.chunk == nil }) {
            waits[known].nanoseconds += wait.nanoseconds
            waits[known].count += wait.count
        } else if waits.count < Self.maximumWaits {
            waits.append(wait)
        }
    }

    // MARK: The request of the running thread

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        precondition(pthread_key_create(&key, nil) == 0, "no thread-specific key is left")
        return key
    }()

    /// The request that the calling thread works on.
    static var current: RequestAccount? {
        pthread_getspecific(key).map { Unmanaged<RequestAccount>.fromOpaque($0).takeUnretainedValue() }
    }

    /// Makes this the request of the calling thread until `body` returns.
    func during<Failure: Error>(_ body: () throws(Failure) -> Void) throws(Failure) {
        pthread_setspecific(Self.key, Unmanaged.passUnretained(self).toOpaque())
        defer { pthread_setspecific(Self.key, nil) }
        try body()
    }

    /// Charges the time that `body` takes, but for what it charges itself.
    func charge<Result, Failure: Error>(_ cause: Wait.Cause, _ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        let start = Clock.now(), before = charged
        defer { add(cause, Clock.now() - start, beside: charged - before) }
        return try body()
    }

    private func add(_ cause: Wait.Cause, _ time: UInt64, beside inner: UInt64) { add(Wait(cause: cause, nanoseconds: time - min(time, inner))) }

    /// Charges the time that `body` takes, but for what it charges itself, to the request of the calling thread, if it has one, and all of it to
    /// `histogram`.
    static func chargeCurrent<Result, Failure: Error>(
        _ cause: Wait.Cause, _ histogram: Histogram? = nil, _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let start = Clock.now(), account = current, before = account?.charged ?? 0
        defer {
            let time = Clock.now() - start
            histogram?.add(time)
            if let account { account.add(cause, time, beside: account.charged - before) }
        }
        return try body()
    }
}

enum Clock {
    /// Nanoseconds of CLOCK_MONOTONIC; takes about 25 ns.
    static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// The time of day of a moment of `now`, by the time of day that it is now.
    static func timestamp(_ moment: UInt64) -> Timestamp {
        let age = Int64(bitPattern: now() &- moment)
        return Timestamp(nanoseconds: Timestamp.now().nanoseconds - age)
    }
}
