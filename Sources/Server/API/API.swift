import Foundation
import Hummingbird
import NIOCore
import Shared

/// The routes of API v1; docs/openapi.yaml is their contract.
struct API: Sendable {
    let drive: Drive
    let hub: ChangeHub
    let limiter: RateLimiter

    static let maximumWaitSeconds: Int64 = 60

    func router() -> Router<APIContext> {
        let router = Router(context: APIContext.self)
        router.middlewares.add(Envelope())
        router.middlewares.add(Authentication(drive: drive))
        router.middlewares.add(ReadAudit(drive: drive))
        addServer(router)
        addTree(router.group("v1/namespaces/:namespace"))
        addUploads(router)
        addChunks(router.group("v1/namespaces/:namespace"))
        HistoryRoutes(drive: drive).add(to: router)
        router.get("v1/notifications") { _, _ in
            // Who asks for a WebSocket never comes here (NotificationUpgrade.swift).
            var response = Problem(status: 426, code: .badRequest, title: "Changes are told over a WebSocket").response()
            response.headers[.upgrade] = "websocket"
            return response
        }
        router.post("v1/changes") { request, context in try await follow(request, context) }
        SharingRoutes(drive: drive).add(to: router)
        AuditRoutes(drive: drive).add(to: router)
        LinkRoutes(drive: drive).add(to: router)
        LinkVisitRoutes(drive: drive, passwords: LinkPasswords(drive, limiter)).add(to: router)
        return router
    }

    // MARK: Server and account

    private func addServer(_ router: Router<APIContext>) {
        router.get("health/live") { _, _ in Response(status: .ok) }
        router.get("health/ready") { _, _ in
            _ = try await drive.information()
            return Response(status: .ok)
        }
        router.get("v1/server") { _, _ in try Response.json(try await drive.information()) }
        router.post("v1/login") { request, context in
            let login = try await request.json(LoginRequest.self, upTo: 16 << 10)
            let key = "\(login.user)\u{0}\(context.address)"
            try limiter.check(key)
            do {
                let answer = try await drive.login(login, address: context.address)
                limiter.succeeded(key)
                return try Response.json(answer)
            } catch {
                limiter.failed(key)
                throw error
            }
        }
        router.post("v1/logout") { _, context in
            let session = try context.requireSession()
            try await drive.revokeToken(session, session.device)
            return Response.nothing
        }
        router.get("v1/account") { _, context in try Response.json(try await drive.accountInformation(try context.requireSession())) }
        router.get("v1/tokens") { _, context in try Response.json(try await drive.tokens(try context.requireSession())) }
        router.delete("v1/tokens/:token") { _, context in
            try await drive.revokeToken(try context.requireSession(), try context.id("token"))
            return Response.nothing
        }
    }

    // MARK: Tree

    private func addTree(_ group: RouterGroup<APIContext>) {
        group.get("") { _, context in
            try Response.json(try await drive.namespaceInformation(try context.requireSession(), try context.id("namespace")))
        }
        group.get("nodes/:node") { _, context in
            try Response.json(try await drive.node(try context.requireSession(), try context.id("namespace"), try context.id("node")))
        }
        group.get("nodes/:node/children") { request, context in
            try Response.json(try await drive.children(
                try context.requireSession(), try context.id("namespace"), try context.id("node"),
                after: request.uri.queryParameters["after"].map(String.init), limit: Int(try request.integer("limit", default: 1000))))
        }
        group.post("children") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(ChildrenRequest.self, upTo: 128 << 10)
            guard wanted.directories.count <= 1000 else { throw DriveError.tooLarge("At most 1000 directories at a time.") }
            return try Response.json(try await drive.children(session, try context.id("namespace"), of: wanted.directories))
        }
        group.get("tree") { request, context in
            try Response.json(try await drive.tree(
                try context.requireSession(), try context.id("namespace"), after: request.uri.queryParameters["after"].map(String.init),
                limit: Int(try request.integer("limit", default: 1000))))
        }
        group.get("changes") { request, context in try await changes(request, context) }
        group.post("commits") { request, context in
            let session = try context.requireSession()
            let commit = try await request.json(CommitRequest.self, upTo: 16 << 20)
            return try Response.json(try await drive.commit(session, try context.id("namespace"), commit))
        }
    }

    private func changes(_ request: Request, _ context: APIContext) async throws -> Response {
        let session = try context.requireSession()
        let namespace: NamespaceID = try context.id("namespace")
        let after = try request.integer("after", default: 0)
        let limit = Int(try request.integer("limit", default: 1000))
        let wait = min(try request.integer("wait", default: 0), Self.maximumWaitSeconds)
        var page = try await drive.changes(session, namespace, after: after, limit: limit)
        if wait > 0, page.cursor <= after, page.entries.isEmpty, page.nodes.isEmpty {
            await hub.wait(namespace, beyond: after, seconds: wait)
            page = try await drive.changes(session, namespace, after: after, limit: limit)
        }
        return try Response.json(page)
    }

    private func follow(_ request: Request, _ context: APIContext) async throws -> Response {
        let session = try context.requireSession()
        let wanted = try await request.json(FollowRequest.self, upTo: 256 << 10)
        guard (1...1000).contains(wanted.cursors.count) else { throw DriveError.badRequest("1 to 1000 namespaces at a time.") }
        for cursor in wanted.cursors { try await drive.auditRead(session, cursor.namespace) }
        var answer = try await drive.follow(session, wanted)
        let hasNews = answer.pages.contains { page in
            page.page.cursor != wanted.cursors.first { $0.namespace == page.namespace }?.after || !page.page.entries.isEmpty || !page.page.nodes.isEmpty
        }
        if wanted.wait > 0, !hasNews {
            await hub.wait(wanted.cursors.map { ($0.namespace, $0.after) }, seconds: min(Int64(wanted.wait), Self.maximumWaitSeconds))
            answer = try await drive.follow(session, wanted)
        }
        return try Response.json(answer)
    }

    // MARK: Uploads

    private func addUploads(_ router: Router<APIContext>) {
        router.post("v1/namespaces/:namespace/uploads") { request, context in
            let session = try context.requireSession()
            let announced = try await request.json(UploadRequest.self)
            return try Response.json(try await drive.startUpload(session, try context.id("namespace"), announced))
        }
        router.post("v1/namespaces/:namespace/uploads/:upload/deltas") { request, context in
            let session = try context.requireSession()
            guard let base = request.uri.queryParameters["base"].flatMap({ ChunkHash(String($0)) }) else { throw DriveError.badRequest("base is no SHA-256.") }
            guard let length = request.uri.queryParameters["length"].flatMap({ Int($0) }) else { throw DriveError.badRequest("length is no number.") }
            guard let start = Int(request.uri.queryParameters["start"].map(String.init) ?? "0") else { throw DriveError.badRequest("start is no number.") }
            let hash = try await drive.storeDelta(
                session, try context.id("namespace"), try context.id("upload"), base: base, from: start, length: length,
                try await request.collect(upTo: ChunkDelta.maximumBodyByteCount))
            return try Response.json(DeltaAnswer(hash: hash))
        }
        let group = router.group("v1/uploads/:upload")
        group.get("") { _, context in try Response.json(try await drive.uploadState(try context.requireSession(), try context.id("upload"))) }
        group.post("hashes") { request, context in
            let session = try context.requireSession()
            let announced = try await request.json(UploadRequest.self)
            return try Response.json(try await drive.extendUpload(session, try context.id("upload"), announced))
        }
        group.put("chunks/:hash") { request, context in
            let session = try context.requireSession()
            let upload: UploadID = try context.id("upload")
            let hash = try context.hash("hash")
            try await drive.storeChunk(session, upload, hash, arriving: request.body)
            return Response.nothing
        }
        group.post("chunks") { request, context in
            let session = try context.requireSession()
            let upload: UploadID = try context.id("upload")
            let body = try await request.collect(upTo: ChunkFrame.maximumBodyByteCount)
            try await drive.storeChunks(session, upload, try frames(body))
            return Response.nothing
        }
        group.put("pages/:hash") { request, context in
            let session = try context.requireSession()
            let upload: UploadID = try context.id("upload")
            let hash = try context.hash("hash")
            let body = Array(try await request.collect(upTo: Manifest.pageCount * Manifest.packedReferenceByteCount).readableBytesView)
            guard SHA256.hash(body) == hash else { throw DriveError.hashMismatch("The page's SHA-256 is another.") }
            try await drive.storePage(session, upload, hash, packed: body)
            return Response.nothing
        }
    }

    private func frames(_ body: ByteBuffer) throws -> [(reference: ChunkReference, bytes: ByteBuffer)] {
        try body.withUnsafeReadableBytes { bytes in
            let frames: [(reference: ChunkReference, range: Range<Int>)]
            do { frames = try ChunkFrame.parse(bytes) } catch { throw DriveError.badRequest("The body is no sequence of whole chunk frames.") }
            return try frames.map { frame in
                guard SHA256.hash(UnsafeRawBufferPointer(rebasing: bytes[frame.range])) == frame.reference.hash else {
                    throw DriveError.hashMismatch("Chunk \(frame.reference.hash) has other bytes.")
                }
                return (frame.reference, body.getSlice(at: body.readerIndex + frame.range.lowerBound, length: frame.range.count)!)
            }
        }
    }

    // MARK: Chunks

    private func addChunks(_ group: RouterGroup<APIContext>) {
        group.get("chunks/:hash") { _, context in
            let hash = try context.hash("hash")
            let found = try await drive.chunkLocations(try context.requireSession(), try context.id("namespace"), [hash])
            guard let location = found[hash] else { throw DriveError.notFound("There is no such chunk.") }
            return try await Response.chunk(location, of: drive.chunks)
        }
        group.post("chunks") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(ChunksRequest.self, upTo: 128 << 10)
            guard wanted.hashes.count <= 1000 else { throw DriveError.tooLarge("At most 1000 chunks at a time.") }
            let found = try await drive.chunkLocations(session, try context.id("namespace"), wanted.hashes)
            var body = ByteBuffer()
            for hash in wanted.hashes {
                guard let location = found[hash] else { throw DriveError.notFound("There is no chunk \(hash).") }
                if body.readableBytes > 0, body.readableBytes + Int(location.length) > ChunkFrame.maximumBodyByteCount { break }
                body.writeBytes(ChunkFrame.header(ChunkReference(hash: hash, length: location.length)))
                var bytes = try await drive.chunks.read(location)
                body.writeBuffer(&bytes)
            }
            return Response.bytes(body)
        }
        group.get("pages/:hash") { _, context in
            Response.bytes(ByteBuffer(bytes: try await drive.page(try context.requireSession(), try context.id("namespace"), try context.hash("hash"))))
        }
    }
}
