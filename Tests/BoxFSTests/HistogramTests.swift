import Foundation
import Glibc
import Testing
import TestSupport
@testable import BoxFS

/// Histograms beside the sorted durations that they counted. `BOXFS_SEED` repeats a run.
@Suite struct HistogramTests {
    /// Durations of all sizes: as many of a nanosecond as of a second.
    static func durations(_ count: Int, _ random: inout SeededGenerator) -> [UInt64] {
        (0..<count).map { _ in UInt64.random(in: 0...UInt64.max, using: &random) >> UInt64.random(in: 25...63, using: &random) }
    }

    @Test func bucketsFollowOneAnotherWithoutGaps() {
        var next: UInt64 = 0
        for bucket in 0..<Histogram.bucketCount {
            let range = Histogram.range(ofBucket: bucket)
            #expect(range.lowerBound == next, "bucket \(bucket)")
            #expect(Histogram.bucket(range.lowerBound) == bucket && Histogram.bucket(range.upperBound) == bucket)
            #expect(range.upperBound - range.lowerBound <= range.lowerBound / 16)
            next = range.upperBound + 1
        }
        #expect(next == 1 << 40)
        #expect(Histogram.bucket(1 << 40) == Histogram.bucketCount - 1 && Histogram.bucket(.max) == Histogram.bucketCount - 1)
    }

    @Test func percentilesAreThoseOfTheSortedDurations() {
        var random = SeededGenerator("percentiles")
        for count in [1, 2, 3, 10, 99, 100, 101, 5000] {
            let histogram = Histogram(), durations = Self.durations(count, &random)
            for duration in durations { histogram.add(duration) }
            let counts = histogram.counts, sorted = durations.sorted()
            #expect(counts.count == count && counts.maximum == sorted.last && counts.sum == durations.reduce(0, &+))
            for part in [0.001, 0.5, 0.9, 0.99, 0.999, 1] {
                let exact = sorted[max(0, Int((Double(count) * part).rounded(.up)) - 1)], found = counts.percentile(part)
                #expect(found >= exact && found <= exact + exact / 16, "\(part) of \(count): \(found) for \(exact)")
            }
        }
        #expect(HistogramCounts().percentile(0.5) == 0)
    }

    @Test func nothingIsLostAmongThreads() {
        var random = SeededGenerator("threads")
        let histogram = Histogram(), parts = (0..<8).map { _ in Self.durations(20_000, &random) }
        DispatchQueue.concurrentPerform(iterations: parts.count) { part in
            for duration in parts[part] { histogram.add(duration) }
        }
        let all = parts.flatMap { $0 }
        var buckets: [Int: UInt64] = [:]
        for duration in all { buckets[Histogram.bucket(duration), default: 0] += 1 }
        #expect(histogram.counts == HistogramCounts(buckets: buckets, sum: all.reduce(0, &+), maximum: all.max()!))
    }

    @Test func aDifferenceIsWhatCameSince() {
        var random = SeededGenerator("difference")
        let histogram = Histogram(), before = Self.durations(500, &random), after = Self.durations(500, &random)
        before.forEach(histogram.add)
        let earlier = histogram.counts
        #expect(earlier.since(earlier).count == 0 && earlier.since(earlier).sum == 0 && earlier.since(earlier).maximum == 0)
        after.forEach(histogram.add)
        let rest = histogram.counts.since(earlier), alone = Histogram()
        after.forEach(alone.add)
        #expect(rest.buckets == alone.counts.buckets && rest.sum == alone.counts.sum)
        let largest = after.max()!
        #expect(rest.maximum >= largest && rest.maximum <= largest + largest / 16)
    }
}

@Suite struct InstrumentsTests {
    private func request(_ operation: RequestOperation, _ inode: UInt64, process: Int32 = 7) -> RequestAccount {
        RequestAccount(RequestCall(operation, inode), thread: process)
    }

    @Test func whoReadsTooSlowlyIsToldWhatIsLost() {
        let instruments = Instruments(), listener = TraceListener(TraceFilter(), process: 99, capacity: 10)
        func ask(_ inode: UInt64, process: Int32 = 7) {
            let account = request(.getattr, inode, process: process)
            instruments.answered(account, at: Clock.now(), error: 0, paths: instruments.paths(of: account) { "file \($0)" })
        }
        ask(1)      // nobody listens yet
        #expect(instruments.listeners.add(listener))
        for inode in 2..<27 { ask(UInt64(inode)) }
        ask(50, process: 99)        // the listener's own
        let first = listener.next()
        #expect(first?.records.map(\.inode) == Array(2..<12) && first?.lost == 15 && first?.records.first?.path == "file 2")
        #expect(listener.next()?.lost == 0)
        ask(27)
        instruments.listeners.end()
        #expect(listener.next()?.records.map(\.inode) == [27])
        #expect(listener.next() == nil)
        #expect(!instruments.listeners.add(TraceListener(TraceFilter())))
        #expect(instruments.counts()["getattr"]?.durations.count == 28)
    }

    @Test func filters() {
        func takes(_ filter: TraceFilter, _ operation: String, _ path: String?, _ newPath: String? = nil, nanoseconds: UInt64 = 5) -> Bool {
            var record = RequestRecord(RecentRequests.Kept(request(.read, 3), 0, nanoseconds), inode: 3, caller: nil)
            (record.operation, record.path, record.newPath) = (operation, path, newPath)
            return filter.takes(record)
        }
        let folder = TraceFilter(path: "a/b")
        #expect(takes(folder, "read", "a/b") && takes(folder, "read", "a/b/c") && takes(folder, "rename", "x", "a/b/c"))
        #expect(!takes(folder, "read", "a/bc") && !takes(folder, "read", "a") && !takes(folder, "read", nil))
        #expect(takes(TraceFilter(operations: ["read"]), "read", nil) && !takes(TraceFilter(operations: ["read"]), "write", "a"))
        #expect(takes(TraceFilter(minimumNanoseconds: 5), "read", nil) && !takes(TraceFilter(minimumNanoseconds: 6), "read", nil))
    }

    @Test func whatIsChargedWithinAChargeCountsOnce() {
        let account = request(.fsync, 1), start = Clock.now(), histogram = Histogram()
        account.during {
            RequestAccount.chargeCurrent(.disk, histogram) {
                usleep(2_000)
                RequestAccount.chargeCurrent(.log) { usleep(5_000) }
                account.charge(.lock) { RequestAccount.chargeCurrent(.log) { usleep(5_000) } }
            }
        }
        let elapsed = Clock.now() - start, times = Dictionary(uniqueKeysWithValues: account.waits.map { ($0.cause, $0.nanoseconds) })
        #expect(times[.disk]! >= 2_000_000 && times[.log]! >= 10_000_000 && times.values.reduce(0, +) <= elapsed)
        #expect(histogram.counts.sum >= 12_000_000)
    }

    @Test func theTableOfRecentRequestsIsBounded() {
        let recent = RecentRequests(), slots = UInt64(RecentRequests.stripeCount * RecentRequests.stripeSlots)
        for inode in 1...slots {
            recent.note(request(.open, inode), 0, 10)
            recent.note(request(.read, inode), 5, 20)
        }
        #expect((1...slots).allSatisfy { recent.last($0)?.open?.nanoseconds == 10 && recent.last($0)?.read?.error == 5 && recent.last($0)?.write == nil })
        recent.note(request(.write, slots + 1), 0, 30)
        #expect(recent.last(1) == nil && recent.last(slots + 1)?.write?.nanoseconds == 30 && recent.last(slots + 1)?.open == nil)
        #expect(recent.last(2) != nil)
    }
}
