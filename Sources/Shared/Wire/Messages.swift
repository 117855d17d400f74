import Foundation

// Bodies of API v1, in the order of docs/openapi.yaml. Field names are the JSON names.

/// `GET /v1/server`: open to all; tells a mount whether this is the server that it knows.
public struct ServerInformation: Codable, Hashable, Sendable {
    public var identity: ServerID
    /// Raised when the data was restored from a backup.
    public var epoch: Int64
    public var version: String
    public var time: Timestamp
    public init(identity: ServerID, epoch: Int64, version: String, time: Timestamp) {
        (self.identity, self.epoch, self.version, self.time) = (identity, epoch, version, time)
    }
}

/// `POST /v1/login`
public struct LoginRequest: Codable, Hashable, Sendable {
    public var user: String
    public var password: String
    /// What the device is called in the list of tokens: usually the host's name.
    public var device: String
    public init(user: String, password: String, device: String) { (self.user, self.password, self.device) = (user, password, device) }
}

public struct LoginAnswer: Codable, Hashable, Sendable {
    /// Sent from now on as `Authorization: Bearer TOKEN`.
    public var token: String
    public var device: DeviceID
    public var account: AccountInformation
    public init(token: String, device: DeviceID, account: AccountInformation) { (self.token, self.device, self.account) = (token, device, account) }
}

/// `GET /v1/account`
public struct AccountInformation: Codable, Hashable, Sendable {
    public var id: AccountID
    public var name: String
    /// The namespace that is the person's own tree.
    public var home: NamespaceID
    public var namespaces: [NamespaceInformation]
    public init(id: AccountID, name: String, home: NamespaceID, namespaces: [NamespaceInformation]) {
        (self.id, self.name, self.home, self.namespaces) = (id, name, home, namespaces)
    }
}

/// `GET /v1/namespaces/{namespace}`
public struct NamespaceInformation: Codable, Hashable, Sendable {
    public var id: NamespaceID
    public var root: NodeID
    /// The number of the last committed change.
    public var sequence: Int64
    /// Bytes that may be stored, nil for no limit.
    public var quota: UInt64?
    /// Bytes stored: the distinct chunks that the namespace holds, versions and trash included.
    public var used: UInt64
    /// Live nodes.
    public var nodes: Int64
    public init(id: NamespaceID, root: NodeID, sequence: Int64, quota: UInt64?, used: UInt64, nodes: Int64) {
        (self.id, self.root, self.sequence, self.quota, self.used, self.nodes) = (id, root, sequence, quota, used, nodes)
    }
}

/// `GET /v1/tokens`, one of the list
public struct DeviceInformation: Codable, Hashable, Sendable {
    public var id: DeviceID
    public var name: String
    public var created: Timestamp
    public var lastUsed: Timestamp?
    public var current: Bool
    public init(id: DeviceID, name: String, created: Timestamp, lastUsed: Timestamp?, current: Bool) {
        (self.id, self.name, self.created, self.lastUsed, self.current) = (id, name, created, lastUsed, current)
    }
}

/// `GET /v1/namespaces/{namespace}/nodes/{node}/children` and `GET /v1/namespaces/{namespace}/tree`:
/// live entries with their nodes. A node with two entries in the page stands once.
public struct TreePage: Codable, Hashable, Sendable {
    /// The namespace's number when the page was read: the page shows all changes up to it and none after.
    public var sequence: Int64
    public var entries: [Entry]
    public var nodes: [Node]
    /// Give it back as `after` for the next page; nil on the last.
    public var next: String?
    public init(sequence: Int64, entries: [Entry], nodes: [Node], next: String?) {
        (self.sequence, self.entries, self.nodes, self.next) = (sequence, entries, nodes, next)
    }
}

/// `POST /v1/namespaces/{namespace}/children`: the children of many directories, for who wants them all.
public struct ChildrenRequest: Codable, Hashable, Sendable {
    /// At most 1,000.
    public var directories: [NodeID]
    public init(directories: [NodeID]) { self.directories = directories }
}

/// The children of some of the directories that were asked for, in their order, as many as fit a page; of each all of them. A directory
/// that is not there is passed over; when the first alone does not fit, none is listed: `nodes/{node}/children` gives it in pages.
public struct ChildrenPage: Codable, Hashable, Sendable {
    /// As in `TreePage`.
    public var sequence: Int64
    public var listed: [NodeID]
    public var entries: [Entry]
    public var nodes: [Node]
    public init(sequence: Int64, listed: [NodeID], entries: [Entry], nodes: [Node]) {
        (self.sequence, self.listed, self.entries, self.nodes) = (sequence, listed, entries, nodes)
    }
}

/// `GET /v1/namespaces/{namespace}/changes?after=N&wait=SECONDS`: rows whose sequence is greater than N, in order of
/// sequence; deleted ones included. Every node that a live entry names is in `nodes`, changed or not.
public struct ChangePage: Codable, Hashable, Sendable {
    public var identity: ServerID
    public var epoch: Int64
    /// Give it back as `after`.
    public var cursor: Int64
    /// More rows wait: ask again at once.
    public var more: Bool
    public var entries: [Entry]
    public var nodes: [Node]
    /// For statfs(2).
    public var quota: UInt64?
    public var used: UInt64
    public init(identity: ServerID, epoch: Int64, cursor: Int64, more: Bool, entries: [Entry], nodes: [Node], quota: UInt64?, used: UInt64) {
        self.identity = identity
        self.epoch = epoch
        self.cursor = cursor
        self.more = more
        self.entries = entries
        self.nodes = nodes
        self.quota = quota
        self.used = used
    }
}

/// `POST /v1/namespaces/{namespace}/uploads`: the hashes first. Also `POST /v1/uploads/{upload}/hashes` to add more.
public struct UploadRequest: Codable, Hashable, Sendable {
    /// Packed references (`Manifest.pack`), base64 in JSON; at most 10,000 of them.
    public var chunks: Data
    /// Hashes of manifest pages.
    public var pages: [ChunkHash]
    /// The session's identifier, if the caller chooses it: the caller's session of that name goes on, with what is stored already. So a lost
    /// answer or a restart leaves no second one.
    public var upload: UploadID?
    public init(chunks: Data, pages: [ChunkHash], upload: UploadID? = nil) { (self.chunks, self.pages, self.upload) = (chunks, pages, upload) }
}

public struct UploadAnswer: Codable, Hashable, Sendable {
    public var upload: UploadID
    /// The named chunks that the server wants, in the order of the request (for `GET`: all still missing).
    public var neededChunks: [ChunkHash]
    public var neededPages: [ChunkHash]
    /// Chunks that no commit has claimed by then are collected.
    public var expires: Timestamp
    public init(upload: UploadID, neededChunks: [ChunkHash], neededPages: [ChunkHash], expires: Timestamp) {
        (self.upload, self.neededChunks, self.neededPages, self.expires) = (upload, neededChunks, neededPages, expires)
    }
}

/// `POST /v1/namespaces/{namespace}/uploads/{upload}/deltas`: the SHA-256 of the chunk that was made.
public struct DeltaAnswer: Codable, Hashable, Sendable {
    public var hash: ChunkHash
    public init(hash: ChunkHash) { self.hash = hash }
}

/// `POST /v1/namespaces/{namespace}/commits`
public struct CommitRequest: Codable, Hashable, Sendable {
    public var commit: CommitID
    /// The session whose chunks the contents name; nil when no new chunk is named.
    public var upload: UploadID?
    /// Named in conflicted copies and versions: usually the host's name.
    public var device: String
    /// At most 5,000.
    public var operations: [NumberedOperation]
    /// A number of the namespace that the client has seen: a server that has not come so far lost changes (it was put back to a backup), and
    /// refuses with `lost-changes`.
    public var seen: Int64?
    /// Short chunks that it brings itself, besides the session's.
    public var chunks: [CarriedChunk]?
    public init(commit: CommitID, upload: UploadID?, device: String, operations: [NumberedOperation], seen: Int64? = nil) {
        (self.commit, self.upload, self.device, self.operations, self.seen) = (commit, upload, device, operations, seen)
    }
}

/// A chunk within a commit: for few bytes, a session's two exchanges and their rows cost more than the bytes.
public struct CarriedChunk: Codable, Hashable, Sendable {
    /// What a commit's chunks may have together, bytes.
    public static let maximumByteCount = 1 << 20

    public var hash: ChunkHash
    /// Bytes.
    public var length: UInt32
    /// A chunk that the namespace holds, from which it differs by `data`; nil: `data` is the chunk.
    public var base: ChunkHash?
    /// Where in the base it begins, bytes; nil: at 0.
    public var start: UInt32?
    /// The bytes, or a body that `ChunkDelta` takes.
    public var data: Data
    public init(_ chunk: ChunkReference, base: ChunkHash? = nil, start: UInt32? = nil, data: Data) {
        (hash, length, self.base, self.start, self.data) = (chunk.hash, chunk.length, base, start, data)
    }
}

public struct CommitAnswer: Codable, Hashable, Sendable {
    /// The namespace's number after the commit; without `before`, each of its operations took one.
    public var sequence: Int64
    public var results: [OperationResult]
    /// The numbers before the commit of all namespaces that it reached, where things that it names had moved to others meanwhile.
    public var before: [NamespaceSequence]?
    public init(sequence: Int64, results: [OperationResult], before: [NamespaceSequence]? = nil) {
        (self.sequence, self.results, self.before) = (sequence, results, before)
    }
}

public struct NamespaceSequence: Codable, Hashable, Sendable {
    public var namespace: NamespaceID
    public var sequence: Int64
    public init(namespace: NamespaceID, sequence: Int64) { (self.namespace, self.sequence) = (namespace, sequence) }
}

public struct OperationResult: Codable, Hashable, Sendable {
    public enum Outcome: String, Codable, Sendable {
        /// Done as asked (or already so).
        case applied
        /// Done together with another's change.
        case merged
        /// Both are kept; `detail` says where ours went.
        case conflicted
        /// Not done; `code` and `detail` say why.
        case refused
    }
    public var id: Int64
    public var outcome: Outcome
    /// A `ProblemCode`, when not applied.
    public var code: String?
    public var detail: String?
    /// Where it was applied, when that is not the commit's own namespace.
    public var namespace: NamespaceID?
    public init(id: Int64, outcome: Outcome, code: String? = nil, detail: String? = nil, namespace: NamespaceID? = nil) {
        (self.id, self.outcome, self.code, self.detail, self.namespace) = (id, outcome, code, detail, namespace)
    }
}

/// `POST /v1/namespaces/{namespace}/chunks`: many small chunks in one answer, framed as `ChunkFrame`s.
public struct ChunksRequest: Codable, Hashable, Sendable {
    /// At most 1,000 hashes; the server answers a prefix of them of at most 8 MiB, and at least one chunk.
    public var hashes: [ChunkHash]
    public init(hashes: [ChunkHash]) { self.hashes = hashes }
}

/// RFC 9457 problem details, `application/problem+json`.
public struct Problem: Codable, Hashable, Sendable, Error {
    public var type: String
    public var title: String
    public var status: Int
    /// A `ProblemCode`: stable, for programs.
    public var code: String
    public var detail: String?
    public init(status: Int, code: ProblemCode, title: String, detail: String? = nil) {
        self.type = "about:blank"
        self.title = title
        self.status = status
        self.code = code.rawValue
        self.detail = detail
    }
}

/// Codes that programs may act on. Adding one is no new API version; changing one is.
public enum ProblemCode: String, Codable, Sendable, CaseIterable {
    case badRequest = "bad-request"                 // 400
    case unauthorized = "unauthorized"              // 401: no token, or revoked
    case forbidden = "forbidden"                    // 403
    case notFound = "not-found"                     // 404: not there, or not yours to know
    case nameTaken = "name-taken"                   // 409
    case notEmpty = "not-empty"                     // 409
    case cycle = "cycle"                            // 409
    case conflict = "conflict"                      // 409
    case resync = "resync"                          // 410: the cursor is too old
    case lostChanges = "lost-changes"               // 409: the server has not what the client has seen of it
    case uploadExpired = "upload-expired"           // 410
    case chunksMissing = "chunks-missing"           // 409: a commit names chunks that are not there
    case tooLarge = "too-large"                     // 413
    case digestMismatch = "digest-mismatch"         // 400: the body is not what its Content-Digest says; worth another try
    case hashMismatch = "hash-mismatch"             // 422: the bytes are not what their name says
    case invalidName = "invalid-name"               // 422
    case unsupportedVersion = "unsupported-version" // 404: /v2
    case rateLimited = "rate-limited"               // 429, with Retry-After
    case internalError = "internal-error"           // 500
    case quotaExceeded = "quota-exceeded"           // 507
    case diskFull = "disk-full"                     // 507
    case linkExpired = "link-expired"               // 410
    case linkExhausted = "link-exhausted"           // 410: all its downloads were given
    case linkRevoked = "link-revoked"               // 410
    case passwordRequired = "password-required"     // 401: the link has a password, and none or a wrong one came
}
