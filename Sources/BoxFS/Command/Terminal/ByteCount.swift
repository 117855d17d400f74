import ArgumentParser

/// A number of bytes as people write it: `10GiB`, `500M`, `1.5TiB`, `4096`.
///
/// `K`, `M`, `G`, `T` and `KiB` … `TiB` are powers of 1,024; `kB`, `MB`, `GB`, `TB` are powers of 1,000.
struct ByteCount: Hashable, Sendable, ExpressibleByArgument, CustomStringConvertible {
    var bytes: UInt64

    init(bytes: UInt64) { self.bytes = bytes }

    init?(argument: String) {
        let digits = argument.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let unit = argument.dropFirst(digits.count).drop { $0 == " " }
        guard let number = Double(digits), number.isFinite, let factor = Self.factors[unit.lowercased()] else { return nil }
        let product = number * factor
        guard product >= 0, product < 9e18 else { return nil }
        bytes = UInt64(product)
    }

    private static let factors: [String: Double] = {
        var factors: [String: Double] = ["": 1, "b": 1]
        for (power, letter) in ["k", "m", "g", "t"].enumerated() {
            var (binary, decimal) = (1024.0, 1000.0)
            for _ in 0..<power { (binary, decimal) = (binary * 1024, decimal * 1000) }
            factors[letter] = binary
            factors[letter + "ib"] = binary
            factors[letter + "b"] = decimal
        }
        return factors
    }()

    /// A binary unit and at most one decimal: `4.2 MiB`, `812 B`.
    var description: String { Self.text(Double(bytes)) }

    static func text(_ bytes: Double) -> String {
        var (value, unit) = (bytes, 0)
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
        while value >= 1000, unit < units.count - 1 { (value, unit) = (value / 1024, unit + 1) }
        if unit == 0 || value >= 100 { return "\(Int(value.rounded())) \(units[unit])" }
        let tenths = Int((value * 10).rounded())
        return tenths % 10 == 0 ? "\(tenths / 10) \(units[unit])" : "\(tenths / 10).\(tenths % 10) \(units[unit])"
    }

    static func rate(_ bytesPerSecond: Double) -> String { text(bytesPerSecond) + "/s" }
}
