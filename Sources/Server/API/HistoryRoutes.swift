import Hummingbird
import Shared

/// What was, and how it comes back: versions, trash, folders as of a time, mass changes, conflicts, and the settings of all that.
struct HistoryRoutes: Sendable {
    let drive: Drive

    private static let bodyBytes = 64 << 10

    func add(to router: Router<APIContext>) {
        let group = router.group("v1/namespaces/:namespace")
        addVersions(group)
        addTrash(group)
        addMassChanges(group)
        addConflicts(group)
        addSettings(group, router)
    }

    private func addVersions(_ group: RouterGroup<APIContext>) {
        group.get("versions") { request, context in
            try Response.json(try await drive.versions(
                try context.requireSession(), try context.id("namespace"), node: try request.node("node"), path: request.text("path"), after: request.text("after"),
                limit: Int(clamping: try request.integer("limit", default: 1000))))
        }
        group.get("versions/:version") { _, context in
            try Response.json(try await drive.version(try context.requireSession(), try context.id("namespace"), try context.id("version")))
        }
        group.put("versions/:version/name") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(VersionName.self, upTo: Self.bodyBytes)
            try await drive.nameVersion(session, try context.id("namespace"), try context.id("version"), wanted.name)
            return Response.nothing
        }
        group.post("versions/:version/restore") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(VersionRestoreRequest.self, upTo: Self.bodyBytes)
            return try Response.json(try await drive.restoreVersion(session, try context.id("namespace"), try context.id("version"), to: wanted.to))
        }
        group.post("restore") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(FolderRestoreRequest.self, upTo: Self.bodyBytes)
            return try Response.json(try await drive.restoreFolder(session, try context.id("namespace"), wanted))
        }
    }

    private func addTrash(_ group: RouterGroup<APIContext>) {
        group.get("trash") { request, context in
            try Response.json(try await drive.trash(
                try context.requireSession(), try context.id("namespace"), folder: try request.node("folder"), after: request.text("after"),
                limit: Int(clamping: try request.integer("limit", default: 1000))))
        }
        group.post("trash/restore") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(TrashRequest.self, upTo: Self.bodyBytes)
            return try Response.json(try await drive.restoreTrash(session, try context.id("namespace"), wanted))
        }
        group.post("trash/purge") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(TrashRequest.self, upTo: Self.bodyBytes)
            return try Response.json(try await drive.purgeTrash(session, try context.id("namespace"), wanted))
        }
    }

    private func addMassChanges(_ group: RouterGroup<APIContext>) {
        group.get("events") { _, context in
            try Response.json(try await drive.massChanges(try context.requireSession(), try context.id("namespace")))
        }
        group.post("events/:event/undo") { _, context in
            try Response.json(try await drive.undo(try context.requireSession(), try context.id("namespace"), try context.id("event")))
        }
    }

    private func addConflicts(_ group: RouterGroup<APIContext>) {
        group.get("conflicts") { _, context in
            try Response.json(try await drive.conflicts(try context.requireSession(), try context.id("namespace")))
        }
        group.post("conflicts/resolve") { request, context in
            let session = try context.requireSession()
            let wanted = try await request.json(ResolveRequest.self, upTo: Self.bodyBytes)
            return try Response.json(try await drive.resolve(session, try context.id("namespace"), wanted))
        }
    }

    private func addSettings(_ group: RouterGroup<APIContext>, _ router: Router<APIContext>) {
        group.get("settings") { _, context in
            try Response.json(try await drive.namespaceSettings(try context.requireSession(), try context.id("namespace")))
        }
        group.put("settings") { request, context in
            let session = try context.requireSession()
            let settings = try await request.json(NamespaceSettings.self, upTo: Self.bodyBytes)
            try await drive.setNamespaceSettings(session, try context.id("namespace"), settings)
            return Response.nothing
        }
        router.get("v1/account/settings") { _, context in try Response.json(try await drive.retention(try context.requireSession())) }
        router.put("v1/account/settings") { request, context in
            let session = try context.requireSession()
            let settings = try await request.json(RetentionSettings.self, upTo: Self.bodyBytes)
            try await drive.setRetention(session, settings)
            return Response.nothing
        }
    }
}

extension Request {
    /// A parameter of the query, decoded; nil when it is not there.
    func text(_ name: Substring) -> String? { uri.queryParameters[name].map(String.init) }
}

extension Request {
    fileprivate func node(_ parameter: String) throws -> NodeID? {
        try uri.queryParameters[Substring(parameter)].map { text throws -> NodeID in
            guard let id = NodeID(String(text)) else { throw DriveError.badRequest("\(parameter) is no identifier.") }
            return id
        }
    }
}
