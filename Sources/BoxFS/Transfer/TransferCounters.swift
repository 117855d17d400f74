import Shared
import Synchronization

/// What was sent and received, for `boxfs status` and `boxfs stats`.
final class TransferCounters: Sendable {
    let sent = Atomic<UInt64>(0), received = Atomic<UInt64>(0)
    /// Exchanges that were given up because nothing moved, or too slowly.
    let silences = Atomic<UInt64>(0)
    private let lanes = TransferLane.allCases.map { _ in Histogram() }
    private let kinds = Mutex<[String: ExchangeCounts]>([:])
    /// API v1 has fewer.
    private static let maximumKinds = 64

    func note(_ request: HTTPRequest, _ lane: TransferLane, since start: UInt64, _ result: Result<HTTPResponse, RemoteError>) {
        let time = Clock.now() - start
        lanes[lane.rawValue].add(time)
        let kind = Self.kind(request)
        kinds.withLock { kinds in
            guard kinds.count < Self.maximumKinds || kinds[kind] != nil else { return }
            kinds[kind, default: ExchangeCounts()].add(request, result, time)
        }
    }

    /// By the names of lanes and of kinds. Lanes that were not used are left out.
    func counts() -> (lanes: [String: HistogramCounts], kinds: [String: ExchangeCounts]) {
        var used: [String: HistogramCounts] = [:]
        for lane in TransferLane.allCases {
            let counts = lanes[lane.rawValue].counts
            if !counts.buckets.isEmpty { used["\(lane)"] = counts }
        }
        return (used, kinds.withLock { $0 })
    }

    /// Method and path, with `*` for identifiers and hashes, without `/v1/`: `GET namespaces/*/chunks/*`.
    static func kind(_ request: HTTPRequest) -> String {
        let path = request.path.prefix { $0 != "?" }
        let parts = path.split(separator: "/").filter { $0 != "v1" }.map { $0.count >= 32 ? "*" : String($0) }
        return "\(request.method) \(parts.joined(separator: "/"))"
    }
}

extension ExchangeCounts {
    fileprivate mutating func add(_ request: HTTPRequest, _ result: Result<HTTPResponse, RemoteError>, _ time: UInt64) {
        count += 1
        nanoseconds += time
        maximumNanoseconds = max(maximumNanoseconds, time)
        switch request.body {
        case .none: break
        case .bytes(let bytes): sentBytes += UInt64(bytes.count)
        case .file(_, _, let count): sentBytes += UInt64(count)
        }
        guard case .success(let response) = result else { return failures += 1 }
        if !(200..<300).contains(response.status) { failures += 1 }
        receivedBytes += UInt64(response.body.count)
    }
}
