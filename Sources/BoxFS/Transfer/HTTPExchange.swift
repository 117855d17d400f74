import CCurl
import Shared

/// Who waits, and so which connections are used: a reader never queues behind an upload.
enum TransferLane: Int, CaseIterable, Sendable {
    case reader, metadata, longPoll, prefetch, upload

    /// Exchanges under way at once, each on a thread and a kept-alive connection of its own.
    var parallel: Int {
        switch self {
        case .reader: 4
        case .metadata: 2
        case .longPoll: 1
        case .prefetch: 3
        case .upload: 4
        }
    }
}

/// Takes the body of a success while it arrives, on the transfer's thread.
protocol AnswerSink: AnyObject, Sendable {
    /// - Returns: false: it takes no more, and the exchange fails.
    func take(_ bytes: UnsafeRawBufferPointer) -> Bool
}

struct HTTPRequest: Sendable {
    enum Body: Sendable {
        case none
        case bytes([UInt8])
        /// `count` bytes of an open file, kept open by the value.
        case file(OpenDescriptor, offset: Int, count: Int)
    }

    var method = "GET"
    /// Path and query, from the server's root.
    var path: String
    var body = Body.none
    var contentType = Self.json
    static let json = "application/json"
    var timeoutSeconds: Double = 60
    /// The connection is given up when nothing moved on it for so long, in either direction (and some seconds that libcurl takes the mean
    /// of): it was forgotten on its way, or the server is stuck. More where the server may have to work before it answers.
    var silenceSeconds: Double = 8
    /// A longer answer is an error: no server may fill our memory, or the disk.
    var maximumAnswerBytes = 32 << 20
    /// The answer has no body then.
    var sink: (any AnswerSink)?
}

struct HTTPResponse: Sendable {
    var status: Int
    var body: [UInt8]
    var retryAfterSeconds: Double?
}

/// What came instead of an answer.
enum RemoteError: Error, Sendable, CustomStringConvertible {
    /// Not reached, too slow, or not able to answer now (5xx, 429): worth another try.
    case offline(String)
    /// The server said no, and why.
    case problem(Problem)
    /// The answer is not what API v1 promises: wrong bytes, no JSON.
    case invalidAnswer(String)
    case cancelled

    var description: String {
        switch self {
        case .offline(let reason): reason
        case .problem(let problem): problem.detail.map { "\(problem.title): \($0)" } ?? problem.title
        case .invalidAnswer(let reason): "the server's answer makes no sense (\(reason))"
        case .cancelled: "cancelled"
        }
    }
}
