/// Slows a writer the more, the closer unsent data come to filling the cache, so that it never runs into the wall behind: at half of the
/// room left 2 MiB a second, at a tenth of it 128 KiB. Small waits are saved up.
struct WritePace: Sendable {
    private static let leastMilliseconds = 5.0, mostMilliseconds = 1000.0
    private var owedMilliseconds = 0.0
    private var hasWaited = false

    /// - Parameters:
    ///   - count: bytes to be written.
    ///   - pressure: 0, nothing to worry about, to 1, full.
    /// - Returns: how long to wait before the write is tried again; nil: now.
    mutating func milliseconds(_ count: Int, pressure: Double) -> Int? {
        guard pressure > 0, !hasWaited else {
            hasWaited = false
            return nil
        }
        owedMilliseconds += 1000 * pressure * pressure / max(0.001, 1 - pressure) * Double(count) / Double(1 << 20)
        guard owedMilliseconds >= Self.leastMilliseconds else { return nil }
        defer { owedMilliseconds = 0 }
        hasWaited = true
        return Int(min(owedMilliseconds, Self.mostMilliseconds))
    }
}
