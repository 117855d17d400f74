import CCurl
import Dispatch
import Foundation
import Glibc
import Synchronization

struct ConnectionSettings: Sendable {
    /// `http://host:port`, without a slash at the end.
    var server: String
    var token: String?
    var certificateAuthorityFile: String?
    /// Bytes a second for each connection, 0 for no limit.
    var uploadLimit: Int64 = 0
    var downloadLimit: Int64 = 0
    let counters = TransferCounters()
}

/// Runs exchanges on the threads of their lane, in order within a lane. A lane's queue is bounded by its callers: the uploader and
/// read-ahead limit themselves, and a reader's request ends with its program's system call.
///
/// One easy handle a thread rather than one multi handle for all: a blocking exchange is the simplest code that keeps lanes apart,
/// and a mount needs no more than these few connections.
final class HTTPEngine: Sendable {
    let settings: ConnectionSettings
    private let lanes: [Lane]

    init(settings: ConnectionSettings) {
        self.settings = settings
        lanes = TransferLane.allCases.map { Lane($0, settings) }
    }

    deinit { for lane in lanes { lane.close() } }

    /// - Parameter done: called once, on the lane's thread.
    func start(
        _ request: HTTPRequest, lane: TransferLane, token: TransferToken = TransferToken(),
        done: @escaping @Sendable (Result<HTTPResponse, RemoteError>) -> Void
    ) {
        lanes[lane.rawValue].add(Lane.Job(request: request, token: token, done: done))
    }

    func send(_ request: HTTPRequest, lane: TransferLane) async throws(RemoteError) -> HTTPResponse {
        let token = TransferToken()
        let result: Result<HTTPResponse, RemoteError> = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                start(request, lane: lane, token: token) { continuation.resume(returning: $0) }
            }
        } onCancel: {
            token.cancel()
            lanes[lane.rawValue].drop(token)
        }
        return try result.get()
    }
}

/// A queue and its threads, which start with the first job.
private final class Lane: @unchecked Sendable {     // `queue` and `isClosed` are guarded by `condition`
    struct Job: Sendable {
        let request: HTTPRequest
        let token: TransferToken
        let done: @Sendable (Result<HTTPResponse, RemoteError>) -> Void
        let added = Clock.now()
    }

    private let lane: TransferLane
    private let settings: ConnectionSettings
    private let condition = NSCondition()
    private var queue: [Job] = []
    private var isClosed = false
    private var threads = 0
    private var idle = 0

    init(_ lane: TransferLane, _ settings: ConnectionSettings) {
        self.lane = lane
        self.settings = settings
    }

    func add(_ job: Job) {
        condition.lock()
        queue.append(job)
        let needsThread = idle < queue.count && threads < lane.parallel
        if needsThread { threads += 1 }
        condition.signal()
        condition.unlock()
        if needsThread {
            let thread = Thread { [self] in run() }
            thread.stackSize = 512 << 10
            thread.name = "transfer"
            thread.start()
        }
    }

    /// Answers a cancelled job that no thread has taken: all of them may be waiting for a silent server.
    func drop(_ token: TransferToken) {
        condition.lock()
        let index = queue.firstIndex { $0.token === token }
        let job = index.map { queue.remove(at: $0) }
        condition.unlock()
        job?.done(.failure(.cancelled))
    }

    func close() {
        condition.lock()
        isClosed = true
        condition.broadcast()
        condition.unlock()
    }

    private func run() {
        let worker = CurlWorker()
        while let job = next() {
            let result = run(job, worker)
            settings.counters.note(job.request, lane, since: job.added, result)
            job.done(result)
        }
    }

    private func run(_ job: Job, _ worker: CurlWorker) -> Result<HTTPResponse, RemoteError> {
        if job.token.isCancelled { return .failure(.cancelled) }
        do throws(RemoteError) { return .success(try worker.perform(job.request, settings, job.token)) } catch { return .failure(error) }
    }

    private func next() -> Job? {
        condition.lock()
        defer { condition.unlock() }
        idle += 1
        while queue.isEmpty, !isClosed { condition.wait() }
        idle -= 1
        return queue.isEmpty ? nil : queue.removeFirst()
    }
}
