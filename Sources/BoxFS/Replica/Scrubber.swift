import CLinux
import ChunkCache
import Foundation
import Glibc
import Shared
import Synchronization

/// Re-reads the cached chunks, about once a week, so that damage by the disk is found while the server can still give the chunk again.
///
/// A thread of idle priority reads some chunks and then rests for 2,000 times as long as it computed, 10 seconds at least: less than a
/// thousandth of a core. Where it is stands in `cache/scrub` (the last hash, and when the pass began), so a remount goes on there.
final class Scrubber: Sendable {
    static let standardRestSeconds = 10.0

    private let cache: ChunkCache
    private let restSeconds: Double
    private let stepBytes: Int
    private let place: String
    private let found: @Sendable (ChunkReference, _ isUnsent: Bool) -> Void
    private let isStopped = Atomic<Bool>(false)
    private let wake = DispatchSemaphore(value: 0), ended = DispatchSemaphore(value: 0)

    /// - Parameters:
    ///   - restSeconds: between two steps at least; the other times grow and shrink with it.
    ///   - stepBytes: of the chunks of one step.
    ///   - found: called for each damaged chunk, on the scrub's thread.
    init(cache: ChunkCache, restSeconds: Double, stepBytes: Int = 4 << 20, found: @escaping @Sendable (ChunkReference, Bool) -> Void) {
        (self.cache, self.restSeconds, self.stepBytes, self.found) = (cache, restSeconds, stepBytes, found)
        place = cache.directory + "/scrub"
    }

    func start() {
        let thread = Thread { [self] in
            linux_become_idle()
            run()
            ended.signal()
        }
        thread.stackSize = 512 << 10
        thread.start()
    }

    /// Of what was begun. A busy machine may let the thread of idle priority wait: nobody waits long for it.
    /// - Parameter seconds: for which the end of the step under way is waited for.
    func stop(within seconds: Double = 0.5) {
        isStopped.store(true, ordering: .relaxed)
        wake.signal()
        _ = ended.wait(timeout: .now() + seconds)
    }

    private func run() {
        let scale = restSeconds / Self.standardRestSeconds, week = 7 * 86_400 * scale
        var (last, began) = load()
        // The first minute belongs to those who mounted.
        guard rest(60 * scale) else { return }
        while true {
            if last == nil, let began {
                let due = Double(began.adding(seconds: Int64(week)).nanoseconds - Timestamp.now().nanoseconds) / 1e9
                guard due <= 0 || rest(min(due, week)) else { return }      // a clock that was set back makes it no longer
            }
            if last == nil || began == nil { began = .now() }
            let start = Self.threadSeconds()
            let step = cache.scrub(after: last, bytes: stepBytes)
            for (reference, isUnsent) in step.damaged { found(reference, isUnsent) }
            last = step.last
            save(last, began!)
            guard rest(max(restSeconds, 2000 * scale * (Self.threadSeconds() - start))) else { return }
        }
    }

    /// - Returns: false when there is nothing more to do.
    private func rest(_ seconds: Double) -> Bool {
        // Waits of conditions and semaphores end by the wall clock, which may be set; Dispatch's timers do not.
        let alarm = DispatchWorkItem { [wake] in wake.signal() }
        DispatchQueue.global(qos: .utility).asyncAfter(deadline: .now() + seconds, execute: alarm)
        wake.wait()
        alarm.cancel()
        return !isStopped.load(ordering: .relaxed)
    }

    private static func threadSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    private func load() -> (ChunkHash?, Timestamp?) {
        let words = ((try? String(contentsOfFile: place, encoding: .utf8)) ?? "").split(separator: " ")
        guard words.count == 2, let nanoseconds = Int64(words[1]) else { return (nil, nil) }
        return (ChunkHash(String(words[0])), Timestamp(nanoseconds: nanoseconds))
    }

    /// What is lost of it is read again.
    private func save(_ last: ChunkHash?, _ began: Timestamp) {
        try? "\(last?.description ?? "-") \(began.nanoseconds)".write(toFile: place, atomically: false, encoding: .utf8)
    }
}

extension Synchronizer {
    /// A damaged chunk is told, and fetched again.
    func chunkIsDamaged(_ reference: ChunkReference, isUnsent: Bool) {
        guard !isUnsent else {
            return note("The disk damaged chunk \(reference.hash), \(reference.length) bytes that the server does not have. Write the file anew if you can.")
        }
        note("The disk damaged chunk \(reference.hash) of the cache: it is fetched again.")
        let namespaces = tree.lock.withLock { tree.namespacesHomeFirst.filter { !$0.isLost }.map(\.id) }
        fetchAgain(reference, of: namespaces[...])
    }

    /// Nothing here says to which namespace a chunk belongs.
    private func fetchAgain(_ reference: ChunkReference, of namespaces: ArraySlice<NamespaceID>) {
        guard let first = namespaces.first else { return }
        _ = chunks.fetch(reference, of: first) { [weak self] error in
            if error != nil { self?.fetchAgain(reference, of: namespaces.dropFirst()) }
        }
    }
}
