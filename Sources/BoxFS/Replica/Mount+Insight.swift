import Shared

// What a mount tells of its own work: `boxfs stats`, `boxfs trace`.
extension Mount {
    func statistics(reset: Bool) -> MountStatistics {
        let now = counted()
        return baseline.withLock { baseline in
            let answer = baseline.map { now.since($0) } ?? now
            if reset { baseline = now }
            return answer
        }
    }

    private func counted() -> MountStatistics {
        let transfer = replica.remote.engine.settings.counters, cache = replica.cache.statistics
        let (lanes, kinds) = transfer.counts()
        return MountStatistics(
            since: began, time: .now(), operations: instruments.counts(), lanes: lanes, exchanges: kinds,
            sentBytes: transfer.sent.load(ordering: .relaxed), receivedBytes: transfer.received.load(ordering: .relaxed),
            cacheHits: UInt64(cache.hits), cacheMisses: UInt64(cache.misses), cacheEvictions: UInt64(cache.evictions),
            keeps: replica.tree.database.keeps.counts, commits: replica.tree.database.commits.counts, logSyncs: replica.tree.database.syncs.counts,
            dataSyncs: replica.tree.segments.syncs.counts)
    }

    /// How often those who watch are told, milliseconds.
    private static let traceMilliseconds = 50

    func trace(_ filter: TraceFilter, process: Int32, _ tell: @escaping @Sendable (TraceBatch) -> Void) async {
        let listener = TraceListener(filter, process: process)
        guard instruments.listeners.add(listener) else { return }
        defer { instruments.listeners.remove(listener) }
        tell(TraceBatch(records: [], lost: 0))     // from here on nothing is missed
        while !Task.isCancelled, let (records, lost) = listener.next() {
            if !records.isEmpty || lost > 0 { tell(TraceBatch(records: records, lost: lost)) }
            try? await Task.sleep(for: .milliseconds(Self.traceMilliseconds))
        }
    }
}
