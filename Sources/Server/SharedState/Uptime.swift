import Glibc

/// Time since the machine started, its sleep included (`CLOCK_BOOTTIME`): it goes on evenly, whatever is done to the wall clock.
struct Uptime: Hashable, Comparable, Sendable {
    let nanoseconds: Int64

    static func now() -> Uptime {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Uptime(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }

    func adding(seconds: Int64) -> Uptime { Uptime(nanoseconds: nanoseconds + seconds * 1_000_000_000) }

    static func < (a: Uptime, b: Uptime) -> Bool { a.nanoseconds < b.nanoseconds }
}
