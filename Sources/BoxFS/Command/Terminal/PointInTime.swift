import ArgumentParser
import Foundation
import Shared

/// A moment as people write it: `2026-03-01T12:00:00Z`, `2026-03-01 12:00` (local time), `2026-03-01`, `@SECONDS`, or `90s`, `10m`, `2h`,
/// `3d`, `1w` ago.
struct PointInTime: Hashable, Sendable, ExpressibleByArgument {
    private enum Kind: Hashable { case absolute(Timestamp), ago(seconds: Int64) }
    private let kind: Kind

    init?(argument: String) {
        let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400]
        if argument.hasPrefix("@"), let seconds = Double(argument.dropFirst()), abs(seconds) < 9e9 {
            kind = .absolute(Timestamp(nanoseconds: Int64(seconds * 1e9)))
        } else if let unit = argument.last.flatMap({ units[$0] }), let number = Int64(argument.dropLast()), (0...1_000_000_000).contains(number) {
            kind = .ago(seconds: number * unit)
        } else if let date = Self.date(argument) {
            kind = .absolute(Timestamp(nanoseconds: Int64(date.timeIntervalSince1970 * 1e9)))
        } else { return nil }
    }

    private static func date(_ text: String) -> Date? {
        for options in [ISO8601DateFormatter.Options.withInternetDateTime, [.withInternetDateTime, .withFractionalSeconds]] {
            let formatter = ISO8601DateFormatter()
            formatter.formatOptions = options
            if let date = formatter.date(from: text) { return date }
        }
        let formatter = DateFormatter()
        formatter.locale = Locale(identifier: "en_US_POSIX")
        for format in ["yyyy-MM-dd'T'HH:mm:ss", "yyyy-MM-dd HH:mm:ss", "yyyy-MM-dd'T'HH:mm", "yyyy-MM-dd HH:mm", "yyyy-MM-dd"] {
            formatter.dateFormat = format
            if let date = formatter.date(from: text) { return date }
        }
        return nil
    }

    /// - Parameter now: the server's clock, which the versions' times are of.
    func timestamp(now: Timestamp) -> Timestamp {
        switch kind {
        case .absolute(let time): time
        case .ago(let seconds): now.adding(seconds: -seconds)
        }
    }
}
