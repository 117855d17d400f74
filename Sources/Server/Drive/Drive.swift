import Foundation
import Shared
import Synchronization

/// Why the drive did not do what it was asked. `API/ProblemDetails+ServerError.swift` turns it into HTTP.
enum DriveError: Error, Sendable {
    case badRequest(String), unauthorized, forbidden(String), notFound(String), nameTaken(String), resync, uploadExpired
    case chunksMissing([ChunkHash]), tooLarge(String), invalidName(EntryName.Problem), hashMismatch(String)
    case quotaExceeded(quota: UInt64, used: UInt64), diskFull, tryAgain(String), internalError(String)
}

/// Who calls: one device of one account.
struct Session: Sendable, Hashable {
    var account: AccountID
    var accountName: String
    var device: DeviceID
    var deviceName: String
    var home: NamespaceID
}

/// What the server keeps and its rules: accounts, trees, versions, uploads. Knows nothing of HTTP. Files of this name hold it by theme.
final class Drive: Sendable {
    let store: any Store
    let chunks: any ChunkStore
    let now: @Sendable () -> Timestamp
    /// Told after each commit: (namespace, its new sequence).
    let onCommit: @Sendable (NamespaceID, Int64) -> Void
    /// Sessions by token hash, so that a request costs no SQL; entries live a few seconds, because another process may revoke.
    let sessions = Mutex<[ChunkHash: (session: Session, until: Timestamp)]>([:])

    init(
        store: any Store, chunks: any ChunkStore, now: @escaping @Sendable () -> Timestamp = { .now() },
        onCommit: @escaping @Sendable (NamespaceID, Int64) -> Void = { _, _ in }
    ) {
        self.store = store
        self.chunks = chunks
        self.now = now
        self.onCommit = onCommit
    }

    func write<T: Sendable>(
        _ durability: Durability = .synced, _ body: @escaping @Sendable (any SQLConnection) throws -> T
    ) async throws(DriveError) -> T {
        do { return try await store.write(durability, body) } catch { throw Self.translated(error) }
    }

    func read<T: Sendable>(_ body: @escaping @Sendable (any SQLConnection) throws -> T) async throws(DriveError) -> T {
        do { return try await store.read(body) } catch { throw Self.translated(error) }
    }

    static func translated(_ error: any Error) -> DriveError {
        switch error {
        case let error as DriveError: error
        case let error as StoreError: error.isFull ? .diskFull : .internalError(error.description)
        case ChunkStoreError.noSpace: .diskFull
        default: .internalError("\(error)")
        }
    }

    func information() async throws(DriveError) -> ServerInformation {
        let (identity, epoch) = try await read { try Self.identity($0) }
        return ServerInformation(identity: identity, epoch: epoch, version: boxfsVersion, time: now())
    }

    static func identity(_ sql: any SQLConnection) throws -> (ServerID, Int64) {
        let rows = try sql.query("SELECT key, value FROM server", [])
        let values = Dictionary(uniqueKeysWithValues: rows.map { ($0.text(0) ?? "", $0.text(1) ?? "") })
        guard let identity = values["identity"].flatMap(ServerID.init), let epoch = values["epoch"].flatMap({ Int64($0) }) else {
            throw DriveError.internalError("the server has no identity")
        }
        return (identity, epoch)
    }

    /// Throws `.notFound` unless the caller may read the namespace: whether it exists is not told.
    static func requireMember(_ sql: any SQLConnection, _ session: Session, _ namespace: NamespaceID) throws {
        guard try sql.first("SELECT 1 FROM members WHERE namespace = $1 AND account = $2", [.id(namespace), .id(session.account)]) != nil else {
            throw DriveError.notFound("There is no such namespace.")
        }
    }

    static func audit(
        _ sql: any SQLConnection, _ time: Timestamp, _ account: AccountID?, device: String?, address: String?, _ action: String,
        _ namespace: NamespaceID? = nil, detail: String? = nil
    ) throws {
        try sql.execute(
            "INSERT INTO audit (id, time, account, device, address, action, namespace, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            [.id(Identifier<AuditTag>.make()), .time(time), .id(account), device.map { .text($0) } ?? .null, address.map { .text($0) } ?? .null,
             .text(action), .id(namespace), detail.map { .text($0) } ?? .null])
    }
}

enum AuditTag {}
enum EntryTag {}

let boxfsVersion = "0.1.0"
