import Foundation
import Shared

// Versions, trash, mass changes, conflicts and settings (docs/openapi.yaml).
extension Remote {
    private func path(_ namespace: NamespaceID, _ rest: String) -> String { "/v1/namespaces/\(namespace)/\(rest)" }

    /// One page of a file's history, newest first.
    func versions(_ namespace: NamespaceID, path file: String, after: String?) async throws(RemoteError) -> VersionPage {
        try await versions(namespace, "path=\(Self.escaped(file))", after)
    }

    func versions(_ namespace: NamespaceID, node: NodeID, after: String?) async throws(RemoteError) -> VersionPage {
        try await versions(namespace, "node=\(node)", after)
    }

    private func versions(_ namespace: NamespaceID, _ file: String, _ after: String?) async throws(RemoteError) -> VersionPage {
        try await get(path(namespace, "versions?\(file)" + (after.map { "&after=" + Self.escaped($0) } ?? "")))
    }

    func version(_ namespace: NamespaceID, _ version: VersionID) async throws(RemoteError) -> VersionInformation {
        try await get(path(namespace, "versions/\(version)"))
    }

    func nameVersion(_ namespace: NamespaceID, _ version: VersionID, _ name: String?) async throws(RemoteError) {
        try await send("PUT", path(namespace, "versions/\(version)/name"), VersionName(name: name))
    }

    func restoreVersion(_ namespace: NamespaceID, _ version: VersionID, to file: String?) async throws(RemoteError) -> RestoreAnswer {
        try await post(path(namespace, "versions/\(version)/restore"), VersionRestoreRequest(to: file))
    }

    func restoreFolder(_ namespace: NamespaceID, _ request: FolderRestoreRequest) async throws(RemoteError) -> RestoreAnswer {
        try await post(path(namespace, "restore"), request)
    }

    func trash(_ namespace: NamespaceID, after: String?) async throws(RemoteError) -> TrashPage {
        try await get(path(namespace, "trash" + (after.map { "?after=" + Self.escaped($0) } ?? "")))
    }

    /// What was removed from one folder.
    func trash(_ namespace: NamespaceID, folder: NodeID, after: String?, seconds: Double) async throws(RemoteError) -> TrashPage {
        try await get(path(namespace, "trash?folder=\(folder)" + (after.map { "&after=" + Self.escaped($0) } ?? "")), seconds: seconds)
    }

    func restoreTrash(_ namespace: NamespaceID, _ request: TrashRequest) async throws(RemoteError) -> RestoreAnswer {
        try await post(path(namespace, "trash/restore"), request)
    }

    func purgeTrash(_ namespace: NamespaceID, _ request: TrashRequest) async throws(RemoteError) -> PurgeAnswer {
        try await post(path(namespace, "trash/purge"), request)
    }

    func massChanges(_ namespace: NamespaceID, seconds: Double = 30) async throws(RemoteError) -> [MassChange] {
        try await get(path(namespace, "events"), seconds: seconds)
    }

    func undo(_ namespace: NamespaceID, _ event: EventID) async throws(RemoteError) -> RestoreAnswer {
        try await post(path(namespace, "events/\(event)/undo"), [String: String]())
    }

    func conflicts(_ namespace: NamespaceID) async throws(RemoteError) -> [Conflict] { try await get(path(namespace, "conflicts")) }

    func resolve(_ namespace: NamespaceID, _ request: ResolveRequest) async throws(RemoteError) -> RestoreAnswer {
        try await post(path(namespace, "conflicts/resolve"), request)
    }

    func namespaceSettings(_ namespace: NamespaceID) async throws(RemoteError) -> NamespaceSettings { try await get(path(namespace, "settings")) }

    func setNamespaceSettings(_ namespace: NamespaceID, _ settings: NamespaceSettings) async throws(RemoteError) {
        try await send("PUT", path(namespace, "settings"), settings)
    }

    func retention() async throws(RemoteError) -> RetentionSettings { try await get("/v1/account/settings") }
    func setRetention(_ settings: RetentionSettings) async throws(RemoteError) { try await send("PUT", "/v1/account/settings", settings) }

    /// The chunks of a content, in order.
    func chunks(_ namespace: NamespaceID, _ content: Content) async throws(RemoteError) -> [ChunkReference] {
        do {
            if let inline = content.inline { return try Manifest.unpack(inline) }
            var chunks: [ChunkReference] = []
            for hash in content.pages ?? [] { chunks += try Manifest.unpack(try await page(namespace, hash)) }
            return chunks
        } catch let error as RemoteError { throw error } catch { throw .invalidAnswer("a manifest that makes no sense") }
    }

    /// One chunk's bytes, checked; zeros for a hole.
    func chunk(_ namespace: NamespaceID, _ reference: ChunkReference) async throws(RemoteError) -> [UInt8] {
        if reference.isHole { return [UInt8](repeating: 0, count: Int(reference.length)) }
        let bytes = try await call(Self.chunkRequest(namespace, reference), .reader)
        guard SHA256.hash(bytes) == reference.hash else { throw .invalidAnswer("a chunk with wrong bytes") }
        return bytes
    }
}
