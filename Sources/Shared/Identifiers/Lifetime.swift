/// A stretch of time as people write it: `90s`, `30m`, `12h`, `7d`, `2w`.
public struct Lifetime: Hashable, Sendable {
    public let seconds: Int64

    /// nil unless the text is a whole number above 0 and a unit, within what nanoseconds in 64 bits can hold.
    public init?(_ text: String) {
        let factors: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400]
        guard let factor = text.last.flatMap({ factors[$0] }), text.dropLast().utf8.allSatisfy({ (0x30...0x39).contains($0) }),
              let number = Int64(text.dropLast()), number > 0 else { return nil }
        let (product, over) = number.multipliedReportingOverflow(by: factor)
        guard !over, product <= Int64.max / 2_000_000_000 else { return nil }
        seconds = product
    }

    public init?(argument: String) { self.init(argument) }
}
