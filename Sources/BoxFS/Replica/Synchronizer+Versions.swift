import Foundation
import Shared
import Synchronization

/// What was brought of files' histories for those who look into `.boxfs`.
struct KnownVersions: Sendable {
    /// A list may have grown since; so old it may get, seconds.
    static let listSeconds: Double = 5
    /// Lists, and contents that nobody opened yet, kept at most.
    static let maximumCount = 256

    private var lists: [InodeNumber: (versions: [VersionInformation], until: ContinuousClock.Instant)] = [:]
    private var contents: [VersionID: [ChunkReference]] = [:]

    func list(_ inode: InodeNumber) -> [VersionInformation]? {
        lists[inode].flatMap { $0.until > .now ? $0.versions : nil }
    }

    mutating func add(_ inode: InodeNumber, _ versions: [VersionInformation]) {
        if lists.count >= Self.maximumCount { lists = [:] }
        lists[inode] = (versions, .now + .seconds(Self.listSeconds))
    }

    mutating func add(_ version: VersionID, _ chunks: [ChunkReference]) {
        if contents.count >= Self.maximumCount { contents = [:] }
        contents[version] = chunks
    }

    mutating func take(_ version: VersionID) -> [ChunkReference]? { contents.removeValue(forKey: version) }
}

extension Synchronizer {
    func versions(of inode: InodeNumber) -> [VersionInformation]? { knownVersions.withLock { $0.list(inode) } }

    func takeContent(of version: VersionID) -> [ChunkReference]? { knownVersions.withLock { $0.take(version) } }

    /// A file that the server does not know yet has no versions.
    func fetchVersions(of number: InodeNumber, _ waiter: Waiter) async throws(FileSystemError) {
        let node = try tree.lock.withLock { () throws(FileSystemError) in try tree.inode(number).id }, namespace = namespaceID(of: number)
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
        knownVersions.withLock { $0.add(number, versions) }
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
