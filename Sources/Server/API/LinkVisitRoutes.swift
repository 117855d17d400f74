import Foundation
import Hummingbird
import NIOCore
import Shared

/// What visitors of links ask for, without an account. People get pages, programs problem documents.
struct LinkVisitRoutes: Sendable {
    let drive: Drive
    let passwords: LinkPasswords

    private static let proofCookie = "boxfs-link", ticketCookie = "boxfs-download"
    private static let maximumListed = 10_000, maximumZipped = 100_000

    func add(to router: Router<APIContext>) {
        let group = router.group("l/:token")
        group.get("") { request, context in try await answer(request) { try await page(request, context) } }
        group.post("") { request, context in
            let isFiles = request.headers[.contentType]?.lowercased().hasPrefix("multipart/") ?? false
            return try await answer(request) { try await isFiles ? uploadForm(request, context) : unlock(request, context) }
        }
        group.get("download") { request, context in try await answer(request) { try await download(request, context, form: nil) } }
        group.head("download") { request, context in
            try await answer(request) { try await download(request, context, form: nil, isCounted: false) }.createHeadResponse()
        }
        group.post("download") { request, context in
            try await answer(request) { try await download(request, context, form: try await password(request)) }
        }
        group.get("view") { request, context in try await answer(request) { try await view(request, context) } }
        group.post("upload") { request, context in try await answer(request) { try await uploadForm(request, context) } }
        group.put("upload/:name") { request, context in try await answer(request) { try await upload(request, context) } }
    }

    /// Errors become pages for those who look with a browser.
    private func answer(_ request: Request, _ body: () async throws -> Response) async throws -> Response {
        do { return try await body() } catch {
            guard Self.isPerson(request) else { throw error }
            return LinkPage.problem(Problem(error), retryAfterSeconds: (error as? RateLimited)?.seconds)
        }
    }

    private static func isPerson(_ request: Request) -> Bool { request.headers[.accept]?.contains("text/html") == true }

    // MARK: Who comes

    private func visit(_ request: Request, _ context: APIContext, form: String? = nil, endsExhausted: Bool = true) async throws -> LinkVisit {
        let token = try context.parameters.require("token")
        if let password = form ?? Self.basicPassword(request) {
            return try await passwords.visit(token, password: password, address: context.address, endsExhausted: endsExhausted)
        }
        let proof = Self.cookie(Self.proofCookie, request).map { LinkProof.cookie($0) } ?? .none
        return try await drive.visit(token, proof, endsExhausted: endsExhausted)
    }

    /// RFC 7617; any user name.
    private static func basicPassword(_ request: Request) -> String? {
        guard let header = request.headers[.authorization], header.lowercased().hasPrefix("basic "),
              let data = Data(base64Encoded: String(header.dropFirst(6)).trimmingCharacters(in: .whitespaces)),
              let text = String(data: data, encoding: .utf8), let colon = text.firstIndex(of: ":") else { return nil }
        return String(text[text.index(after: colon)...])
    }

    private func password(_ request: Request) async throws -> String? {
        let body = try await request.collect(upTo: 8 << 10)
        return FormText.value("password", in: String(buffer: body))
    }

    private static func cookie(_ name: String, _ request: Request) -> String? {
        for header in request.headers[values: .cookie] {
            for pair in header.split(separator: ";") {
                let parts = pair.drop { $0 == " " }.split(separator: "=", maxSplits: 1)
                if parts.count == 2, parts[0] == name { return String(parts[1]) }
            }
        }
        return nil
    }

    private static func set(_ name: String, _ value: String, _ request: Request, _ context: APIContext, seconds: Int) -> String {
        let path = "/l/" + (context.parameters.get("token") ?? "")
        return "\(name)=\(value); Path=\(path); Max-Age=\(seconds); HttpOnly; SameSite=Strict"
    }

    private func base(_ context: APIContext) throws -> String { "/l/" + FormText.encoded(try context.parameters.require("token")) }

    // MARK: Pages

    private func page(_ request: Request, _ context: APIContext) async throws -> Response {
        let visit = try await visit(request, context)
        try await drive.countOpen(visit, address: context.address)
        let base = try base(context)
        guard visit.link.kind == .download else { return LinkPage.upload(base: base, space: drive.linkSpace(visit)) }
        let path = Self.path(request), node = try await drive.node(visit, at: path)
        guard node.isDirectory else { return LinkPage.file(visit, visit.name, size: try await FileReader(drive, visit.link.namespace, node.version).byteCount, base: base) }
        return LinkPage.folder(
            visit, path, try await drive.entries(visit, below: node, isDeep: false, limit: Self.maximumListed), base: base)
    }

    /// Names separated by `/`, as the links of our own pages say them.
    private static func path(_ request: Request) -> String { request.uri.queryParameters["path"].map(String.init) ?? "" }

    private func unlock(_ request: Request, _ context: APIContext) async throws -> Response {
        let visit = try await visit(request, context, form: try await password(request) ?? "")
        var headers = LinkPage.headers([.location: try base(context)])
        if let proof = visit.link.proof { headers[.setCookie] = Self.set(Self.proofCookie, proof, request, context, seconds: 86_400) }
        return Response(status: .seeOther, headers: headers)
    }

    // MARK: Files

    /// - Parameter isCounted: false when only the head of the answer is sent.
    private func download(_ request: Request, _ context: APIContext, form: String?, isCounted: Bool = true) async throws -> Response {
        let ticket = Self.cookie(Self.ticketCookie, request)
        let visit = try await visit(request, context, form: form, endsExhausted: ticket == nil)
        guard visit.link.kind == .download else { throw DriveError.notFound("This link takes files.") }
        guard !visit.link.isViewOnly else { throw DriveError.forbidden("This link shows files and gives none away.") }
        let path = Self.path(request), node = try await drive.node(visit, at: path)
        if node.isDirectory { return try await zip(visit, node, path, request, context, isCounted: isCounted) }
        guard node.isRegular else { throw DriveError.notFound("There is no such file.") }
        let reader = try await FileReader(drive, visit.link.namespace, node.version)
        let range = Self.range(request, node, reader.byteCount)
        if range == .unsatisfiable { return Self.unsatisfiable(reader.byteCount) }
        var mayContinue = false
        if case .part(let part) = range { mayContinue = part.lowerBound > 0 }
        let fresh = isCounted ? try await drive.countDownload(visit, node.version, ticket: mayContinue ? ticket : nil, path: path, address: context.address) : nil
        let name = path.split(separator: "/").last.map(String.init) ?? visit.name
        var response = Self.file(reader, node, range, [.contentType: "application/octet-stream", .contentDisposition: Self.attachment(name)])
        if let fresh { response.headers[.setCookie] = Self.set(Self.ticketCookie, fresh, request, context, seconds: 86_400) }
        return response
    }

    private func view(_ request: Request, _ context: APIContext) async throws -> Response {
        let visit = try await visit(request, context)
        let path = Self.path(request), node = try await drive.node(visit, at: path)
        let kind = FileKind(path.split(separator: "/").last.map(String.init) ?? visit.name)
        guard visit.link.kind == .download, node.isRegular, kind.isShown else { throw DriveError.notFound("There is no such file to show.") }
        // Looking gives the bytes as well: a link that counts them shows nothing.
        guard visit.link.maximumDownloads == nil else { throw DriveError.forbidden("This link gives downloads only.") }
        let reader = try await FileReader(drive, visit.link.namespace, node.version)
        let range = Self.range(request, node, reader.byteCount)
        if range == .unsatisfiable { return Self.unsatisfiable(reader.byteCount) }
        try await drive.countView(visit, path, address: context.address)
        return Self.file(reader, node, range, [.contentType: kind.type, .contentDisposition: "inline", .contentSecurityPolicy: LinkPage.filePolicy])
    }

    /// A range counts only for the version that it was asked of (RFC 9110, section 13.1.5).
    private static func range(_ request: Request, _ node: NodeRow, _ byteCount: UInt64) -> HTTPRange {
        if let condition = request.headers[.ifRange], condition != tag(node) { return .whole }
        return HTTPRange(request.headers[.range], of: byteCount)
    }

    private static func tag(_ node: NodeRow) -> String { "\"\(node.version?.description ?? "empty")\"" }

    private static func unsatisfiable(_ byteCount: UInt64) -> Response {
        Response(status: .rangeNotSatisfiable, headers: LinkPage.headers([.contentRange: "bytes */\(byteCount)"]))
    }

    private static func file(_ reader: FileReader, _ node: NodeRow, _ range: HTTPRange, _ more: HTTPFields) -> Response {
        var headers = LinkPage.headers(more), bytes = 0..<reader.byteCount
        headers[.acceptRanges] = "bytes"
        headers[.eTag] = tag(node)
        if case .part(let part) = range {
            bytes = part
            headers[.contentRange] = "bytes \(part.lowerBound)-\(part.upperBound - 1)/\(reader.byteCount)"
        }
        let wanted = bytes
        return Response(status: range == .whole ? .ok : .partialContent, headers: headers, body: .init(contentLength: wanted.count) { writer in
            try await reader.read(wanted) { try await writer.write($0) }
            try await writer.finish(nil)
        })
    }

    /// RFC 6266: a name for old programs, and the right one.
    private static func attachment(_ name: String) -> String {
        let plain = String(decoding: name.utf8.map { (0x20...0x7E).contains($0) && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") ? $0 : UInt8(ascii: "_") }, as: UTF8.self)
        return "attachment; filename=\"\(plain)\"; filename*=UTF-8''\(FormText.encoded(name))"
    }

    // MARK: Folders

    private func zip(
        _ visit: LinkVisit, _ folder: NodeRow, _ path: String, _ request: Request, _ context: APIContext, isCounted: Bool
    ) async throws -> Response {
        let entries = try await drive.entries(visit, below: folder, isDeep: true, limit: Self.maximumZipped)
            .filter { $0.node.isDirectory || $0.node.isRegular || $0.node.target != nil }
        let listed = entries.map { entry in
            ZipArchive.Entry(
                path: entry.node.isDirectory ? entry.path + "/" : entry.path, mode: entry.node.mode, modified: entry.node.modified, byteCount: entry.size)
        }
        guard !listed.contains(where: { $0.path.utf8.count > Int(UInt16.max) }) else { throw DriveError.tooLarge("A path in this folder is too long for a zip file.") }
        if isCounted { _ = try await drive.countDownload(visit, nil, ticket: nil, path: path, address: context.address) }
        let name = path.split(separator: "/").last.map(String.init) ?? visit.name
        let headers = LinkPage.headers([.contentType: "application/zip", .contentDisposition: Self.attachment(name + ".zip"), .acceptRanges: "none"])
        let (drive, namespace) = (drive, visit.link.namespace)
        return Response(status: .ok, headers: headers, body: .init(contentLength: Int(ZipArchive.byteCount(of: listed))) { writer in
            var archive = ZipArchive()
            for (entry, header) in Swift.zip(entries, listed) {
                try await writer.write(ByteBuffer(bytes: archive.begin(header)))
                if let target = entry.node.target {
                    let bytes = ByteBuffer(string: target)
                    bytes.withUnsafeReadableBytes { archive.add($0) }
                    try await writer.write(bytes)
                } else if entry.node.isRegular {
                    // A file whose version went while the rows were read answers short, which the receiver notices by the length.
                    let reader = try await FileReader(drive, namespace, entry.node.version)
                    try await reader.read(0..<reader.byteCount) { piece in
                        piece.withUnsafeReadableBytes { archive.add($0) }
                        try await writer.write(piece)
                    }
                }
                let descriptor = archive.end()
                if !descriptor.isEmpty { try await writer.write(ByteBuffer(bytes: descriptor)) }
            }
            try await writer.write(ByteBuffer(bytes: archive.finish()))
            try await writer.finish(nil)
        })
    }

    // MARK: Files that come

    private func upload(_ request: Request, _ context: APIContext) async throws -> Response {
        let visit = try await visit(request, context)
        guard visit.link.kind == .upload else { throw DriveError.notFound("This link gives files.") }
        guard let name = FormText.decoded(try context.parameters.require("name")) else { throw DriveError.invalidName(.notUTF8) }
        let file = IncomingFile(drive, visit.session, visit.link.namespace), space = drive.linkSpace(visit)
        defer { file.abandon() }        // what was committed is no upload any more
        for try await piece in request.body {
            guard space.map({ file.byteCount + UInt64(piece.readableBytes) <= $0 }) ?? true else { throw Self.tooLarge }
            try await file.append(piece)
        }
        try await drive.receive(visit, file, named: name, address: context.address)
        return Response(status: .created, headers: LinkPage.headers([:]))
    }

    private func uploadForm(_ request: Request, _ context: APIContext) async throws -> Response {
        let visit = try await visit(request, context)
        guard visit.link.kind == .upload else { throw DriveError.notFound("This link gives files.") }
        guard var parser = request.headers[.contentType].flatMap({ MultipartParser(contentType: $0) }) else {
            throw DriveError.badRequest("A form of files is multipart/form-data.")
        }
        var space = drive.linkSpace(visit), received: [String] = []
        var current: (name: String, file: IncomingFile)?
        defer { current?.file.abandon() }
        for try await piece in request.body {
            for event in try parser.feed(piece) {
                switch event {
                case .part(let name): current = name.map { ($0, IncomingFile(drive, visit.session, visit.link.namespace)) }
                case .bytes(let bytes):
                    guard let current else { continue }
                    guard space.map({ current.file.byteCount + UInt64(bytes.readableBytes) <= $0 }) ?? true else { throw Self.tooLarge }
                    try await current.file.append(bytes)
                case .partEnd:
                    guard let (name, file) = current else { continue }
                    try await drive.receive(visit, file, named: name, address: context.address)
                    current = nil
                    space = space.map { $0 - min($0, file.byteCount) }
                    received.append(name)
                }
            }
        }
        guard parser.isComplete, !received.isEmpty else { throw DriveError.badRequest("The form holds no whole file.") }
        return LinkPage.upload(base: try base(context), space: space, received: received)
    }

    private static var tooLarge: DriveError { .tooLarge("The file is larger than what this link still takes.") }
}
