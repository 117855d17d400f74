import Foundation
import Shared
import Synchronization

/// What was brought of files' histories for those who look into `.boxfs`.
struct KnownVersions: Sendable {
    /// A list may have grown since; so old it may get, seconds.
    static let listSeconds: Double = 5
    /// Lists, and contents that nobody opened yet, kept at most.
    static let maximumCount = 256

    private var lists: [NodeID: (versions: [VersionInformation], until: ContinuousClock.Instant)] = [:]
    private var removed: [NodeID: (items: [TrashItem], until: ContinuousClock.Instant)] = [:]
    private var contents: [VersionID: [ChunkReference]] = [:]

    func list(_ file: NodeID) -> [VersionInformation]? {
        lists[file].flatMap { $0.until > .now ? $0.versions : nil }
    }

    mutating func add(_ file: NodeID, _ versions: [VersionInformation]) {
        if lists.count >= Self.maximumCount { lists = [:] }
        lists[file] = (versions, .now + .seconds(Self.listSeconds))
    }

    func removed(from folder: NodeID) -> [TrashItem]? {
        removed[folder].flatMap { $0.until > .now ? $0.items : nil }
    }

    mutating func add(removedFrom folder: NodeID, _ items: [TrashItem]) {
        if removed.count >= Self.maximumCount { removed = [:] }
        removed[folder] = (items, .now + .seconds(Self.listSeconds))
    }

    mutating func add(_ version: VersionID, _ chunks: [ChunkReference]) {
        if contents.count >= Self.maximumCount { contents = [:] }
        contents[version] = chunks
    }

    mutating func take(_ version: VersionID) -> [ChunkReference]? { contents.removeValue(forKey: version) }
}

extension Synchronizer {
    func versions(of file: NodeID) -> [VersionInformation]? { knownVersions.withLock { $0.list(file) } }

    func removed(from folder: NodeID) -> [TrashItem]? { knownVersions.withLock { $0.removed(from: folder) } }

    func takeContent(of version: VersionID) -> [ChunkReference]? { knownVersions.withLock { $0.take(version) } }

    /// A file that the server does not know yet has no versions.
    func fetchVersions(of node: NodeID, _ number: InodeNumber, _ waiter: Waiter) async throws(FileSystemError) {
        let namespace = namespaceID(of: number)
        var versions: [VersionInformation] = []
        var after: String?
        repeat {
            let start = after
            let page: VersionPage? = try await persistently(waiter) {
                do { return try await self.remote.versions(namespace, node: node, after: start) } catch RemoteError.problem(let problem)
                    where problem.code == ProblemCode.notFound.rawValue { return nil }
            }
            versions += page?.versions ?? []
            after = page?.next
        } while after != nil
        knownVersions.withLock { $0.add(node, versions) }
    }

    /// How long whoever lists a folder waits for what was removed from it.
    private static let removedSeconds: Double = 3

    /// While the server is away nothing is shown as removed, and the living are.
    func fetchRemoved(from folder: NodeID, _ number: InodeNumber) async {
        let namespace = namespaceID(of: number)
        var items: [TrashItem] = []
        if state.withLock(\.isConnected) {
            var after: String?
            repeat {
                guard let page = try? await remote.trash(namespace, folder: folder, after: after, seconds: Self.removedSeconds) else { break }
                items += page.items
                after = page.next
            } while after != nil
        }
        knownVersions.withLock { $0.add(removedFrom: folder, items) }
    }

    func fetchContent(of version: VersionID, _ number: InodeNumber, _ waiter: Waiter) async throws(FileSystemError) {
        let namespace = namespaceID(of: number)
        let chunks = try await persistently(waiter) {
            let information = try await self.remote.version(namespace, version)
            return try await self.remote.chunks(namespace, information.content ?? .empty)
        }
        knownVersions.withLock { $0.add(version, chunks) }
    }
}
