import ChunkCache
import Dispatch
import Foundation
import Shared
import Synchronization

/// Brings chunks into the cache: once for all who wait, checked, small ones many at a time.
///
/// A long one is hashed and written while it arrives: neither the network nor the disk waits for the other. While the server is away,
/// a chunk that somebody waits for is asked for again and again; whoever waits has a deadline.
final class ChunkFetcher: Sendable {
    private let remote: Remote
    private let cache: ChunkCache
    /// Hashing and writing what came, off the transfer threads.
    private let storing = DispatchQueue(label: "store chunks", qos: .userInitiated, attributes: .concurrent)

    /// Chunks up to this size are asked for together, bytes.
    private static let smallBytes: UInt32 = 128 << 10
    /// Read-ahead under way at most.
    private static let maximumPrefetches = 32

    private let table = Mutex(Table())
    private struct Table: Sendable {
        var wanted: [ChunkHash: Wanted] = [:]
        var small: [ChunkReference] = []
        var smallUnderWay = 0
        var prefetches = 0
        var nextWaiter = 0
    }
    private struct Wanted: Sendable {
        var waiters: [Int: @Sendable (RemoteError?) -> Void] = [:]
        var isPrefetch = false
        /// Who has the right to it; the first who asked.
        var namespace: NamespaceID
        var failures = 0
    }

    init(remote: Remote, cache: ChunkCache) {
        self.remote = remote
        self.cache = cache
    }

    /// - Parameter done: called once, when the chunk is in the cache (nil) or cannot be had.
    /// - Returns: gives the waiting up; `done` is then not called any more.
    func fetch(_ reference: ChunkReference, of namespace: NamespaceID, done: @escaping @Sendable (RemoteError?) -> Void) -> @Sendable () -> Void {
        let hash = reference.hash
        if cache.contains(hash) {
            done(nil)
            return {}
        }
        let (waiter, mustStart) = table.withLock { table in
            table.nextWaiter += 1
            let waiter = table.nextWaiter
            // A chunk that read-ahead asked for is on its way, or first in a short queue: it is not asked for twice.
            let mustStart = table.wanted[hash] == nil
            table.wanted[hash, default: Wanted(namespace: namespace)].waiters[waiter] = done
            return (waiter, mustStart)
        }
        if mustStart { start(reference) }
        return { [self] in table.withLock { _ = $0.wanted[hash]?.waiters.removeValue(forKey: waiter) } }
    }

    /// Asks for chunks that nobody waits for yet; more than a few dozen at once are passed over.
    func prefetch(_ references: [ChunkReference], of namespace: NamespaceID) {
        for reference in references where !cache.contains(reference.hash) {
            let mustStart = table.withLock { table in
                guard table.wanted[reference.hash] == nil, table.prefetches < Self.maximumPrefetches else { return false }
                table.prefetches += 1
                table.wanted[reference.hash] = Wanted(isPrefetch: true, namespace: namespace)
                return true
            }
            if mustStart { start(reference) }
        }
    }

    private func start(_ reference: ChunkReference) {
        if reference.length <= Self.smallBytes {
            table.withLock { $0.small.append(reference) }
            startSmall()
            return
        }
        guard let wanted = table.withLock({ $0.wanted[reference.hash] }) else { return }
        let namespace = wanted.namespace, lane: TransferLane = wanted.isPrefetch ? .prefetch : .reader
        let arrival = Arrival(ArrivingChunk(cache, reference))
        remote.engine.start(Remote.chunkRequest(namespace, reference, into: arrival), lane: lane) { [self] result in
            storing.async { [self] in
                do throws(RemoteError) {
                    try arrival.finish(result)
                    finish(reference, nil)
                } catch { failed(reference, error) }
            }
        }
    }

    /// Two exchanges at a time carry all small chunks that were asked for in the meantime.
    private func startSmall() {
        let (batch, namespace) = table.withLock { table -> ([ChunkReference], NamespaceID?) in
            guard table.smallUnderWay < 2, let first = table.small.first else { return ([], nil) }
            let namespace = table.wanted[first.hash]?.namespace
            // One request is about one namespace.
            let batch = Array(table.small.prefix(256).prefix { table.wanted[$0.hash]?.namespace == namespace })
            table.small.removeFirst(batch.count)
            if namespace != nil { table.smallUnderWay += 1 }
            return (batch, namespace)
        }
        guard let namespace, let request = try? Remote.chunksRequest(namespace, batch) else { return }
        remote.engine.start(request, lane: .reader) { [self] result in
            storing.async { [self] in
                take(batch, result)
                table.withLock { $0.smallUnderWay -= 1 }
                startSmall()
            }
        }
    }

    private func take(_ batch: [ChunkReference], _ result: Result<HTTPResponse, RemoteError>) {
        var left = Dictionary(batch.map { ($0.hash, $0) }, uniquingKeysWith: { first, _ in first })
        do throws(RemoteError) {
            let body = try Remote.body(try result.get())
            var failure: RemoteError?
            body.withUnsafeBytes { bytes in
                guard let frames = try? ChunkFrame.parse(bytes) else {
                    failure = .invalidAnswer("a batch of chunks that ends too early")
                    return
                }
                for (reference, range) in frames {
                    guard let wanted = left.removeValue(forKey: reference.hash) else { continue }
                    do throws(RemoteError) {
                        try store(wanted, UnsafeRawBufferPointer(rebasing: bytes[range]))
                        finish(wanted, nil)
                    } catch { failed(wanted, error) }
                }
            }
            if let failure { throw failure }
            // The server answers a prefix; the rest is asked for again, unless it could give nothing.
            let isStuck = left.count == batch.count
            for reference in left.values {
                if isStuck { failed(reference, .invalidAnswer("a chunk that the server does not give")) } else { start(reference) }
            }
        } catch {
            for reference in left.values { failed(reference, error) }
        }
    }

    private func store(_ reference: ChunkReference, _ bytes: UnsafeRawBufferPointer) throws(RemoteError) {
        let isRight: Bool
        do throws(ChunkCacheError) { isRight = try cache.insert(reference, bytes) } catch { throw RemoteError(error) }
        guard isRight else { throw .wrongChunk }
    }

    private func finish(_ reference: ChunkReference, _ error: RemoteError?) {
        let waiters = table.withLock { table -> [@Sendable (RemoteError?) -> Void] in
            guard let wanted = table.wanted.removeValue(forKey: reference.hash) else { return [] }
            if wanted.isPrefetch { table.prefetches -= 1 }
            return Array(wanted.waiters.values)
        }
        for waiter in waiters { waiter(error) }
    }

    /// Tries again while somebody waits: without end while the server is away, for some seconds if it answers nonsense.
    private func failed(_ reference: ChunkReference, _ error: RemoteError) {
        let pause: Double? = table.withLock { table in
            guard var wanted = table.wanted[reference.hash], !wanted.waiters.isEmpty else { return nil }
            wanted.failures += 1
            table.wanted[reference.hash] = wanted
            switch error {
            case .offline: return min(2, 0.05 * Double(1 << min(wanted.failures, 6)))
            case .invalidAnswer: return wanted.failures < 6 ? 0.05 * Double(1 << wanted.failures) : nil
            case .problem, .cancelled: return nil
            }
        }
        guard let pause else { return finish(reference, error) }
        storing.asyncAfter(deadline: .now() + pause) { [self] in start(reference) }
    }
}

/// The exchange that brings one chunk.
private final class Arrival: AnswerSink, @unchecked Sendable {      // the transfer's thread has it first, then who is told of the answer
    private let chunk: ArrivingChunk
    private var failure: ChunkCacheError?

    init(_ chunk: ArrivingChunk) { self.chunk = chunk }

    func take(_ bytes: UnsafeRawBufferPointer) -> Bool {
        do throws(ChunkCacheError) { try chunk.append(bytes) } catch { failure = error }
        return failure == nil
    }

    func finish(_ result: Result<HTTPResponse, RemoteError>) throws(RemoteError) {
        if let failure { throw RemoteError(failure) }
        _ = try Remote.body(try result.get())
        let isRight: Bool
        do throws(ChunkCacheError) { isRight = try chunk.finish() } catch { throw RemoteError(error) }
        guard isRight else { throw .wrongChunk }
    }
}

extension RemoteError {
    fileprivate static var wrongChunk: Self { .invalidAnswer("a chunk with wrong bytes") }

    /// Room may come when unsent data were sent: as with a server that is away, whoever waits has a deadline.
    fileprivate init(_ error: ChunkCacheError) {
        self = error == .full ? .offline("the local cache is full") : .invalidAnswer("the chunk cache cannot take it: \(error)")
    }
}
