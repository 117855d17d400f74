import Foundation
import NIOCore
import Shared

struct FsckReport: Codable, Sendable {
    /// Sentences; empty when all is right.
    var problems: [String] = []
    var nodes = 0, versions = 0, chunks = 0, objects = 0
    var chunkBytes: UInt64 = 0
}

extension Drive {
    /// Proves counts, references and, if asked, bytes, on one snapshot of the rows.
    func fsck(checkBytes: Bool) async throws(DriveError) -> FsckReport {
        var (report, locations) = try await read { sql -> (FsckReport, [(ChunkHash, ChunkLocation)]) in
            var report = FsckReport()
            try Self.checkCounts(sql, &report)
            try Self.checkTrees(sql, &report)
            let locations = try sql.query("SELECT hash, object, byte_offset, length FROM chunks ORDER BY object, byte_offset", []).map { row in
                (try row.hash(0), ChunkLocation(object: row.text(1) ?? "", offset: UInt64(row.int(2)), length: UInt32(row.int(3))))
            }
            return (report, locations)
        }
        do {
            let objects = Dictionary(try await chunks.objects().map { ($0.name, $0.byteCount) }, uniquingKeysWith: { first, _ in first })
            report.objects = objects.count
            for (hash, location) in locations {
                guard let bytes = objects[location.object], bytes >= location.offset + UInt64(location.length) else {
                    report.problems.append("Chunk \(hash): its object \(location.object) is missing or too short.")
                    continue
                }
                guard checkBytes else { continue }
                if try await chunks.hash(location) != hash { report.problems.append("Chunk \(hash) in object \(location.object) is damaged.") }
            }
        } catch { throw Self.translated(error) }
        return report
    }

    private static func checkCounts(_ sql: any SQLConnection, _ report: inout FsckReport) throws {
        var stored: [ChunkHash: Int64] = [:], pageReferences: [ChunkHash: Int64] = [:]
        var held: [NamespaceID: [ChunkHash: Int64]] = [:], heldPages: [NamespaceID: [ChunkHash: Int64]] = [:]
        let versions = try sql.query("SELECT v.id, n.namespace FROM versions v LEFT JOIN nodes n ON n.id = v.node", [])
        report.versions = versions.count
        for row in versions {
            guard !row.isNull(1) else {
                report.problems.append("Version \(try row.id(0, VersionTag.self)) belongs to no node.")
                continue
            }
            let namespace: NamespaceID = try row.id(1)
            guard let content = try NodeRow.content(sql, try row.id(0)) else { continue }
            if let inline = content.inline {
                for chunk in try Manifest.unpack(inline) where !chunk.isHole {
                    stored[chunk.hash, default: 0] += 1
                    held[namespace, default: [:]][chunk.hash, default: 0] += 1
                }
            }
            for page in content.pages ?? [] {
                pageReferences[page, default: 0] += 1
                heldPages[namespace, default: [:]][page, default: 0] += 1
            }
        }
        var pages: [ChunkHash: [ChunkReference]] = [:]
        for row in try sql.query("SELECT hash, data, reference_count FROM manifest_pages", []) {
            let hash = try row.hash(0), data = row.blob(1) ?? []
            if SHA256.hash(data) != hash { report.problems.append("Manifest page \(hash) is damaged.") }
            pages[hash] = try Manifest.unpack(data)
            if row.int(2) != pageReferences[hash] ?? 0 {
                report.problems.append("Manifest page \(hash) counts \(row.int(2)) references, but \(pageReferences[hash] ?? 0) versions name it.")
            }
        }
        for page in pageReferences.keys {
            guard let chunks = pages[page] else {
                report.problems.append("Manifest page \(page) is missing.")
                continue
            }
            for chunk in chunks where !chunk.isHole { stored[chunk.hash, default: 0] += 1 }
        }
        for (namespace, counts) in heldPages {
            for page in counts.keys { for chunk in pages[page] ?? [] where !chunk.isHole { held[namespace, default: [:]][chunk.hash, default: 0] += 1 } }
        }
        var lengths: [ChunkHash: UInt64] = [:]
        for row in try sql.query("SELECT hash, length, reference_count FROM chunks", []) {
            let hash = try row.hash(0)
            lengths[hash] = UInt64(row.int(1))
            report.chunkBytes += UInt64(row.int(1))
            if row.int(2) != stored[hash] ?? 0 {
                report.problems.append("Chunk \(hash) counts \(row.int(2)) references, but there are \(stored[hash] ?? 0).")
            }
        }
        report.chunks = lengths.count
        for hash in stored.keys where lengths[hash] == nil { report.problems.append("Chunk \(hash) is referred to, but there is no row of it.") }
        for row in try sql.query("SELECT namespace, hash, count FROM namespace_chunks", []) {
            let namespace: NamespaceID = try row.id(0), hash = try row.hash(1)
            let right = held[namespace]?.removeValue(forKey: hash) ?? 0
            if row.int(2) != right { report.problems.append("Namespace \(namespace) counts chunk \(hash) \(row.int(2)) times, but there are \(right) references.") }
        }
        for (namespace, left) in held { for hash in left.keys { report.problems.append("Namespace \(namespace) does not count chunk \(hash).") } }
        for row in try sql.query("""
            SELECT s.id, s.used, (SELECT coalesce(sum(c.length), 0) FROM namespace_chunks n JOIN chunks c ON c.hash = n.hash WHERE n.namespace = s.id)
            FROM namespaces s
            """, []) where row.int(1) != row.int(2) {
            report.problems.append("Namespace \(try row.id(0, NamespaceTag.self)) says \(row.int(1)) bytes are used, but its chunks have \(row.int(2)).")
        }
    }

    /// Each namespace has one owner; whoever is in a shared one has one junction to it, in the own home, and nobody else has.
    private static func checkSharing(
        _ sql: any SQLConnection, _ namespace: NamespaceID, _ live: Set<NodeID>, _ children: [NodeID: [NodeID]], _ report: inout FsckReport
    ) throws {
        let members = try sql.query("""
            SELECT m.role, a.home, (SELECT count(*) FROM nodes n WHERE n.shared = m.namespace AND n.namespace = a.home AND n.deleted_at IS NULL)
            FROM members m JOIN accounts a ON a.id = m.account WHERE m.namespace = $1
            """, [.id(namespace)])
        if members.count(where: { $0.text(0) == Role.owner.rawValue }) != 1 { report.problems.append("Namespace \(namespace) has not one owner.") }
        for row in members {
            let home: NamespaceID = try row.id(1), right: Int64 = home == namespace ? 0 : 1
            if row.int(2) != right { report.problems.append("Home \(home) has \(row.int(2)) junctions to namespace \(namespace), not \(right).") }
        }
        let all = try sql.first("SELECT count(*) FROM nodes WHERE shared = $1 AND deleted_at IS NULL", [.id(namespace)])?.int(0) ?? 0
        if all != members.reduce(0, { $0 + $1.int(2) }) { report.problems.append("Somebody who is no member has a junction to namespace \(namespace).") }
        for row in try sql.query("SELECT id FROM nodes WHERE namespace = $1 AND shared IS NOT NULL AND deleted_at IS NULL", [.id(namespace)]) {
            let junction: NodeID = try row.id(0)
            if children[junction]?.isEmpty == false { report.problems.append("Junction \(junction) holds entries of its own.") }
        }
        for row in try sql.query("""
            SELECT n.id FROM nodes n JOIN nodes o ON o.id = n.successor WHERE n.namespace = $1 AND o.namespace <> $1 UNION
            SELECT l.node FROM links l JOIN nodes n ON n.id = l.node WHERE l.namespace = $1 AND n.namespace <> $1 UNION
            SELECT e.node FROM entries e JOIN nodes n ON n.id = e.parent WHERE e.namespace = $1 AND n.namespace <> $1
            """, [.id(namespace)]) {
            report.problems.append("What namespace \(namespace) says of node \(try row.id(0, NodeTag.self)) reaches into another namespace.")
        }
    }

    private static func checkTrees(_ sql: any SQLConnection, _ report: inout FsckReport) throws {
        for namespace in try sql.query("SELECT id, root, sequence, nodes FROM namespaces", []) {
            let id: NamespaceID = try namespace.id(0), root: NodeID = try namespace.id(1)
            var children: [NodeID: [NodeID]] = [:], links: [NodeID: Int64] = [:]
            for row in try sql.query("SELECT parent, node, sequence FROM entries WHERE namespace = $1 AND deleted_at IS NULL", [.id(id)]) {
                children[try row.id(0), default: []].append(try row.id(1))
                links[try row.id(1), default: 0] += 1
                if row.int(2) > namespace.int(2) { report.problems.append("An entry of namespace \(id) is newer than the namespace.") }
            }
            var live: Set<NodeID> = []
            for row in try sql.query("SELECT id, links, mode, sequence FROM nodes WHERE namespace = $1 AND deleted_at IS NULL", [.id(id)]) {
                let node: NodeID = try row.id(0)
                live.insert(node)
                let right = node == root ? 1 : links[node] ?? 0
                if row.int(1) != right { report.problems.append("Node \(node) counts \(row.int(1)) links, but \(right) entries name it.") }
                if row.int(3) > namespace.int(2) { report.problems.append("Node \(node) is newer than its namespace.") }
            }
            for node in links.keys where !live.contains(node) { report.problems.append("An entry of namespace \(id) names node \(node), which is deleted or not there.") }
            var reached: Set<NodeID> = [], queue = [root]
            while let next = queue.popLast() {
                if reached.insert(next).inserted { queue += children[next] ?? [] }
            }
            for node in live.subtracting(reached) { report.problems.append("Node \(node) cannot be reached from the root of namespace \(id).") }
            try checkSharing(sql, id, live, children, &report)
            if namespace.int(3) != Int64(live.count) { report.problems.append("Namespace \(id) counts \(namespace.int(3)) nodes, but there are \(live.count).") }
            report.nodes += live.count
        }
    }
}
