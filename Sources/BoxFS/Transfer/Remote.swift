import ChunkCache
import Foundation
import Shared

/// API v1, call by call (docs/openapi.yaml). Chunks and pages are checked against their hashes before anybody sees them.
final class Remote: Sendable {
    let engine: HTTPEngine

    init(_ settings: ConnectionSettings) { engine = HTTPEngine(settings: settings) }

    // MARK: Server and account

    func serverInformation() async throws(RemoteError) -> ServerInformation { try await get("/v1/server", seconds: 10) }
    func login(_ request: LoginRequest) async throws(RemoteError) -> LoginAnswer { try await post("/v1/login", request) }
    func logout() async throws(RemoteError) { try await send("POST", "/v1/logout") }
    func account() async throws(RemoteError) -> AccountInformation { try await get("/v1/account", seconds: 15) }

    // MARK: Tree

    func namespace(_ id: NamespaceID) async throws(RemoteError) -> NamespaceInformation { try await get("/v1/namespaces/\(id)") }

    func node(_ namespace: NamespaceID, _ node: NodeID) async throws(RemoteError) -> Node {
        try await get("/v1/namespaces/\(namespace)/nodes/\(node)")
    }

    func children(_ namespace: NamespaceID, _ node: NodeID, after: String?) async throws(RemoteError) -> TreePage {
        let after = after.map { "&after=" + Self.escaped($0) } ?? ""
        return try await get("/v1/namespaces/\(namespace)/nodes/\(node)/children?limit=1000\(after)")
    }

    /// The children of as many of these directories as fit a page.
    func children(_ namespace: NamespaceID, of directories: [NodeID]) async throws(RemoteError) -> ChildrenPage {
        try await post("/v1/namespaces/\(namespace)/children", ChildrenRequest(directories: directories), silence: Self.workSeconds)
    }

    /// - Parameter wait: seconds that the server may hold the answer back while nothing changes.
    func changes(_ namespace: NamespaceID, after: Int64, wait: Int, limit: Int) async throws(RemoteError) -> ChangePage {
        let request = HTTPRequest(
            path: "/v1/namespaces/\(namespace)/changes?after=\(after)&wait=\(wait)&limit=\(limit)", timeoutSeconds: Double(wait) + Self.pollMarginSeconds,
            silenceSeconds: .infinity)
        // Who only wants to know does not queue behind the poll that waits.
        return try await decoded(call(request, wait > 0 ? .longPoll : .metadata))
    }

    /// The feeds of several namespaces; waits as `changes` does, until one of them has news.
    func follow(_ cursors: [FollowRequest.Cursor], wait: Int, limit: Int) async throws(RemoteError) -> FollowAnswer {
        try await post("/v1/changes", FollowRequest(cursors: cursors, limit: limit, wait: wait), lane: .longPoll, seconds: Double(wait) + Self.pollMarginSeconds)
    }

    /// How late the answer to a poll may be before its connection is given up.
    private static let pollMarginSeconds = 5.0

    func commit(_ namespace: NamespaceID, _ request: CommitRequest) async throws(RemoteError) -> CommitAnswer {
        try await post("/v1/namespaces/\(namespace)/commits", request, lane: .upload, silence: Self.workSeconds)
    }

    // MARK: Uploads

    func startUpload(_ namespace: NamespaceID, _ request: UploadRequest) async throws(RemoteError) -> UploadAnswer {
        try await post("/v1/namespaces/\(namespace)/uploads", request, lane: .upload, silence: Self.workSeconds)
    }

    func extendUpload(_ upload: UploadID, _ request: UploadRequest) async throws(RemoteError) -> UploadAnswer {
        try await post("/v1/uploads/\(upload)/hashes", request, lane: .upload, silence: Self.workSeconds)
    }

    func putChunk(_ upload: UploadID, _ reference: ChunkReference, _ chunk: OpenChunk) async throws(RemoteError) {
        let file = OpenDescriptor(chunk.fileDescriptor, keptOpenBy: chunk.keeper)
        _ = try await call(HTTPRequest(
            method: "PUT", path: "/v1/uploads/\(upload)/chunks/\(reference.hash)", body: .file(file, offset: chunk.offset, count: Int(reference.length)),
            contentType: "application/octet-stream", timeoutSeconds: 900, silenceSeconds: Self.workSeconds), .upload)
    }

    /// Has a chunk of `length` bytes made of one that the namespace holds.
    /// - Parameter delta: as `ChunkDelta` says.
    /// - Returns: its hash, as the server found it.
    func makeChunk(
        _ namespace: NamespaceID, _ upload: UploadID, base: ChunkHash, from start: Int, length: Int, _ delta: [UInt8]
    ) async throws(RemoteError) -> ChunkHash {
        let answer: DeltaAnswer = try await decoded(call(HTTPRequest(
            method: "POST", path: "/v1/namespaces/\(namespace)/uploads/\(upload)/deltas?base=\(base)&start=\(start)&length=\(length)", body: .bytes(delta),
            contentType: "application/octet-stream", timeoutSeconds: 900, silenceSeconds: Self.workSeconds), .upload))
        return answer.hash
    }

    private static func bytes(of chunk: OpenChunk, _ range: Range<Int>) throws(RemoteError) -> [UInt8] {
        let bytes = [UInt8](unsafeUninitializedCapacity: range.count) { buffer, count in
            count = readAll(chunk.fileDescriptor, UnsafeMutableRawBufferPointer(buffer), at: chunk.offset + range.lowerBound) ? range.count : 0
        }
        guard bytes.count == range.count else { throw .invalidAnswer("a chunk file is shorter than its chunk") }
        return bytes
    }

    /// Many small chunks in one body of at most `ChunkFrame.maximumBodyByteCount`.
    func putChunks(_ upload: UploadID, _ chunks: [(ChunkReference, OpenChunk)]) async throws(RemoteError) {
        var body: [UInt8] = []
        body.reserveCapacity(chunks.reduce(0) { $0 + Int($1.0.length) + ChunkFrame.headerByteCount })
        for (reference, chunk) in chunks {
            body += ChunkFrame.header(reference)
            body += try Self.bytes(of: chunk, 0..<Int(reference.length))
        }
        _ = try await call(HTTPRequest(
            method: "POST", path: "/v1/uploads/\(upload)/chunks", body: .bytes(body), contentType: "application/octet-stream",
            timeoutSeconds: 900, silenceSeconds: Self.workSeconds), .upload)
    }

    func putPage(_ upload: UploadID, _ hash: ChunkHash, _ packed: [UInt8]) async throws(RemoteError) {
        _ = try await call(HTTPRequest(
            method: "PUT", path: "/v1/uploads/\(upload)/pages/\(hash)", body: .bytes(packed), contentType: "application/octet-stream",
            silenceSeconds: Self.workSeconds), .upload)
    }

    // MARK: Downloads

    func page(_ namespace: NamespaceID, _ hash: ChunkHash) async throws(RemoteError) -> [UInt8] {
        let body = try await call(HTTPRequest(path: "/v1/namespaces/\(namespace)/pages/\(hash)"), .reader)
        guard SHA256.hash(body) == hash else { throw .invalidAnswer("a manifest page with wrong bytes") }
        return body
    }

    static func chunkRequest(_ namespace: NamespaceID, _ reference: ChunkReference, into sink: (any AnswerSink)? = nil) -> HTTPRequest {
        HTTPRequest(
            path: "/v1/namespaces/\(namespace)/chunks/\(reference.hash)", timeoutSeconds: 900,
            maximumAnswerBytes: max(Int(reference.length), 64 << 10), sink: sink)
    }

    static func chunksRequest(_ namespace: NamespaceID, _ references: [ChunkReference]) throws -> HTTPRequest {
        HTTPRequest(
            method: "POST", path: "/v1/namespaces/\(namespace)/chunks",
            body: .bytes(Array(try JSONEncoder().encode(ChunksRequest(hashes: references.map(\.hash))))),
            timeoutSeconds: 900, maximumAnswerBytes: ChunkFrame.maximumBodyByteCount + Manifest.maximumChunkByteCount + 64)
    }

    // MARK: Exchanges

    func get<T: Decodable>(_ path: String, seconds: Double = 30) async throws(RemoteError) -> T {
        try await decoded(call(HTTPRequest(path: path, timeoutSeconds: seconds), .metadata))
    }

    /// - Parameter silence: nil for a command, for which the server may work as long as it takes.
    func post<T: Decodable>(
        _ path: String, _ body: some Encodable, lane: TransferLane = .metadata, seconds: Double = 120, silence: Double? = nil
    ) async throws(RemoteError) -> T {
        let request = HTTPRequest(
            method: "POST", path: path, body: try Self.json(body), timeoutSeconds: seconds, silenceSeconds: silence ?? .infinity)
        return try await decoded(call(request, lane))
    }

    /// A call whose answer has no body.
    func send(_ method: String, _ path: String, _ body: some Encodable) async throws(RemoteError) {
        _ = try await call(HTTPRequest(method: method, path: path, body: try Self.json(body), silenceSeconds: .infinity), .metadata)
    }

    func send(_ method: String, _ path: String) async throws(RemoteError) {
        _ = try await call(HTTPRequest(method: method, path: path, silenceSeconds: .infinity), .metadata)
    }

    /// The longest that the server works on what it was sent before it answers: a full batch of a mount.
    private static let workSeconds = 10.0

    private static func json(_ value: some Encodable) throws(RemoteError) -> HTTPRequest.Body {
        do { return .bytes(Array(try JSONEncoder().encode(value))) } catch { throw .invalidAnswer("\(error)") }
    }

    func call(_ request: HTTPRequest, _ lane: TransferLane) async throws(RemoteError) -> [UInt8] {
        try Self.body(try await engine.send(request, lane: lane))
    }

    /// The body of a success; otherwise what went wrong.
    static func body(_ response: HTTPResponse) throws(RemoteError) -> [UInt8] {
        switch response.status {
        case 200..<300: return response.body
        case 429, 500, 502, 503, 504: throw .offline("the server cannot answer now (HTTP \(response.status))")
        default:
            guard let problem = try? JSONDecoder().decode(Problem.self, from: Data(response.body)) else {
                throw .invalidAnswer("HTTP \(response.status) without a problem document")
            }
            if problem.code == ProblemCode.digestMismatch.rawValue { throw .offline("a request was damaged on its way to the server") }
            throw .problem(problem)
        }
    }

    private func decoded<T: Decodable>(_ body: [UInt8]) throws(RemoteError) -> T {
        do { return try JSONDecoder().decode(T.self, from: Data(body)) } catch { throw .invalidAnswer("\(error)") }
    }

    static func escaped(_ text: String) -> String {
        text.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? text
    }
}
