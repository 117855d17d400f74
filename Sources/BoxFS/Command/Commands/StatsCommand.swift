import ArgumentParser
import Foundation
import Glibc
import Shared

struct StatsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats",
        abstract: "What a mount does: requests of the kernel, exchanges with the server, cache and disk, with counts and times.",
        discussion: """
            Counts since the mount began, or since the last --reset. A percentile is at most a sixteenth too long. The fields of --json are \
            described in docs/COMMANDS.md.
            """)

    @Argument(help: "The mount, or anything in it.", completion: .directory)
    var dir: String

    @Flag(help: "Print JSON; with --interval one line each time.")
    var json = false

    @Flag(help: "Begin to count anew after this.")
    var reset = false

    @Option(help: ArgumentHelp("Print what came in each interval, until Ctrl-C.", valueName: "seconds"))
    var interval: Double?

    func validate() throws {
        if let interval, interval < 0.05 || interval > 86_400 { throw ValidationError("--interval is from 0.05 to 86400 seconds.") }
        if interval != nil, reset { throw ValidationError("--interval and --reset do not go together: --interval counts for itself.") }
    }

    func run() throws {
        let (_, record) = try MountRegistry().find(AbsolutePath.resolve(dir), in: MountTable.current())
        guard let interval else {
            let report = StatisticsReport(try ask(record))
            return Terminal.say(json ? try JSONText.encode(report) : report.lines.joined(separator: "\n"))
        }
        var last = try ask(record)
        while true {
            usleep(UInt32(interval * 1_000_000))
            let now = try ask(record)
            // Somebody began anew in between: what is counted since then is all there is.
            let report = StatisticsReport(now.since == last.since ? now.since(last) : now)
            Terminal.say(json ? try JSONText.line(report) : report.lines.joined(separator: "\n") + "\n")
            last = now
        }
    }

    private func ask(_ record: MountRecord) throws(CommandFailure) -> MountStatistics {
        guard case .statistics(let statistics) = try ControlClient(record: record).ask(.statistics(reset: reset), timeoutSeconds: 10) else {
            throw CommandFailure("The mount of \(record.mountPoint) gave no statistics.")
        }
        return statistics
    }
}

/// `stats --json`. Times are in microseconds.
struct StatisticsReport: Encodable, Sendable {
    struct Times: Encodable, Sendable {
        var count: UInt64
        var mean, p50, p90, p99, max: Double

        init(_ counts: HistogramCounts) {
            func microseconds(_ nanoseconds: UInt64) -> Double { (Double(nanoseconds) / 100).rounded() / 10 }
            count = counts.count
            mean = count == 0 ? 0 : microseconds(counts.sum / count)
            p50 = microseconds(counts.percentile(0.5))
            p90 = microseconds(counts.percentile(0.9))
            p99 = microseconds(counts.percentile(0.99))
            max = microseconds(counts.maximum)
        }

        var columns: [String] {
            [String(count)] + [mean, p50, p90, p99, max].map { durationText(nanoseconds: UInt64($0 * 1000)) }
        }
    }

    struct Operation: Encodable, Sendable {
        var microseconds: Times
        var errors: [String: UInt64]
        var bytes: UInt64?
        var entries: UInt64?
    }

    struct Exchanges: Encodable, Sendable {
        var count, failures: UInt64
        var meanMicroseconds: Double
        var sentBytes, receivedBytes: UInt64
    }

    struct Cache: Encodable, Sendable { var hits, misses, evictions: UInt64 }

    var since: String
    var seconds: Double
    var operations: [String: Operation] = [:]
    var lanes: [String: Times]
    var exchanges: [String: Exchanges]
    var sentBytes, receivedBytes: UInt64
    var cache: Cache
    var keeps, commits, logSyncs, dataSyncs: Times

    init(_ statistics: MountStatistics) {
        since = Self.text(statistics.since)
        seconds = Double(statistics.time.nanoseconds - statistics.since.nanoseconds) / 1e9
        for (name, counts) in statistics.operations {
            let isData = ["read", "write", RequestOperation.copyFileRange.name].contains(name)
            operations[name] = Operation(
                microseconds: Times(counts.durations),
                errors: Dictionary(counts.errors.map { (errorName($0), $1) }, uniquingKeysWith: +),
                bytes: isData ? counts.amount : nil, entries: name.hasPrefix("readdir") ? counts.amount : nil)
        }
        lanes = statistics.lanes.mapValues { Times($0) }
        exchanges = statistics.exchanges.mapValues {
            Exchanges(
                count: $0.count, failures: $0.failures, meanMicroseconds: Double($0.nanoseconds / max($0.count, 1)) / 1000,
                sentBytes: $0.sentBytes, receivedBytes: $0.receivedBytes)
        }
        (sentBytes, receivedBytes) = (statistics.sentBytes, statistics.receivedBytes)
        cache = Cache(hits: statistics.cacheHits, misses: statistics.cacheMisses, evictions: statistics.cacheEvictions)
        keeps = Times(statistics.keeps)
        commits = Times(statistics.commits)
        logSyncs = Times(statistics.logSyncs)
        dataSyncs = Times(statistics.dataSyncs)
    }

    private static func text(_ time: Timestamp) -> String {
        let formatter = ISO8601DateFormatter()
        formatter.formatOptions = [.withInternetDateTime, .withFractionalSeconds]
        return formatter.string(from: Date(timeIntervalSince1970: Double(time.nanoseconds) / 1e9))
    }
}

// For people.
extension StatisticsReport {
    private static let head = ["count", "mean", "p50", "p90", "p99", "max"]

    var lines: [String] {
        let seconds = (seconds * 10).rounded() / 10
        var table = TextTable(rows: [["operation"] + Self.head + ["errors", "bytes"]])
        for (name, operation) in operations.sorted(by: { ($1.value.microseconds.count, $0.key) < ($0.value.microseconds.count, $1.key) }) {
            let errors = operation.errors.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
            table.rows.append([name] + operation.microseconds.columns + [errors, operation.bytes.map { ByteCount(bytes: $0).description } ?? ""])
        }
        var here = TextTable(rows: [["on this machine"] + Self.head])
        for (name, times) in [("closes kept", keeps), ("SQLite commits", commits), ("log synced", logSyncs), ("data synced", dataSyncs)] {
            here.rows.append([name] + times.columns)
        }
        var lanes = TextTable(rows: [["exchanges in lane"] + Self.head])
        for (name, times) in self.lanes.sorted(by: { $0.key < $1.key }) { lanes.rows.append([name] + times.columns) }
        var kinds = TextTable(rows: [["exchanges"] + ["count", "failed", "mean", "sent", "received"]])
        for (kind, one) in exchanges.sorted(by: { ($1.value.count, $0.key) < ($0.value.count, $1.key) }) {
            kinds.rows.append([
                kind, String(one.count), String(one.failures), durationText(nanoseconds: UInt64(one.meanMicroseconds * 1000)),
                ByteCount(bytes: one.sentBytes).description, ByteCount(bytes: one.receivedBytes).description,
            ])
        }
        let asked = cache.hits + cache.misses
        let part = asked == 0 ? "" : " (\(cache.hits * 100 / asked) % of them here)"
        return ["since \(since), \(seconds) s", ""] + table.lines + [""] + here.lines + [""] + lanes.lines + [""] + kinds.lines + [
            "", "chunks asked of the cache: \(asked)\(part), evicted: \(cache.evictions)",
            "sent to the server: \(ByteCount(bytes: sentBytes)), received: \(ByteCount(bytes: receivedBytes))",
        ]
    }
}
