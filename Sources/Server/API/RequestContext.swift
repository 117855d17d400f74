import Foundation
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import Shared

/// What belongs to one request.
struct APIContext: Hummingbird.RequestContext {
    var coreContext: CoreRequestContextStorage
    /// The client's address without its port.
    let address: String
    /// Set by `Authentication`.
    var session: Session?

    init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        address = source.channel.remoteAddress?.ipAddress ?? "unknown"
    }

    func requireSession() throws -> Session {
        guard let session else { throw DriveError.unauthorized }
        return session
    }

    /// An identifier in the path; one that is none names nothing.
    func id<Tag>(_ name: String, _: Tag.Type = Tag.self) throws -> Identifier<Tag> {
        guard let id = parameters.get(name).flatMap({ Identifier<Tag>($0) }) else { throw DriveError.notFound("There is no such \(name).") }
        return id
    }

    func hash(_ name: String) throws -> ChunkHash {
        guard let hash = parameters.get(name).flatMap({ ChunkHash($0) }) else { throw DriveError.notFound("There is no such \(name).") }
        return hash
    }
}

extension HTTPField.Name {
    static let contentDigest = Self(ContentDigest.name)!
}

extension Request {
    /// - Throws: 413 past the limit, also for a body that comes in parts.
    func collect(upTo bytes: Int) async throws -> ByteBuffer {
        if let length = headers[.contentLength].flatMap({ Int($0) }), length > bytes { throw DriveError.tooLarge("At most \(bytes) bytes.") }
        return try await body.collect(upTo: bytes)
    }

    /// - Throws: 400 when the body is not what its `Content-Digest` says (RFC 9530), or has none and must have one.
    func json<T: Decodable>(_ type: T.Type, upTo bytes: Int = 4 << 20) async throws -> T {
        let body = try await collect(upTo: bytes)
        let isWhole = headers[.contentDigest].flatMap { digest in body.withUnsafeReadableBytes { ContentDigest.agrees(digest, with: $0) } }
        guard isWhole ?? (headers[.userAgent] != ContentDigest.agent) else { throw DriveError.digestMismatch }
        return try JSONDecoder().decode(type, from: Data(body.readableBytesView))
    }

    func integer(_ name: Substring, default value: Int64) throws -> Int64 {
        guard let text = uri.queryParameters[name] else { return value }
        guard let number = Int64(text), number >= 0 else { throw DriveError.badRequest("\(name) must be a number.") }
        return number
    }
}

extension Response {
    static func json(_ value: some Encodable) throws -> Response {
        Response(status: .ok, headers: [.contentType: "application/json"], guarded: try JSONEncoder().encode(value))
    }

    /// A body with its `Content-Digest`.
    init(status: HTTPResponse.Status, headers: HTTPFields, guarded body: Data) {
        var headers = headers
        headers[.contentDigest] = body.withUnsafeBytes { ContentDigest.value(of: $0) }
        self.init(status: status, headers: headers, body: .init(byteBuffer: ByteBuffer(bytes: body)))
    }

    static var nothing: Response { Response(status: .noContent) }

    /// Bytes that never change under this name, for this caller's eyes.
    static func bytes(_ bytes: ByteBuffer) -> Response { immutable(.init(byteBuffer: bytes)) }

    /// Sends a chunk while it is read. What cannot be read at all is an error; what breaks off later is a short answer.
    static func chunk(_ location: ChunkLocation, of chunks: any ChunkStore) async throws -> Response {
        let source = chunks.source(location), first = try await source.next(chunkPieceByteCount)
        return immutable(.init(contentLength: Int(location.length)) { writer in
            var piece = first, left = Int(location.length)
            while true {
                left -= piece.readableBytes
                try await writer.write(piece)
                if left == 0 { break }
                piece = try await source.next(chunkPieceByteCount)
            }
            try await writer.finish(nil)
        })
    }

    /// Memory of this size is had again and again, and not asked of the kernel anew for each chunk.
    private static let chunkPieceByteCount = 256 << 10

    private static func immutable(_ body: ResponseBody) -> Response {
        Response(
            status: .ok, headers: [.contentType: "application/octet-stream", .cacheControl: "private, max-age=31536000, immutable"], body: body)
    }
}

/// Turns errors into problem documents, logs each request, and adds the headers that every answer carries.
struct Envelope: RouterMiddleware {
    func handle(_ request: Request, context: APIContext, next: (Request, APIContext) async throws -> Response) async throws -> Response {
        var response: Response
        do {
            response = try await next(request, context)
        } catch {
            var problem = Problem(error)
            if problem.status == 404, let version = request.uri.path.split(separator: "/").first, version.first == "v", version != "v1",
               version.dropFirst().allSatisfy(\.isNumber) {
                problem = Problem(status: 404, code: .unsupportedVersion, title: "This server speaks version 1 of the API")
            }
            if problem.status >= 500 { context.logger.error("request failed", metadata: ["path": "\(request.uri.path)", "error": "\(error)"]) }
            response = problem.response(retryAfterSeconds: (error as? RateLimited)?.seconds)
        }
        response.headers[.xContentTypeOptions] = "nosniff"
        if response.headers[.contentSecurityPolicy] == nil { response.headers[.contentSecurityPolicy] = "default-src 'none'" }
        context.logger.debug("request", metadata: ["method": "\(request.method)", "path": "\(request.uri.path)", "status": "\(response.status.code)"])
        return response
    }
}

/// Knows who calls by `Authorization: Bearer TOKEN` (RFC 6750).
struct Authentication: RouterMiddleware {
    let drive: Drive

    func handle(_ request: Request, context: APIContext, next: (Request, APIContext) async throws -> Response) async throws -> Response {
        var context = context
        if let header = request.headers[.authorization], header.lowercased().hasPrefix("bearer ") {
            context.session = try await drive.authenticate(String(header.dropFirst(7)))
            context.session?.address = context.address
        }
        return try await next(request, context)
    }
}
