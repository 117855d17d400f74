import Shared

/// What the control socket asks of a running mount.
protocol MountControl: AnyObject, Sendable {
    /// At once, from memory.
    func status() -> MountStatus

    /// Waits until all that was written under `path` before the call is on the server.
    ///
    /// - Parameters:
    ///   - path: relative to the mount, nil for everything.
    ///   - progress: called now and then, from any thread.
    /// - Throws: `.stopped` when nothing is sent until a person acts. Ends early, without an error, when its task is cancelled.
    func flush(path: String?, progress: @escaping @Sendable (FlushProgress) -> Void) async throws(ControlError)

    /// Forgets every clean chunk and the kernel's copies; what is not yet on the server stays.
    func dropCache() async throws(ControlError)

    /// Ends the mount.
    ///
    /// - Parameter now: leaves what is not sent for the next mount of the folder; otherwise it is sent first.
    /// - Throws: `.busy` when programs have files open; the mount then goes on.
    func unmount(now: Bool, progress: @escaping @Sendable (FlushProgress) -> Void) async throws(ControlError)

    /// What was counted since the mount began or since the last call with `reset`.
    func statistics(reset: Bool) -> MountStatistics

    /// What is known of a file or folder, and what its last requests waited for.
    ///
    /// - Parameter path: relative to the mount; empty for its root.
    func explain(_ path: String) throws(ControlError) -> FileExplanation

    /// Tells requests as they are answered, until the task is cancelled or the mount ends. The first call of `tell` has no records: what is
    /// asked after it is told.
    ///
    /// - Parameter process: whose requests are not told: the one that listens.
    func trace(_ filter: TraceFilter, process: Int32, _ tell: @escaping @Sendable (TraceBatch) -> Void) async
}

/// Why the mount did not do what it was asked.
enum ControlError: Error, Sendable, Equatable {
    /// Files are open, or a program stands in a folder of the mount.
    case busy
    /// Pushing stopped; the sentence says what a person has to do.
    case stopped(String)
    case failed(String)
}

/// How far a flush or an unmount is.
struct FlushProgress: Codable, Hashable, Sendable {
    var changesLeft: Int
    /// At the start, or more when changes came since.
    var changesTotal: Int
    var bytesLeft: UInt64
    var bytesTotal: UInt64
    /// Why nothing moves at the moment: the server is away, the quota is full.
    var obstacle: String?
}

/// What `boxfs status` shows of one mount. Field names are the JSON names.
struct MountStatus: Codable, Hashable, Sendable {
    var server: String
    var account: String
    var mountPoint: String
    /// The last request to the server was answered.
    var connected: Bool
    var lastError: String?
    var pendingChanges: Int
    /// Bytes that go with the pending changes and are not on the server.
    var pendingBytes: UInt64
    var uploadBytesPerSecond: Double
    var downloadBytesPerSecond: Double
    var cacheUsedBytes: UInt64
    var cacheLimitBytes: UInt64
    /// The part of the cache that may not be evicted: this machine has the only copy.
    var unsentBytes: UInt64
    /// Paths that are on their way, relative to the mount.
    var sending: [String]
    /// Why nothing is sent any more, until a person acts.
    var stopped: String?
    /// What went wrong since the mount began, oldest first.
    var problems: [String]
    /// Mass changes of the last day that were not undone, as the server tells them; nil when it was not asked.
    var massChanges: [MassChange]?
}
