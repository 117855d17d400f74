import Foundation
import Hummingbird
import NIOCore
import NIOHTTP1
import Shared

extension Problem {
    /// What the client hears of an error (RFC 9457). Nothing of the server's inside is told.
    init(_ error: any Error) {
        switch error {
        case let error as DriveError: self.init(error)
        case is RateLimited: self.init(status: 429, code: .rateLimited, title: "Too many attempts; wait before the next")
        case ChunkStoreError.noSpace: self.init(DriveError.diskFull)
        case is NIOTooManyBytesError:
            self.init(status: 413, code: .tooLarge, title: "The body is too large")
        case let error as any HTTPResponseError: self.init(status: error.status.code)
        case is HTTPParserError: self.init(status: 400, code: .badRequest, title: "The request breaks off or is no HTTP")
        case is MultipartParser.FormatError: self.init(status: 400, code: .badRequest, title: "The form is not well formed")
        case is DecodingError:
            self.init(status: 400, code: .badRequest, title: "The body is not the JSON that this call expects")
        default: self.init(status: 500, code: .internalError, title: "The server failed to answer")
        }
    }

    private init(_ error: DriveError) {
        switch error {
        case .badRequest(let detail): self.init(status: 400, code: .badRequest, title: "The request makes no sense", detail: detail)
        case .unauthorized:
            self.init(status: 401, code: .unauthorized, title: "Not logged in", detail: "The token is missing or revoked, or the name or password is wrong.")
        case .forbidden(let detail): self.init(status: 403, code: .forbidden, title: "Not allowed", detail: detail)
        case .notFound(let detail): self.init(status: 404, code: .notFound, title: "Not found", detail: detail)
        case .nameTaken(let name): self.init(status: 409, code: .nameTaken, title: "The name is taken", detail: "\(name) is there already.")
        case .resync: self.init(status: 410, code: .resync, title: "The cursor is too old")
        case .lostChanges: self.init(status: 409, code: .lostChanges, title: "This server has lost changes that you have seen")
        case .uploadExpired: self.init(status: 410, code: .uploadExpired, title: "There is no such upload any more")
        case .chunksMissing(let hashes):
            self.init(
                status: 409, code: .chunksMissing, title: "Chunks are missing",
                detail: "\(hashes.count) missing: " + hashes.prefix(20).map(\.description).joined(separator: " "))
        case .tooLarge(let detail): self.init(status: 413, code: .tooLarge, title: "Too large", detail: detail)
        case .invalidName(let problem): self.init(status: 422, code: .invalidName, title: "The name is not allowed", detail: "\(problem)")
        case .digestMismatch: self.init(status: 400, code: .digestMismatch, title: "The body is not what its Content-Digest says")
        case .hashMismatch(let detail): self.init(status: 422, code: .hashMismatch, title: "The bytes are not what their name says", detail: detail)
        case .quotaExceeded(let quota, let used):
            self.init(status: 507, code: .quotaExceeded, title: "The quota is used up", detail: "\(used) of \(quota) bytes are used.")
        case .diskFull: self.init(status: 507, code: .diskFull, title: "The server's disk is full")
        case .tryAgain(let detail): self.init(status: 503, code: .internalError, title: "Try again", detail: detail)
        case .internalError: self.init(status: 500, code: .internalError, title: "The server failed to answer")
        case .linkEnded(.expired): self.init(status: 410, code: .linkExpired, title: "This link has expired")
        case .linkEnded(.exhausted): self.init(status: 410, code: .linkExhausted, title: "This link has given all that it had to give")
        case .linkEnded: self.init(status: 410, code: .linkRevoked, title: "This link was revoked")
        case .linkPassword(let isWrong):
            self.init(status: 401, code: .passwordRequired, title: isWrong ? "The password is wrong" : "This link has a password")
        }
    }

    private init(status: Int) {
        switch status {
        case 404: self.init(status: 404, code: .notFound, title: "There is no such call")
        case 413: self.init(status: 413, code: .tooLarge, title: "The body is too large")
        case 400..<500: self.init(status: status, code: .badRequest, title: "The request makes no sense")
        default: self.init(status: 500, code: .internalError, title: "The server failed to answer")
        }
    }

    func response(retryAfterSeconds: Int? = nil) -> Response {
        var headers: HTTPFields = [.contentType: "application/problem+json"]
        if let retryAfterSeconds { headers[.retryAfter] = String(retryAfterSeconds) }
        if status == 401 { headers[.wwwAuthenticate] = code == ProblemCode.passwordRequired.rawValue ? #"Basic realm="link", charset="UTF-8""# : "Bearer" }
        let body = (try? JSONEncoder().encode(self)) ?? Data()
        return Response(status: .init(code: status), headers: headers, guarded: body)
    }
}
