import Foundation

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014): a test's draws, which its seed repeats.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
    public private(set) var state: UInt64

    public init(state: UInt64) { self.state = state }

    /// With the seed that `seed` prints.
    public init(_ name: String = #function) { self.init(state: Self.seed(name)) }

    /// `BOXFS_SEED`, or a new seed; printed before the first draw, as what is to be set to repeat them.
    public static func seed(_ name: String = #function) -> UInt64 {
        let seed = given ?? .random(in: 0...UInt64.max)
        print("\(name): BOXFS_SEED=\(seed)")
        return seed
    }

    /// The seed that is to be repeated.
    public static var given: UInt64? { ProcessInfo.processInfo.environment["BOXFS_SEED"].flatMap { UInt64($0) } }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    public mutating func bytes(_ count: Int) -> [UInt8] {
        let words = (0..<(count + 7) / 8).map { _ in next().littleEndian }
        return words.withUnsafeBytes { Array($0.prefix(count)) }
    }
}
