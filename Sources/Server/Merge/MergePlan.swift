import NIOCore
import Shared

/// Thrown out of a commit's transaction: two edits met whose bytes have to be read before it can go on.
struct MergeWanted: Error {}

/// What was found out about edits that meet others, outside of any transaction. It holds as long as the file's version is still the one
/// that was merged with.
struct MergePlan: Sendable {
    struct Merge: Sendable {
        var version: VersionID
        var content: Content
        var chunk: ChunkReference?
        /// Where the bytes lie, if the store did not hold them before.
        var location: ChunkLocation?
    }
    struct Decision: Sendable {
        /// The file's version at the time.
        var theirs: VersionID
        /// nil: they touch the same lines, or one is no text.
        var merge: Merge?
    }
    /// Attempts after which edits that meet become copies unmerged: others commit too fast.
    static let maximumAttempts = 4

    var attempt = 0
    /// By the version that came in.
    var decisions: [VersionID: Decision] = [:]
}

extension Drive {
    /// Reads and merges what the request's edits meet. Operations of one file build on each other, as they will when they are applied.
    func planMerges(_ namespace: NamespaceID, _ request: CommitRequest, attempt: Int) async throws(DriveError) -> MergePlan {
        var plan = MergePlan(attempt: attempt)
        var saves: [NodeID: (replaced: NodeID, seen: VersionID)] = [:]
        var heads: [NodeID: VersionID] = [:], fresh: [VersionID: [UInt8]] = [:], contents: [VersionID: Content] = [:]
        var asides = Asides()
        for numbered in request.operations {
            if let save = try await save(ending: numbered.operation, &asides) {
                saves[save.by] = (save.replaced, save.seen)
                // Its content came in an earlier commit.
                let (ours, theirs) = try await read { sql in
                    (try NodeRow.fetch(sql, save.by)?.version, try NodeRow.fetch(sql, TreePath.successor(sql, of: save.replaced))?.version)
                }
                if let ours, let theirs, theirs != save.seen {
                    plan.decisions[ours] = try await decide(save.seen, theirs, ours, namespace, &fresh, contents)
                    heads[save.by] = plan.decisions[ours]?.merge?.version
                }
            }
            guard case .content(let named, let edited, let version, let content, _, _) = numbered.operation else { continue }
            // A save by rename goes on with the file that it replaced.
            let id = edited == nil ? saves[named]?.replaced ?? named : named
            guard let base = edited ?? saves[named]?.seen else { continue }
            contents[version] = content
            let (node, current) = try await read { sql -> (NodeID, VersionID?) in
                let node = try sql.first("SELECT node FROM node_aliases WHERE alias = $1", [.id(id)]).map { try $0.id(0) } ?? id
                let current = try TreePath.successor(sql, of: node)
                return (current, try NodeRow.fetch(sql, current)?.version)
            }
            guard let theirs = heads[node] ?? current, theirs != base else {
                heads[node] = version
                continue
            }
            let decision = try await decide(base, theirs, version, namespace, &fresh, contents)
            if let merge = decision.merge { heads[node] = merge.version }
            plan.decisions[version] = decision
        }
        return plan
    }

    /// Where the request moved files from, and what it created in their places.
    private struct Asides {
        struct Place: Hashable { let parent: NodeID, name: String }
        var left: [NodeID: Place] = [:], made: [Place: NodeID] = [:]
    }

    /// A file that goes on with the history of the one that an operation replaces or removes (`Committer+Succession.swift`).
    private func save(
        ending operation: Shared.Operation, _ asides: inout Asides
    ) async throws(DriveError) -> (by: NodeID, replaced: NodeID, seen: VersionID)? {
        switch operation {
        case .rename(let node, let parent, let name, _, _, let replaced, let seen, _):
            asides.left[node] = Asides.Place(parent: parent, name: name)
            if let replaced, let seen { return (node, replaced, seen) }
        case .create(let node, let parent, let name): asides.made[Asides.Place(parent: parent, name: name)] = node.id
        case .remove(let node, _, _, let seen?, _):
            if let made = asides.left[node].flatMap({ asides.made[$0] }) { return (made, node, seen) }
            let now = now()
            let heir = try await read { sql -> NodeID? in
                let old = try TreePath.successor(sql, of: node), since = now.adding(seconds: -Committer.savingSeconds)
                guard let (parent, name) = try Committer.lastPlace(sql, of: old, since: since) else { return nil }
                return try sql.first("SELECT node FROM entries WHERE parent = $1 AND name = $2 AND deleted_at IS NULL", [.id(parent), .text(name)])
                    .map { try $0.id(0) }
            }
            if let heir { return (heir, node, seen) }
        default: break
        }
        return nil
    }

    /// - Parameter fresh: texts of merges, by the version that they will be; this one's is added.
    private func decide(
        _ base: VersionID, _ theirs: VersionID, _ ours: VersionID, _ namespace: NamespaceID, _ fresh: inout [VersionID: [UInt8]],
        _ contents: [VersionID: Content]
    ) async throws(DriveError) -> MergePlan.Decision {
        var decision = MergePlan.Decision(theirs: theirs), texts: [[UInt8]] = []
        for wanted in [base, theirs, ours] {
            if let text = fresh[wanted] {
                texts.append(text)
            } else if let text = try await text(of: wanted, contents[wanted], namespace) {
                texts.append(text)
            } else { return decision }
        }
        if let merged = TextMerge.merge(base: texts[0], ours: texts[1], theirs: texts[2]) {
            let merge = try await store(merged)
            decision.merge = merge
            fresh[merge.version] = merged
        }
        return decision
    }

    /// The bytes of a version, or of a content that is about to become one; nil if it is too long for a text, or gone.
    private func text(of version: VersionID, _ content: Content?, _ namespace: NamespaceID) async throws(DriveError) -> [UInt8]? {
        let locations = try await read { sql -> [ChunkLocation]? in
            guard let content = try content ?? NodeRow.content(sql, version), content.size <= UInt64(TextMerge.maximumByteCount),
                  let inline = content.inline, let chunks = try? Manifest.unpack(inline), !chunks.contains(where: \.isHole) else { return nil }
            var locations: [ChunkLocation] = []
            for chunk in chunks {
                guard let row = try sql.first("SELECT object, byte_offset, length FROM chunks WHERE hash = $1", [.hash(chunk.hash)]) else { return nil }
                locations.append(ChunkLocation(object: row.text(0) ?? "", offset: UInt64(row.int(1)), length: UInt32(row.int(2))))
            }
            return locations
        }
        guard let locations else { return nil }
        var text: [UInt8] = []
        do throws(ChunkStoreError) {
            for location in locations { text += try await chunks.read(location).readableBytesView }
        } catch { return nil }      // a damaged chunk is no reason to refuse the edit: it becomes a copy
        return text
    }

    private func store(_ text: [UInt8]) async throws(DriveError) -> MergePlan.Merge {
        guard !text.isEmpty else { return MergePlan.Merge(version: .make(), content: .empty) }
        let chunk = ChunkReference(hash: SHA256.hash(text), length: UInt32(text.count))
        var merge = MergePlan.Merge(version: .make(), content: Content(Manifest(chunks: [chunk])), chunk: chunk)
        let isThere = try await read { sql in try sql.first("SELECT 1 FROM chunks WHERE hash = $1", [.hash(chunk.hash)]) != nil }
        if !isThere {
            do throws(ChunkStoreError) { merge.location = try await chunks.put([(chunk, ByteBuffer(bytes: text))])[0] } catch { throw Self.translated(error) }
        }
        return merge
    }
}
