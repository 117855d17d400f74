import Glibc
import Shared

/// The versions of one file of a mount, and how a person names them.
struct FileHistory {
    let place: DrivePath
    let server: ServerAccess
    /// Newest first.
    let versions: [VersionInformation]
    let isDeleted: Bool

    var namespace: NamespaceID { place.namespace }

    init(_ path: String) throws(CommandFailure) {
        place = try DrivePath(path, mayBeGone: true)
        server = ServerAccess(place.profile)
        let (namespace, file) = (place.namespace, place.path)
        (versions, isDeleted) = try server.ask { remote async throws(RemoteError) in
            var versions: [VersionInformation] = [], after: String?, isDeleted = false
            repeat {
                let page = try await remote.versions(namespace, path: file, after: after)
                versions += page.versions
                (after, isDeleted) = (page.next, page.deleted)
            } while after != nil
            return (versions, isDeleted)
        }
    }

    /// A version by its identifier, the end of one (at least 4 digits), or its name.
    func version(_ text: String) throws(CommandFailure) -> VersionInformation {
        let found = versions.filter { $0.name == text || $0.id.description == text.lowercased() || text.utf8.count >= 4 && $0.id.description.hasSuffix(text.lowercased()) }
        guard found.count == 1 else {
            throw CommandFailure(found.isEmpty ? "There is no version \(text). boxfs history lists them." : "\(found.count) versions end with \(text): give more of it.")
        }
        return found[0]
    }

    /// Writes the version's bytes, chunk by chunk.
    func write(_ version: VersionInformation, to descriptor: Int32) throws(CommandFailure) {
        let (namespace, id) = (namespace, version.id)
        let chunks = try server.ask { remote async throws(RemoteError) -> [ChunkReference] in
            guard let content = try await remote.version(namespace, id).content else { return [] }
            return try await remote.chunks(namespace, content)
        }
        for chunk in chunks {
            var bytes = try server.ask { remote async throws(RemoteError) in try await remote.chunk(namespace, chunk) }[...]
            while !bytes.isEmpty {
                let written = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
                if written < 0 && errno == EINTR { continue }
                guard written > 0 else { throw CommandFailure("The output cannot be written: \(systemError()).") }
                bytes = bytes.dropFirst(written)
            }
        }
    }
}
