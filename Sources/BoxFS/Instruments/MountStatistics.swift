import Shared

/// Everything that a mount counted, at a moment: what `boxfs stats` asks for. Differences of two are made by whoever asked.
struct MountStatistics: Codable, Hashable, Sendable {
    /// The counting began: the mount, or the last `stats --reset`.
    var since: Timestamp
    var time: Timestamp
    /// Requests of the kernel by `RequestOperation.name`.
    var operations: [String: Instruments.Counts]
    /// HTTP exchanges by lane, with their time in the lane's queue, and by kind.
    var lanes: [String: HistogramCounts]
    var exchanges: [String: ExchangeCounts]
    var sentBytes: UInt64
    var receivedBytes: UInt64
    var cacheHits: UInt64
    var cacheMisses: UInt64
    var cacheEvictions: UInt64
    /// Closes whose changes went to the replica's journal, its transactions, fdatasyncs of its WAL, and syncs of files' segments.
    var keeps: HistogramCounts
    var commits: HistogramCounts
    var logSyncs: HistogramCounts
    var dataSyncs: HistogramCounts

    /// What came after `earlier`, a state of the same mount.
    func since(_ earlier: MountStatistics) -> MountStatistics {
        var rest = self
        rest.since = earlier.time
        for (name, counts) in earlier.operations { rest.operations[name] = operations[name]?.since(counts) }
        rest.operations = rest.operations.filter { !$0.value.durations.buckets.isEmpty }
        for (name, counts) in earlier.lanes { rest.lanes[name] = lanes[name]?.since(counts) }
        rest.lanes = rest.lanes.filter { !$0.value.buckets.isEmpty }
        for (name, counts) in earlier.exchanges { rest.exchanges[name] = exchanges[name]?.since(counts) }
        rest.exchanges = rest.exchanges.filter { $0.value.count > 0 }
        rest.sentBytes = sentBytes &- earlier.sentBytes
        rest.receivedBytes = receivedBytes &- earlier.receivedBytes
        rest.cacheHits = cacheHits &- earlier.cacheHits
        rest.cacheMisses = cacheMisses &- earlier.cacheMisses
        rest.cacheEvictions = cacheEvictions &- earlier.cacheEvictions
        rest.keeps = keeps.since(earlier.keeps)
        rest.commits = commits.since(earlier.commits)
        rest.logSyncs = logSyncs.since(earlier.logSyncs)
        rest.dataSyncs = dataSyncs.since(earlier.dataSyncs)
        return rest
    }
}
