import Hummingbird
import Shared

/// Shared folders, who is in them, and groups.
struct SharingRoutes: Sendable {
    let drive: Drive
    private static let bodyBytes = 16 << 10

    private func name(_ context: APIContext, _ parameter: String) throws -> String {
        guard let name = FormText.decoded(try context.parameters.require(parameter)) else { throw DriveError.notFound("There is no such name.") }
        return name
    }

    func add(to router: Router<APIContext>) {
        router.get("v1/shares") { _, context in try Response.json(try await drive.shares(try context.requireSession())) }
        router.get("v1/account/sharing") { _, context in try Response.json(try await drive.sharingSettings(try context.requireSession())) }
        router.put("v1/account/sharing") { request, context in
            let session = try context.requireSession()
            try await drive.setSharingSettings(session, try await request.json(SharingSettings.self, upTo: Self.bodyBytes))
            return Response.nothing
        }
        addFolders(router.group("v1/namespaces/:namespace"))
        addGroups(router)
    }

    private func addFolders(_ group: RouterGroup<APIContext>) {
        group.post("shares") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(ShareRequest.self, upTo: Self.bodyBytes)
            return try Response.json(try await drive.share(session, try context.id("namespace"), wanted.path))
        }
        group.get("members") { _, context in try Response.json(try await drive.members(try context.requireSession(), try context.id("namespace"))) }
        group.put("members/:name") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(RoleRequest.self, upTo: Self.bodyBytes)
            try await drive.setMember(session, try context.id("namespace"), try name(context, "name"), wanted.role)
            return Response.nothing
        }
        group.delete("members/:name") { _, context in
            try await drive.removeMember(try context.requireSession(), try context.id("namespace"), try name(context, "name"))
            return Response.nothing
        }
        group.post("accept") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(AcceptRequest.self, upTo: Self.bodyBytes)
            return try Response.json(try await drive.accept(session, try context.id("namespace"), at: wanted.path))
        }
        group.post("decline") { _, context in
            try await drive.decline(try context.requireSession(), try context.id("namespace"))
            return Response.nothing
        }
        group.post("transfer") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(TransferRequest.self, upTo: Self.bodyBytes)
            try await drive.transfer(session, try context.id("namespace"), to: wanted.account)
            return Response.nothing
        }
        group.put("groups/:name") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(RoleRequest.self, upTo: Self.bodyBytes)
            try await drive.setGroup(session, try context.id("namespace"), try name(context, "name"), wanted.role)
            return Response.nothing
        }
        group.delete("groups/:name") { _, context in
            try await drive.removeGroup(try context.requireSession(), try name(context, "name"), from: try context.id("namespace"))
            return Response.nothing
        }
    }

    private func addGroups(_ router: Router<APIContext>) {
        router.get("v1/groups") { _, context in try Response.json(try await drive.groups(try context.requireSession())) }
        router.put("v1/groups/:name") { _, context in
            try await drive.addGroup(try context.requireSession(), try name(context, "name"))
            return Response.nothing
        }
        router.delete("v1/groups/:name") { _, context in
            try await drive.removeGroup(try context.requireSession(), try name(context, "name"))
            return Response.nothing
        }
        router.put("v1/groups/:name/members/:member") { _, context in
            try await drive.addToGroup(try context.requireSession(), try name(context, "name"), try name(context, "member"))
            return Response.nothing
        }
        router.delete("v1/groups/:name/members/:member") { _, context in
            try await drive.removeFromGroup(try context.requireSession(), try name(context, "name"), try name(context, "member"))
            return Response.nothing
        }
    }
}
