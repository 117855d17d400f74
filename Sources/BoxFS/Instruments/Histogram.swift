import Glibc
import Synchronization

/// Counts durations in fixed memory, from any number of threads, without a lock.
///
/// The buckets are log-linear, as in HdrHistogram: below 16 ns each nanosecond has a bucket of its own; above, each power of two is
/// divided into 16 equal ones, so that a bucket is never wider than a sixteenth of the durations in it. What takes longer than
/// 2^40 ns (18 minutes) is counted in the last one.
///
/// A bucket is counted in one of a few shards, chosen by the thread: two threads of the mount seldom write to one cache line.
final class Histogram: Sendable {
    static let subBucketBits = 4, largestPower = 40
    static let bucketCount = (largestPower - subBucketBits + 1) << subBucketBits

    private static let shardCount = 4
    /// Behind a shard's buckets stand the sum of its durations and their maximum.
    private static let shardWords = bucketCount + 8
    private let words: AtomicWords

    init() { words = AtomicWords(count: Self.shardCount * Self.shardWords) }

    static func bucket(_ nanoseconds: UInt64) -> Int {
        let power = 63 - (nanoseconds | 1).leadingZeroBitCount
        guard power >= subBucketBits else { return Int(nanoseconds) }
        guard power < largestPower else { return bucketCount - 1 }
        // The bits behind the leading one, after the number of powers that have 16 buckets each.
        let shift = power - subBucketBits
        return (shift + 1) << subBucketBits + Int(nanoseconds >> UInt64(shift)) - 1 << subBucketBits
    }

    /// The durations that a bucket counts.
    static func range(ofBucket bucket: Int) -> ClosedRange<UInt64> {
        let power = bucket >> subBucketBits
        guard power > 0 else { return UInt64(bucket)...UInt64(bucket) }
        let shift = UInt64(power - 1)
        let low = UInt64(1 << subBucketBits + bucket & (1 << subBucketBits - 1)) << shift
        return low...low + (1 << shift) - 1
    }

    func add(_ nanoseconds: UInt64) {
        let shard = ThreadNumber.current % Self.shardCount * Self.shardWords
        words.add(1, at: shard + Self.bucket(nanoseconds))
        words.add(nanoseconds, at: shard + Self.bucketCount)
        words.raise(to: nanoseconds, at: shard + Self.bucketCount + 1)
    }

    /// What was counted so far. Durations that are being added meanwhile are in it or not.
    var counts: HistogramCounts {
        var counts = HistogramCounts()
        for shard in 0..<Self.shardCount {
            let start = shard * Self.shardWords
            for bucket in 0..<Self.bucketCount {
                let count = words[start + bucket]
                if count > 0 { counts.buckets[bucket, default: 0] += count }
            }
            counts.sum &+= words[start + Self.bucketCount]
            counts.maximum = max(counts.maximum, words[start + Self.bucketCount + 1])
        }
        return counts
    }
}

/// What a histogram held at a moment. Nanoseconds.
struct HistogramCounts: Codable, Hashable, Sendable {
    /// By bucket of `Histogram`; empty ones are left out.
    var buckets: [Int: UInt64] = [:]
    var sum: UInt64 = 0
    var maximum: UInt64 = 0

    var count: UInt64 { buckets.values.reduce(0, +) }

    /// The duration that this part of all durations does not exceed, at most a sixteenth too long; 0 when there are none.
    func percentile(_ part: Double) -> UInt64 {
        let wanted = max(1, UInt64((Double(count) * part).rounded(.up)))
        var seen: UInt64 = 0
        for (bucket, count) in buckets.sorted(by: { $0.key < $1.key }) {
            seen += count
            if seen >= wanted { return min(Histogram.range(ofBucket: bucket).upperBound, maximum) }
        }
        return maximum
    }

    /// What came since an earlier moment. The maximum is then known to a sixteenth, unless it is a new one.
    func since(_ earlier: HistogramCounts) -> HistogramCounts {
        var rest = HistogramCounts(buckets: buckets, sum: sum &- earlier.sum, maximum: 0)
        for (bucket, count) in earlier.buckets {
            let left = (buckets[bucket] ?? 0) &- count
            rest.buckets[bucket] = left == 0 ? nil : left
        }
        if maximum > earlier.maximum {
            rest.maximum = maximum
        } else if let last = rest.buckets.keys.max() {
            rest.maximum = min(Histogram.range(ofBucket: last).upperBound, maximum)
        }
        return rest
    }
}

/// A fixed number of counters in one piece of memory, which the kernel provides page by page as they are used.
final class AtomicWords: @unchecked Sendable {      // only reached by atomic operations
    private let words: UnsafeMutablePointer<Atomic<UInt64>>
    let count: Int

    init(count: Int) {
        precondition(MemoryLayout<Atomic<UInt64>>.stride == 8, "an atomic word is a word, and zero bytes are a zero")
        guard let memory = calloc(count, 8) else { preconditionFailure("no memory for \(count) counters") }
        words = memory.bindMemory(to: Atomic<UInt64>.self, capacity: count)
        self.count = count
    }

    deinit { free(words) }

    subscript(index: Int) -> UInt64 { words[index].load(ordering: .relaxed) }

    func add(_ amount: UInt64, at index: Int) { words[index].wrappingAdd(amount, ordering: .relaxed) }

    func raise(to value: UInt64, at index: Int) {
        // Nearly always it is no new maximum, and a load is cheaper than an exchange.
        if words[index].load(ordering: .relaxed) < value { words[index].max(value, ordering: .relaxed) }
    }
}

/// A small number that tells threads apart, cheaply.
enum ThreadNumber {
    /// Stacks lie megabytes apart: the middle bits of the thread's own address differ.
    static var current: Int { Int(truncatingIfNeeded: UInt64(pthread_self()) &* 0x9E37_79B9_7F4A_7C15 >> 56) }
}
