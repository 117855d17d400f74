import Foundation
import Shared
import Synchronization

/// Why the drive did not do what it was asked. `API/ProblemDetails+ServerError.swift` turns it into HTTP.
enum DriveError: Error, Sendable {
    case badRequest(String), unauthorized, forbidden(String), notFound(String), nameTaken(String), resync, uploadExpired, lostChanges
    case chunksMissing([ChunkHash]), tooLarge(String), invalidName(EntryName.Problem), digestMismatch, hashMismatch(String)
    case quotaExceeded(quota: UInt64, used: UInt64), diskFull, tryAgain(String), internalError(String)
    case linkEnded(LinkState), linkPassword(isWrong: Bool)
}

/// Who calls: one device of one account.
struct Session: Sendable, Hashable {
    var account: AccountID
    var accountName: String
    var device: DeviceID
    var deviceName: String
    var home: NamespaceID
    /// The client's, for the audit; nil when nobody asked over the network.
    var address: String? = nil
}

/// What the server keeps and its rules: accounts, trees, versions, uploads. Knows nothing of HTTP. Files of this name hold it by theme.
final class Drive: Sendable {
    let store: any Store
    let chunks: any ChunkStore
    let now: @Sendable () -> Timestamp
    /// For what is a time from now and not a date: the wall clock may be set.
    let uptime: @Sendable () -> Uptime
    /// Told after each commit: (namespace, its new sequence).
    let onCommit: @Sendable (NamespaceID, Int64) -> Void
    /// Sessions by token hash, so that a request costs no SQL; entries live a few seconds, because another process may revoke.
    let sessions = Mutex<[ChunkHash: (session: Session, until: Uptime)]>([:])
    /// Until when a device's reading of a namespace needs no further audit row.
    let auditedReads = Mutex<[AuditedRead: Uptime]>([:])

    init(
        store: any Store, chunks: any ChunkStore, now: @escaping @Sendable () -> Timestamp = { .now() },
        uptime: @escaping @Sendable () -> Uptime = { .now() },
        onCommit: @escaping @Sendable (NamespaceID, Int64) -> Void = { _, _ in }
    ) {
        self.store = store
        self.chunks = chunks
        self.now = now
        self.uptime = uptime
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

    /// Rows of one moment keep their order: the bits after the milliseconds count (RFC 9562, section 6.2, method 1).
    private static func auditID() -> Identifier<AuditTag> {
        let count = auditCount.withLock { count in
            count &+= 1
            return count
        }
        let random = Identifier<AuditTag>.make()
        return Identifier(high: random.high & ~0xFFF | count & 0xFFF, low: random.low)
    }
    private static let auditCount = Mutex<UInt64>(0)

    static func audit(
        _ sql: any SQLConnection, _ time: Timestamp, _ account: AccountID?, device: String?, address: String?, _ action: String,
        _ namespace: NamespaceID? = nil, detail: String? = nil, node: NodeID? = nil, path: String? = nil
    ) throws {
        func text(_ value: String?) -> SQLValue { value.map { .text($0) } ?? .null }
        try sql.execute("""
            INSERT INTO audit (id, time, account, device, address, action, namespace, detail, node, path) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            """, [.id(Self.auditID()), .time(time), .id(account), text(device), text(address), .text(action), .id(namespace), text(detail),
                  .id(node), text(path)])
    }
}

enum EntryTag {}

let boxfsVersion = "0.1.0"
