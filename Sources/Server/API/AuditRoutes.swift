import Hummingbird
import Shared

/// The audit as owners read it.
struct AuditRoutes: Sendable {
    let drive: Drive

    func add(to router: Router<APIContext>) {
        router.get("v1/namespaces/:namespace/audit") { request, context in
            let query = request.uri.queryParameters
            var filter = AuditFilter()
            filter.path = query["path"].map(String.init)
            filter.account = query["account"].map(String.init)
            filter.action = query["action"].map(String.init)
            if query["since"] != nil { filter.since = Timestamp(nanoseconds: try request.integer("since", default: 0)) }
            if query["until"] != nil { filter.until = Timestamp(nanoseconds: try request.integer("until", default: 0)) }
            if let before = query["before"] {
                guard let id = Identifier<AuditTag>(String(before)) else { throw DriveError.badRequest("before is no cursor of this call.") }
                filter.before = id
            }
            filter.limit = Int(clamping: try request.integer("limit", default: 1000))
            return try Response.json(try await drive.audit(try context.requireSession(), try context.id("namespace"), filter))
        }
    }
}

/// Notes who reads a namespace.
struct ReadAudit: RouterMiddleware {
    let drive: Drive

    func handle(_ request: Request, context: APIContext, next: (Request, APIContext) async throws -> Response) async throws -> Response {
        if let session = context.session, let namespace = context.parameters.get("namespace").flatMap({ NamespaceID($0) }) {
            try await drive.auditRead(session, namespace)
        }
        return try await next(request, context)
    }
}
