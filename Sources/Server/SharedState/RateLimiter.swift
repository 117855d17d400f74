import Synchronization

/// Asked too often: try again after `seconds`.
struct RateLimited: Error {
    let seconds: Int
}

/// Slows down guessing: after some failures of one key each further one doubles the pause. In process; what it forgets by a restart
/// is as little as the scrypt that each guess still costs.
final class RateLimiter: Sendable {
    private static let freeFailures = 10, maximumPauseSeconds = 900, maximumKeys = 10_000
    private let uptime: @Sendable () -> Uptime
    private let table = Mutex<[String: (failures: Int, until: Uptime)]>([:])

    init(uptime: @escaping @Sendable () -> Uptime = { .now() }) { self.uptime = uptime }

    func check(_ key: String) throws(RateLimited) {
        let time = uptime()
        let left = table.withLock { $0[key].map { $0.until.nanoseconds - time.nanoseconds } ?? 0 }
        if left > 0 { throw RateLimited(seconds: Int(left / 1_000_000_000) + 1) }
    }

    func failed(_ key: String) {
        let time = uptime()
        table.withLock { table in
            if table.count >= Self.maximumKeys { table = table.filter { $0.value.until > time } }
            let failures = (table[key]?.failures ?? 0) + 1
            let over = failures - Self.freeFailures
            let pause = over >= 0 ? min(Self.maximumPauseSeconds, 1 << min(over, 10)) : 0
            table[key] = (failures, time.adding(seconds: Int64(pause)))
        }
    }

    func succeeded(_ key: String) { table.withLock { $0[key] = nil } }
}
