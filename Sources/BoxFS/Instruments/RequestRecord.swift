import Shared

/// A request that was answered, as `boxfs trace` shows it and `boxfs why` remembers it.
struct RequestRecord: Codable, Hashable, Sendable {
    /// When it was taken from the kernel.
    var time: Timestamp
    /// The same by a clock that nobody sets: CLOCK_MONOTONIC, nanoseconds.
    var moment: UInt64
    var operation: String
    var inode: UInt64
    /// Relative to the mount's root; nil when the inode has no name any more.
    var path: String?
    /// rename, link: the other path.
    var newPath: String?
    var offset: Int64?
    var length: Int?
    /// errno(3), 0 for a success.
    var error: Int32
    /// Bytes read or written, entries listed.
    var amount: Int64
    /// From the request's arrival in the mount process until the kernel had taken the answer.
    var nanoseconds: UInt64
    var waits: [Wait]
    /// Who asked; the thread's number when its process is not known any more.
    var process: Int32
    var program: String?

    init(_ kept: RecentRequests.Kept, inode: UInt64, caller: CallingProcess?) {
        time = Clock.timestamp(kept.began)
        moment = kept.began
        operation = kept.operation.name
        self.inode = inode
        (offset, length, error, amount) = (kept.offset, kept.length, kept.error, kept.amount)
        (nanoseconds, waits) = (kept.nanoseconds, kept.waits)
        (process, program) = (caller?.process ?? kept.thread, caller?.program)
    }
}

/// What those who watch are told at once; `lost` records before them did not fit in between.
struct TraceBatch: Codable, Hashable, Sendable {
    var records: [RequestRecord]
    var lost: Int
}
