import Foundation
import NIOCore
import Shared

// Upload sessions: hashes first, then what is needed, then a commit that names it.
//
// A session's rows are not synced by themselves: the commit's transaction, which is, comes after them in the same log. A power cut
// before it may lose the session, and then the client, which keeps everything until the commit is answered, begins another. Bytes are
// on the disk before any row names them.
extension Drive {
    /// A session and the chunks that it leased live this long after their last use, seconds.
    static let uploadSeconds: Int64 = 24 * 3600
    static let maximumHashes = 10_000

    /// Begins a session, or goes on with the caller's of the name that the request gives. Somebody else's is not told apart from one that expired.
    func startUpload(_ session: Session, _ namespace: NamespaceID, _ request: UploadRequest) async throws(DriveError) -> UploadAnswer {
        let (references, time) = (try Self.references(request), now())
        return try await write(.ordered) { sql in
            let upload = request.upload ?? .make()
            let expires = try Self.beginUpload(sql, session, namespace, upload, time)
            return try Self.announce(sql, upload, namespace, references, request.pages, expires)
        }
    }

    /// The session's row, as `startUpload` says.
    /// - Returns: until when it lives.
    static func beginUpload(
        _ sql: any SQLConnection, _ session: Session, _ namespace: NamespaceID, _ upload: UploadID, _ time: Timestamp
    ) throws -> Timestamp {
        try require(.editor, sql, session, namespace)
        if let row = try sql.first("SELECT namespace, account FROM uploads WHERE id = $1", [.id(upload)]) {
            guard try row.id(0) == namespace, try row.id(1) == session.account else { throw DriveError.uploadExpired }
            return try prolong(sql, upload, time)
        }
        let expires = expiry(time)
        try sql.execute(
            "INSERT INTO uploads (id, namespace, account, created, expires) VALUES ($1, $2, $3, $4, $5)",
            [.id(upload), .id(namespace), .id(session.account), .time(time), .time(expires)])
        return expires
    }

    private static func prolong(_ sql: any SQLConnection, _ upload: UploadID, _ time: Timestamp) throws -> Timestamp {
        let expires = expiry(time)
        try sql.execute("UPDATE uploads SET expires = $1 WHERE id = $2", [.time(expires), .id(upload)])
        return expires
    }

    /// What a commit has claimed needs no lease any more. Also for a commit that is repeated: the client announced it all again.
    static func endUpload(_ sql: any SQLConnection, _ session: Session, _ upload: UploadID) throws {
        guard try sql.first("SELECT 1 FROM uploads WHERE id = $1 AND account = $2", [.id(upload), .id(session.account)]) != nil else { return }
        try dropUpload(sql, upload)
    }

    static func dropUpload(_ sql: any SQLConnection, _ upload: UploadID) throws {
        for table in ["upload_chunks", "upload_pages"] { try sql.execute("DELETE FROM \(table) WHERE upload = $1", [.id(upload)]) }
        try sql.execute("DELETE FROM uploads WHERE id = $1", [.id(upload)])
    }

    /// Ends a session whose file will not be committed: what it stored is collected.
    func abandonUpload(_ session: Session, _ upload: UploadID) async throws(DriveError) {
        try await write(.ordered) { try Self.endUpload($0, session, upload) }
    }

    func extendUpload(_ session: Session, _ upload: UploadID, _ request: UploadRequest) async throws(DriveError) -> UploadAnswer {
        let (references, time) = (try Self.references(request), now())
        return try await write(.ordered) { sql in
            let namespace = try Self.requireUpload(sql, session, upload, time)
            let expires = try Self.prolong(sql, upload, time)
            return try Self.announce(sql, upload, namespace, references, request.pages, expires)
        }
    }

    /// What the session still waits for.
    func uploadState(_ session: Session, _ upload: UploadID) async throws(DriveError) -> UploadAnswer {
        let time = now()
        return try await read { sql in
            _ = try Self.requireUpload(sql, session, upload, time)
            let chunks = try sql.query(
                "SELECT hash FROM upload_chunks WHERE upload = $1 AND is_needed = 1 AND is_stored = 0 ORDER BY hash", [.id(upload)])
            let pages = try sql.query("SELECT hash FROM upload_pages WHERE upload = $1 AND is_stored = 0 ORDER BY hash", [.id(upload)])
            let expires = try sql.first("SELECT expires FROM uploads WHERE id = $1", [.id(upload)])?.time(0) ?? time
            return UploadAnswer(
                upload: upload, neededChunks: try chunks.map { try $0.hash(0) }, neededPages: try pages.map { try $0.hash(0) }, expires: expires)
        }
    }

    private static func expiry(_ time: Timestamp) -> Timestamp { Timestamp(nanoseconds: time.nanoseconds + uploadSeconds * 1_000_000_000) }

    private static func references(_ request: UploadRequest) throws(DriveError) -> [ChunkReference] {
        let references: [ChunkReference]
        do { references = try Manifest.unpack(request.chunks) } catch { throw .badRequest("chunks is no packed list of chunk references.") }
        guard references.count <= maximumHashes, request.pages.count <= maximumHashes else {
            throw .tooLarge("At most \(maximumHashes) hashes at a time.")
        }
        guard !references.contains(where: \.isHole) else { throw .badRequest("A hole is stored nowhere.") }
        return references
    }

    /// The caller's live session, or `.uploadExpired`; somebody else's is not told apart from none.
    static func requireUpload(_ sql: any SQLConnection, _ session: Session, _ upload: UploadID, _ time: Timestamp) throws -> NamespaceID {
        guard let row = try sql.first("SELECT namespace, account, expires FROM uploads WHERE id = $1", [.id(upload)]),
              try row.id(1) as AccountID == session.account, row.time(2) > time else { throw DriveError.uploadExpired }
        return try row.id(0)
    }

    /// A chunk is "not needed" only if the caller's namespace holds it: knowing a hash gives nothing.
    private static func announce(
        _ sql: any SQLConnection, _ upload: UploadID, _ namespace: NamespaceID, _ references: [ChunkReference], _ pages: [ChunkHash], _ expires: Timestamp
    ) throws -> UploadAnswer {
        var needed: [ChunkHash] = [], neededPages: [ChunkHash] = []
        for reference in references {
            let isHeld = try sql.first("SELECT 1 FROM namespace_chunks WHERE namespace = $1 AND hash = $2", [.id(namespace), .hash(reference.hash)]) != nil
            try sql.execute("""
                INSERT INTO upload_chunks (upload, hash, length, is_stored, is_needed) VALUES ($1, $2, $3, 0, $4)
                ON CONFLICT (upload, hash) DO UPDATE SET is_needed = excluded.is_needed
                """, [.id(upload), .hash(reference.hash), .int(reference.length), .integer(isHeld ? 0 : 1)])
            if try !isHeld && !isStored(sql, upload, reference) { needed.append(reference.hash) }
        }
        for page in pages where try sql.first("SELECT 1 FROM namespace_pages WHERE namespace = $1 AND hash = $2", [.id(namespace), .hash(page)]) == nil {
            try sql.execute(
                "INSERT INTO upload_pages (upload, hash, is_stored) VALUES ($1, $2, 0) ON CONFLICT (upload, hash) DO NOTHING", [.id(upload), .hash(page)])
            if try sql.first("SELECT is_stored FROM upload_pages WHERE upload = $1 AND hash = $2", [.id(upload), .hash(page)])?.int(0) == 0 {
                neededPages.append(page)
            }
        }
        return UploadAnswer(upload: upload, neededChunks: needed, neededPages: neededPages, expires: expires)
    }

    /// Whether the session brought the chunk, and it is there still.
    private static func isStored(_ sql: any SQLConnection, _ upload: UploadID, _ reference: ChunkReference) throws -> Bool {
        try sql.first("""
            SELECT 1 FROM upload_chunks u JOIN chunks c ON c.hash = u.hash WHERE u.upload = $1 AND u.hash = $2 AND u.is_stored = 1
            """, [.id(upload), .hash(reference.hash)]) != nil
    }

    // MARK: Bytes

    /// Takes chunks whose bytes the caller has checked against their hashes: what the store does not hold yet is written as one object.
    func storeChunks(_ session: Session, _ upload: UploadID, _ bodies: [(reference: ChunkReference, bytes: ByteBuffer)]) async throws(DriveError) {
        let time = now(), references = bodies.map(\.reference)
        let absent = try await read { sql in
            _ = try Self.requireUpload(sql, session, upload, time)
            var absent: Set<ChunkHash> = []
            for reference in references {
                let (announced, isAbsent) = try Self.announced(sql, upload, reference.hash)
                guard announced.length == reference.length else {
                    throw DriveError.badRequest("Chunk \(reference.hash) was announced with \(announced.length) bytes.")
                }
                if isAbsent { absent.insert(reference.hash) }
            }
            return absent
        }
        var seen: Set<ChunkHash> = []
        let fresh = bodies.filter { absent.contains($0.reference.hash) && seen.insert($0.reference.hash).inserted }
        let locations: [ChunkLocation]
        do throws(ChunkStoreError) { locations = try await fresh.isEmpty ? [] : chunks.put(fresh) } catch { throw Self.translated(error) }
        try await note(references, placed: Dictionary(uniqueKeysWithValues: zip(fresh.map(\.reference.hash), locations)), in: upload, time)
    }

    /// Writes the rows of chunks that have arrived.
    /// - Parameter placed: those that were stored, all in one object; the store had the others.
    private func note(
        _ references: [ChunkReference], placed: [ChunkHash: ChunkLocation], in upload: UploadID, _ time: Timestamp
    ) async throws(DriveError) {
        try await write(.ordered) { sql in
            try Self.note(references.map(\.hash), placed: placed, sql, time)
            for reference in references {
                try sql.execute(
                    "UPDATE upload_chunks SET is_stored = 1 WHERE upload = $1 AND hash = $2", [.id(upload), .hash(reference.hash)])
            }
        }
    }

    /// Writes the rows of chunks that have arrived, in whatever way.
    /// - Parameter placed: those that were stored, all in one object; the store had the others.
    static func note(_ arrived: some Sequence<ChunkHash>, placed: [ChunkHash: ChunkLocation], _ sql: any SQLConnection, _ time: Timestamp) throws {
        try note(Array(placed.values), sql, time)
        try place(placed, sql, time)
        for hash in arrived where placed[hash] == nil {
            guard try sql.first("SELECT 1 FROM chunks WHERE hash = $1", [.hash(hash)]) != nil else {
                throw DriveError.tryAgain("A chunk was collected while it was sent again.")
            }
        }
    }

    /// Writes the row of a new object, which holds these.
    static func note(_ held: [ChunkLocation], _ sql: any SQLConnection, _ time: Timestamp) throws {
        guard let object = held.first?.object else { return }
        try sql.execute(
            "INSERT INTO objects (name, bytes, arrived) VALUES ($1, $2, $3)",
            [.text(object), .int(held.reduce(0) { $0 + UInt64($1.length) }), .time(time)])
    }

    /// Writes the rows of chunks in objects that have theirs.
    static func place(_ placed: [ChunkHash: ChunkLocation], _ sql: any SQLConnection, _ time: Timestamp) throws {
        for (hash, location) in placed {
            try sql.execute("""
                INSERT INTO chunks (hash, length, object, byte_offset, reference_count, arrived) VALUES ($1, $2, $3, $4, 0, $5)
                ON CONFLICT (hash) DO NOTHING
                """, [.hash(hash), .int(location.length), .text(location.object), .int(location.offset), .time(time)])
        }
    }

    /// Takes a chunk while its bytes arrive; what the store has already is only compared.
    func storeChunk<Body: AsyncSequence>(
        _ session: Session, _ upload: UploadID, _ hash: ChunkHash, arriving body: Body
    ) async throws where Body.Element == ByteBuffer {
        let time = now()
        let (reference, isAbsent) = try await read { sql in
            _ = try Self.requireUpload(sql, session, upload, time)
            return try Self.announced(sql, upload, hash)
        }
        do {
            let (found, location) = try await chunks.put(reference, arriving: body, keeps: isAbsent)
            guard found == hash else { throw DriveError.hashMismatch("The bytes' SHA-256 is \(found).") }
            try await note([reference], placed: location.map { [hash: $0] } ?? [:], in: upload, time)
        } catch ChunkStoreError.wrongLength {
            throw DriveError.badRequest("Chunk \(hash) was announced with \(reference.length) bytes.")
        } catch ChunkStoreError.tooLong {
            throw DriveError.tooLarge("A chunk has at most \(Manifest.maximumChunkByteCount) bytes.")
        } catch let error as ChunkStoreError { throw Self.translated(error) }
    }

    /// A chunk that the session has announced, and whether the store does not have it.
    private static func announced(_ sql: any SQLConnection, _ upload: UploadID, _ hash: ChunkHash) throws -> (ChunkReference, isAbsent: Bool) {
        guard let row = try sql.first("SELECT length FROM upload_chunks WHERE upload = $1 AND hash = $2", [.id(upload), .hash(hash)]) else {
            throw DriveError.badRequest("Chunk \(hash) was not announced in this upload.")
        }
        return (ChunkReference(hash: hash, length: UInt32(row.int(0))), try sql.first("SELECT 1 FROM chunks WHERE hash = $1", [.hash(hash)]) == nil)
    }

    /// Takes one manifest page, which the caller has checked against its hash.
    func storePage(_ session: Session, _ upload: UploadID, _ hash: ChunkHash, packed: [UInt8]) async throws(DriveError) {
        guard let references = try? Manifest.unpack(packed), (1...Manifest.pageCount).contains(references.count) else {
            throw .badRequest("A page holds 1 to \(Manifest.pageCount) packed chunk references.")
        }
        let time = now()
        try await write(.ordered) { sql in
            _ = try Self.requireUpload(sql, session, upload, time)
            guard try sql.execute("UPDATE upload_pages SET is_stored = 1 WHERE upload = $1 AND hash = $2", [.id(upload), .hash(hash)]) == 1 else {
                throw DriveError.badRequest("Page \(hash) was not announced in this upload.")
            }
            try sql.execute(
                "INSERT INTO manifest_pages (hash, data, reference_count) VALUES ($1, $2, 0) ON CONFLICT (hash) DO NOTHING", [.hash(hash), .blob(packed)])
        }
    }

    /// Where chunks lie, of those only that the namespace holds: proof of possession again.
    func chunkLocations(_ session: Session, _ namespace: NamespaceID, _ hashes: [ChunkHash]) async throws(DriveError) -> [ChunkHash: ChunkLocation] {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            var found: [ChunkHash: ChunkLocation] = [:]
            for hash in hashes { found[hash] = try Self.location(sql, namespace, hash) }
            return found
        }
    }

    static func location(_ sql: any SQLConnection, _ namespace: NamespaceID, _ hash: ChunkHash) throws -> ChunkLocation? {
        try sql.first("""
            SELECT c.object, c.byte_offset, c.length FROM namespace_chunks n JOIN chunks c ON c.hash = n.hash WHERE n.namespace = $1 AND n.hash = $2
            """, [.id(namespace), .hash(hash)]
        ).map { ChunkLocation(object: $0.text(0) ?? "", offset: UInt64($0.int(1)), length: UInt32($0.int(2))) }
    }

    func page(_ session: Session, _ namespace: NamespaceID, _ hash: ChunkHash) async throws(DriveError) -> [UInt8] {
        try await read { sql in
            try Self.requireMember(sql, session, namespace)
            guard let row = try sql.first("""
                SELECT p.data FROM namespace_pages n JOIN manifest_pages p ON p.hash = n.hash WHERE n.namespace = $1 AND n.hash = $2
                """, [.id(namespace), .hash(hash)]), let data = row.blob(0) else { throw DriveError.notFound("There is no such page.") }
            return data
        }
    }
}
