#if canImport(Glibc)
import Glibc
#endif

/// Nanoseconds since 1970-01-01 00:00 UTC: what stat(2) gives, as one number. Holds the years 1677 to 2262.
public struct Timestamp: Hashable, Comparable, Sendable, Codable {
    public let nanoseconds: Int64

    public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    /// Clamped to what 64 bits of nanoseconds can hold, as ext4 and XFS clamp to their own ranges.
    public init(seconds: Int, nanoseconds: Int) {
        let (product, over) = Int64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, over2) = product.addingReportingOverflow(Int64(nanoseconds))
        self.nanoseconds = over || over2 ? (seconds < 0 ? .min : .max) : sum
    }

    public init(_ time: Glibc.timespec) { self.init(seconds: time.tv_sec, nanoseconds: time.tv_nsec) }

    /// The wall clock, `CLOCK_REALTIME`.
    public static func now() -> Timestamp {
        var time = Glibc.timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(time)
    }

    /// As stat(2) wants it: the nanoseconds are never negative.
    public var timespec: Glibc.timespec {
        let (seconds, rest) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        return rest < 0 ? Glibc.timespec(tv_sec: Int(seconds) - 1, tv_nsec: Int(rest) + 1_000_000_000)
            : Glibc.timespec(tv_sec: Int(seconds), tv_nsec: Int(rest))
    }

    /// Clamped as in `init(seconds:nanoseconds:)`.
    public func adding(seconds: Int64) -> Timestamp {
        let (product, over) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, over2) = nanoseconds.addingReportingOverflow(product)
        return Timestamp(nanoseconds: over || over2 ? (seconds < 0 ? .min : .max) : sum)
    }

    public static func < (a: Self, b: Self) -> Bool { a.nanoseconds < b.nanoseconds }

    public init(from decoder: any Decoder) throws { nanoseconds = try decoder.singleValueContainer().decode(Int64.self) }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(nanoseconds)
    }
}

extension Timestamp {
    /// ISO 8601 in UTC, to the second: `2026-01-02T03:04:05Z`.
    public var iso8601: String {
        var seconds = timespec.tv_sec
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))T\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))Z"
    }
}
