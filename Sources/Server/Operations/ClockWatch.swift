import Shared

/// Notices that the wall clock was set: it and the uptime went apart. What goes by its age then waits for a day, in which a clock that was
/// set wrongly (by a dead battery, by a time server that errs) is set right again: what was dropped would not come back.
struct ClockWatch {
    static let toleranceSeconds: Int64 = 600, restSeconds: Int64 = 86_400
    private var distance: Int64
    private var setAt: Uptime?

    init(_ now: Timestamp, _ uptime: Uptime) { distance = now.nanoseconds - uptime.nanoseconds }

    /// - Returns: whether ages may be believed.
    mutating func trusts(_ now: Timestamp, _ uptime: Uptime) -> Bool {
        let before = distance
        distance = now.nanoseconds - uptime.nanoseconds
        if abs(distance - before) > Self.toleranceSeconds * 1_000_000_000 { setAt = uptime }
        return setAt.map { uptime >= $0.adding(seconds: Self.restSeconds) } ?? true
    }
}
