import Hummingbird
import Shared

/// Links as their makers manage them.
struct LinkRoutes: Sendable {
    let drive: Drive

    /// A link's identifier or token, as it stands in the path.
    private func name(_ context: APIContext) throws -> String {
        guard let name = FormText.decoded(try context.parameters.require("link")) else { throw DriveError.notFound("There is no such link.") }
        return name
    }

    func add(to router: Router<APIContext>) {
        router.post("v1/namespaces/:namespace/links") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(LinkRequest.self, upTo: 64 << 10)
            return try Response.json(try await drive.createLink(session, try context.id("namespace"), wanted))
        }
        router.get("v1/links") { _, context in try Response.json(try await drive.links(try context.requireSession())) }
        router.get("v1/links/:link") { _, context in
            try Response.json(try await drive.link(try context.requireSession(), named: try name(context)))
        }
        router.delete("v1/links/:link") { _, context in
            try await drive.revokeLink(try context.requireSession(), named: try name(context))
            return Response.nothing
        }
    }
}
