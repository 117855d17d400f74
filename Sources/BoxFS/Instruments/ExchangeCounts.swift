/// Exchanges of one kind: their number, how many got no success, and how long they took with the time in the lane's queue.
struct ExchangeCounts: Codable, Hashable, Sendable {
    var count: UInt64 = 0, failures: UInt64 = 0
    var nanoseconds: UInt64 = 0, maximumNanoseconds: UInt64 = 0
    var sentBytes: UInt64 = 0, receivedBytes: UInt64 = 0

    func since(_ earlier: ExchangeCounts) -> ExchangeCounts {
        ExchangeCounts(
            count: count &- earlier.count, failures: failures &- earlier.failures, nanoseconds: nanoseconds &- earlier.nanoseconds,
            maximumNanoseconds: maximumNanoseconds, sentBytes: sentBytes &- earlier.sentBytes,
            receivedBytes: receivedBytes &- earlier.receivedBytes)
    }
}
