import Foundation
import GRDB
import Shared

// Directories that are not here yet: those that somebody waits for, and in the background all others.
extension Synchronizer {
    /// Rows that are applied under one hold of `Tree.lock`: some milliseconds, for which calls may have to wait.
    private static let sliceCount = 100
    /// Directories that are asked for at once in the background; the server answers as many as fit its page.
    private static let batchCount = 200

    /// Brings a directory's entries; calls for one directory share the work.
    func hydrate(_ number: InodeNumber, done: @escaping @Sendable (FileSystemError?) -> Void) {
        let isFirst = state.withLock { state in
            defer { state.hydrationWaiters[number, default: []].append(done) }
            return state.hydrationWaiters[number] == nil
        }
        guard isFirst else { return }
        Task {
            var failure: FileSystemError?
            do throws(FileSystemError) { try await self.fetchEntries(number) } catch { failure = error }
            let waiters = self.state.withLock { $0.hydrationWaiters.removeValue(forKey: number) ?? [] }
            for waiter in waiters { waiter(failure) }
            self.hydrateSignal.raise()      // its folders are to follow
        }
    }

    /// Brings what a new mount needs before it can be worked in without the server.
    func bringRoot(seconds: Double) async {
        await withCheckedContinuation { continuation in
            let waiter = Waiter(deadlineSeconds: seconds, late: .io) { _ in continuation.resume() }
            hydrate(.root) { waiter.finish($0) }
        }
    }

    private func fetchEntries(_ number: InodeNumber) async throws(FileSystemError) {
        let waiter = Waiter(deadlineSeconds: deadlineSeconds, late: .io) { _ in }
        defer { waiter.finish(nil) }
        guard var place = try expect([number])[number] else { return }
        defer { release([number]) }
        var after: String?
        while true {
            let (start, now) = (after, place)
            let page: TreePage
            do throws(FileSystemError) {
                page = try await persistently(waiter) { try await self.remote.children(now.namespace.id, now.id, after: start) }
            } catch {
                // It may have become a shared folder meanwhile.
                guard let moved = try self.place(of: number), moved.namespace !== place.namespace else { throw error }
                (place, after) = (moved, nil)
                continue
            }
            connected(nil)
            guard try take(page.sequence, place.namespace, number, page.entries, Self.byID(page.nodes), isLast: page.next == nil) else {
                if let moved = try self.place(of: number), moved.namespace !== place.namespace { (place, after) = (moved, nil) }
                continue
            }
            guard let next = page.next else { return }
            after = next
        }
    }

    /// How the server is asked for a directory.
    struct Place { let id: NodeID, namespace: Namespace }

    private func place(of number: InodeNumber) throws(FileSystemError) -> Place? {
        try tree.lock.withLock { () throws(FileSystemError) in
            let inode = try tree.directory(number)
            return Place(id: inode.id, namespace: try tree.namespace(of: inode))
        }
    }

    /// Says that entries of these directories arrive: from here on the feed's rows of them are taken, so that no change falls between two
    /// pages. Keeps them in memory until `release`.
    /// - Returns: the directories that are not complete.
    func expect(_ numbers: [InodeNumber]) throws(FileSystemError) -> [InodeNumber: Place] {
        try tree.lock.withLock { () throws(FileSystemError) in
            var wanted: [InodeNumber: Place] = [:]
            for number in numbers {
                let inode = try tree.directory(number)
                guard inode.hydration != .complete else { continue }
                let namespace = try tree.namespace(of: inode)
                inode.hydration = .arriving
                inode.uses += 1
                tree.markDirty(inode)
                wanted[number] = Place(id: inode.id, namespace: namespace)
            }
            return wanted
        }
    }

    func release(_ numbers: some Collection<InodeNumber>) {
        tree.lock.withLock {
            for number in numbers {
                guard let inode = tree.inodes[number] else { continue }
                inode.uses -= 1
                tree.releaseIfUnused(inode)
            }
        }
    }

    /// Applies one directory's entries, slice by slice.
    /// - Returns: false when the page is older than the feed that was applied here: it may show what is no more, and has to be asked
    ///   for again; also when the directory belongs to another namespace by now.
    func take(
        _ sequence: Int64, _ namespace: Namespace, _ directory: InodeNumber, _ entries: [Entry], _ nodes: [NodeID: Node], isLast: Bool
    ) throws(FileSystemError) -> Bool {
        var rest = entries[...]
        repeat {
            let slice = Array(rest.prefix(Self.sliceCount))
            rest = rest.dropFirst(slice.count)
            let isEnd = isLast && rest.isEmpty
            let events = try tree.lock.withLock { () throws(FileSystemError) -> [KernelEvent]? in
                guard sequence >= namespace.cursor, tree.namespaces[namespace.number] === namespace, try tree.inode(directory).namespace == namespace.number
                else { return nil }
                let count = tree.namespaces.count
                defer { if tree.namespaces.count != count { followAnew() } }
                var applier = FeedApplier(tree: tree, namespace: namespace)
                let named = slice.compactMap { nodes[$0.node] }
                // The roots of shared folders come with their junctions.
                try applier.list(directory, entries: slice, nodes: named + named.compactMap { $0.shared.flatMap { nodes[$0.root] } })
                if isEnd {
                    let inode = try tree.inode(directory)
                    inode.hydration = .complete
                    tree.markDirty(inode)
                }
                return tree.willTell(applier.events)
            }
            guard let events else { return false }
            notify(events)
        } while !rest.isEmpty
        return true
    }

    private static func byID(_ nodes: [Node]) -> [NodeID: Node] { Dictionary(nodes.lazy.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first }) }

    // MARK: In the background

    /// Fetches the directories that nobody visited, in the order in which they became known. Sleeps until some become known or the server
    /// is back.
    func hydrateLoop() async {
        while !Task.isCancelled {
            do throws(FileSystemError) {
                while !Task.isCancelled, state.withLock({ $0.isConnected && $0.stopped == nil }), try await hydrateSome() {}
                await hydrateSignal.wait()
            } catch {
                try? await Task.sleep(for: .seconds(5))
            }
        }
    }

    /// - Returns: whether there was something to do.
    private func hydrateSome() async throws(FileSystemError) -> Bool {
        let found = try tree.lock.withLock { () throws(FileSystemError) in
            try tree.commit()
            return try tree.database.read { database in
                try Row.fetchAll(database.cachedStatement(sql: """
                    SELECT inode, namespace FROM nodes WHERE hydrated < 2 AND mode & 61440 = 16384 AND links > 0 ORDER BY inode LIMIT \(Self.batchCount)
                    """)).map { (number: InodeNumber(rawValue: UInt64($0[0] as Int64)), namespace: $0[1] as Int64) }
            }
        }
        guard let first = found.first?.number else { return false }
        // One exchange is about one namespace.
        let numbers = found.filter { $0.namespace == found[0].namespace }.map(\.number)
        let wanted = try expect(numbers)
        defer { release(wanted.keys) }
        guard let namespace = wanted.values.first?.namespace else { return true }
        let page: ChildrenPage
        do {
            page = try await remote.children(namespace.id, of: numbers.compactMap { wanted[$0].flatMap { $0.namespace === namespace ? $0.id : nil } })
            connected(nil)
        } catch {
            // A server that does not know the call, and directories that it does not have, are found out one by one.
            guard case .problem = error else {
                connected(error)
                throw Self.translated(error)
            }
            try await hydrateAlone(first)
            return true
        }
        if page.listed.isEmpty { try await hydrateAlone(first) }
        try takeAll(page, namespace, wanted)
        return true
    }

    private func takeAll(_ page: ChildrenPage, _ namespace: Namespace, _ wanted: [InodeNumber: Place]) throws(FileSystemError) {
        let numbers = Dictionary(wanted.map { ($1.id, $0) }, uniquingKeysWith: { first, _ in first })
        let nodes = Self.byID(page.nodes)
        let entries = Dictionary(grouping: page.entries, by: \.parent)
        for id in page.listed {
            guard let number = numbers[id] else { continue }
            // An old page: the next round asks again.
            guard try take(page.sequence, namespace, number, entries[id] ?? [], nodes, isLast: true) else { return }
        }
    }

    private func hydrateAlone(_ number: InodeNumber) async throws(FileSystemError) {
        let failure = await withCheckedContinuation { continuation in hydrate(number) { continuation.resume(returning: $0) } }
        if let failure { throw failure }
    }
}
