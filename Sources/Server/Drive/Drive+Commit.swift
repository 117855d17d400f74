import Foundation
import Shared

extension Drive {
    static let maximumOperations = 5000

    /// Applies a batch in one transaction. Repeating a commit gives its first answer again.
    func commit(_ session: Session, _ namespace: NamespaceID, _ request: CommitRequest) async throws(DriveError) -> CommitAnswer {
        guard request.operations.count <= Self.maximumOperations else { throw .tooLarge("At most \(Self.maximumOperations) operations in a commit.") }
        var plan = MergePlan(), carried = try await store(request, session, namespace)
        while true {
            do {
                let (answer, changed) = try await apply(session, namespace, request, carried, plan)
                for (namespace, sequence) in changed { onCommit(namespace, sequence) }
                return answer
            } catch {
                guard error is MergeWanted else { throw Self.translated(error) }
                // Texts that meet are read by their rows.
                if !carried.placed.isEmpty {
                    let (brought, time) = (carried, now())
                    try await write(.ordered) { try Self.note(brought.lengths.keys, placed: brought.placed, $0, time) }
                    carried.placed = [:]
                }
                plan = try await planMerges(namespace, request, attempt: plan.attempt + 1)
            }
        }
    }

    private func apply(
        _ session: Session, _ namespace: NamespaceID, _ request: CommitRequest, _ carried: Carried, _ plan: MergePlan
    ) async throws -> (CommitAnswer, changed: [(NamespaceID, Int64)]) {
        let time = now()
        return try await store.write(.synced) { sql -> (CommitAnswer, changed: [(NamespaceID, Int64)]) in
            try Self.require(.editor, sql, session, namespace)
            if let row = try sql.first("SELECT namespace, answer FROM commits WHERE id = $1", [.id(request.commit)]) {
                guard try row.id(0) as NamespaceID == namespace else { throw DriveError.badRequest("This commit belongs elsewhere.") }
                if let upload = request.upload { try Self.endUpload(sql, session, upload) }
                return (try JSONDecoder().decode(CommitAnswer.self, from: Data((row.text(1) ?? "").utf8)), [])
            }
            try Self.note(carried.lengths.keys, placed: carried.placed, sql, time)
            let committer = try Committer(sql, session, namespace, request, time, plan, carried.lengths)
            if let seen = request.seen, committer.sequence < seen { throw DriveError.lostChanges }
            let answer = try committer.run()
            if let upload = request.upload { try Self.endUpload(sql, session, upload) }
            let others = committer.elsewhere.map { ($0.namespace, $0.sequence) }
            let packed = String(decoding: try JSONEncoder().encode(answer), as: UTF8.self)
            try sql.execute(
                "INSERT INTO commits (id, namespace, answer, created) VALUES ($1, $2, $3, $4)",
                [.id(request.commit), .id(namespace), .text(packed), .time(time)])
            return (answer, [(namespace, answer.sequence)] + others)
        }
    }
}

/// One commit under way, within its transaction. Files of this name hold its rules by theme.
///
/// Every operation takes the namespace's next number for the rows that it changes. Node rows are kept in memory and written at the
/// end: a file that is created, filled and renamed in one batch is one row written once.
final class Committer {
    let sql: any SQLConnection
    let session: Session
    let namespace: NamespaceID
    let request: CommitRequest
    let time: Timestamp
    let ledger: ChunkLedger
    private(set) var sequence: Int64
    private let used: UInt64
    let root: NodeID
    private var nodeCount: Int64
    private var nodes: [NodeID: NodeRow] = [:]
    private var dirty: Set<NodeID> = []
    /// Names that the operation under way told. Of nodes their `sequence` says it.
    var toldNames: Set<Place> = []
    /// What the batch is going to put into a node: tells equal files apart from a conflict when both were created.
    let contents: [NodeID: Content]
    let plan: MergePlan
    /// Lengths in bytes of the chunks that the request brought itself.
    let carried: [ChunkHash: UInt32]
    let settings: NamespaceSettings
    /// Files that replaced others in this batch, which is still to bring their content: what that was edited from.
    var inheritedBases: [NodeID: VersionID] = [:]
    /// Where each node that this batch renamed stood before.
    var moves: [NodeID: Move] = [:]
    private var audit = CommitAudit()
    /// Watches for mass changes; nil while something is taken back.
    var guardian: MassChangeGuard?
    /// For what the commit names and that lies in other namespaces by now.
    private(set) var elsewhere: [Committer] = []

    init(
        _ sql: any SQLConnection, _ session: Session, _ namespace: NamespaceID, _ request: CommitRequest, _ time: Timestamp,
        _ plan: MergePlan = MergePlan(), _ carried: [ChunkHash: UInt32] = [:]
    ) throws {
        self.sql = sql
        self.carried = carried
        self.session = session
        self.namespace = namespace
        self.request = request
        self.time = time
        let information = try Drive.namespaceInformation(sql, namespace)
        (sequence, used, nodeCount) = (information.sequence, information.used, information.nodes)
        root = information.root
        ledger = ChunkLedger(sql, namespace)
        var contents: [NodeID: Content] = [:]
        for numbered in request.operations {
            if case .content(let node, _, _, let content, _, _) = numbered.operation { contents[node] = content }
        }
        self.contents = contents
        self.plan = plan
        settings = try Drive.namespaceSettings(sql, namespace)
    }

    func run() throws -> CommitAnswer {
        if let upload = request.upload, try Drive.requireUpload(sql, session, upload, time) != namespace { throw DriveError.uploadExpired }
        let route = try CommitRoute(self)
        try begin(route.operations(of: namespace))
        var before = [NamespaceSequence(namespace: namespace, sequence: sequence)]
        for other in route.others {
            let committer = try Committer(sql, session, other, request, time, plan, carried)
            try committer.begin(route.operations(of: other))
            elsewhere.append(committer)
            before.append(NamespaceSequence(namespace: other, sequence: committer.sequence))
        }
        var results: [OperationResult] = []
        for (index, numbered) in request.operations.enumerated() {
            switch route[index] {
            case .here: results.append(try perform(numbered))
            case .elsewhere(let other):
                var result = try elsewhere.first { $0.namespace == other }!.perform(numbered)
                result.namespace = other
                results.append(result)
            case .refused(let code, let detail):
                for committer in [self] + elsewhere {
                    committer.step()
                    try committer.tellAll(of: numbered.operation, isRefused: true)
                }
                results.append(OperationResult(id: numbered.id, outcome: .refused, code: code.rawValue, detail: detail))
            }
        }
        for committer in [self] + elsewhere { try committer.finish() }
        return CommitAnswer(sequence: sequence, results: results, before: route.isPlain ? nil : before)
    }

    private func begin(_ operations: [NumberedOperation]) throws {
        try ledger.validate(operations, request.upload, carried)
        guardian = try MassChangeGuard(sql, session, namespace, settings, time)
    }

    private func perform(_ numbered: NumberedOperation) throws -> OperationResult {
        step()
        let (outcome, code, detail) = try apply(numbered.operation)
        try tellAll(of: numbered.operation, isRefused: outcome == .refused)
        if outcome != .refused { try audit.note(numbered.operation, self) }
        return OperationResult(id: numbered.id, outcome: outcome, code: code?.rawValue, detail: detail)
    }

    /// Takes the namespace's next number for what follows.
    func step() {
        sequence += 1
        toldNames = []
    }

    /// Writes the rows of nodes and the namespace's new counts.
    func finish() throws {
        for id in dirty { try nodes[id]?.save(sql) }
        try guardian?.finish()
        try audit.save(self)
        let usedChange = try ledger.settle()
        if usedChange > 0 {
            let space = try Drive.space(sql, ownedWith: namespace)
            if let quota = space.quota, space.used + UInt64(usedChange) > quota {
                throw DriveError.quotaExceeded(quota: quota, used: space.used)
            }
        }
        try sql.execute(
            "UPDATE namespaces SET sequence = $1, used = $2, nodes = $3 WHERE id = $4",
            [.integer(sequence), .integer(Int64(used) + usedChange), .integer(nodeCount), .id(namespace)])
    }

    typealias Result = (OperationResult.Outcome, ProblemCode?, String?)
    static let applied: Result = (.applied, nil, nil)

    private func apply(_ operation: Shared.Operation) throws -> Result {
        switch operation {
        case .create(let node, let parent, let name): try create(node, parent, name)
        case .link(let node, let parent, let name, let time): try link(node, parent, name, time)
        case .rename(let node, let parent, let name, let toParent, let toName, let replaced, let replacedVersion, let time):
            try rename(node, parent, name, toParent, toName, replaced, replacedVersion, time)
        case .exchange(let node, let parent, let name, let other, let otherParent, let otherName, let time):
            try exchange((node, parent, name), (other, otherParent, otherName), time)
        case .remove(let node, let parent, let name, let version, let time): try remove(node, parent, name, version, time)
        case .setattr(let node, let mode, let uid, let gid, let accessed, let modified, let changed):
            try change(node) { row in
                if let mode { row.mode = row.mode & 0o170000 | mode & 0o7777 }
                if let uid { row.uid = uid }
                if let gid { row.gid = gid }
                if let accessed { row.accessed = accessed }
                if let modified { row.modified = modified }
                row.changed = changed
            }
        case .xattr(let node, let name, let value, let changed):
            try change(node) { row in
                row.xattrs[name] = value
                row.changed = changed
            }
        case .content(let node, let base, let version, let content, let modified, let changed):
            try setContent(node, base, version, content, modified, changed)
        }
    }

    /// Attributes: the last writer wins, each by itself.
    private func change(_ id: NodeID, _ body: (inout NodeRow) -> Void) throws -> Result {
        guard var row = try node(id) else { return gone("The node is not there any more.") }
        body(&row)
        guard Self.xattrsFit(row.xattrs) else { return (.refused, .tooLarge, "The node's extended attributes are too large.") }
        put(row)
        return Self.applied
    }

    /// XATTR_NAME_MAX and XATTR_SIZE_MAX of limits.h, and a bound on all together.
    static func xattrsFit(_ xattrs: [String: Data]) -> Bool {
        xattrs.allSatisfy { (1...255).contains($0.key.utf8.count) && $0.value.count <= 64 << 10 }
            && xattrs.reduce(0) { $0 + $1.key.utf8.count + $1.value.count } <= 256 << 10
    }

    func gone(_ detail: String) -> Result { (.refused, .notFound, detail) }

    // MARK: Nodes

    /// The node, under its present identity; nil unless it is of this namespace.
    func node(_ id: NodeID) throws -> NodeRow? {
        if let known = nodes[id] { return known }
        if let row = try NodeRow.fetch(sql, id) {
            guard row.namespace == namespace else { return try junction(to: row) }
            nodes[id] = row
            return row
        }
        guard let alias = try sql.first("SELECT node FROM node_aliases WHERE alias = $1", [.id(id)]) else { return nil }
        return try node(try alias.id(0))
    }

    /// What stands here for a folder that became a shared one: who was away still names the folder itself.
    private func junction(to row: NodeRow) throws -> NodeRow? {
        guard row.isDirectory, let found = try sql.first("""
            SELECT n.id FROM nodes n JOIN namespaces s ON s.id = n.shared AND s.root = $1 WHERE n.shared = $2 AND n.namespace = $3 AND n.deleted_at IS NULL
            """, [.id(row.id), .id(row.namespace), .id(namespace)]) else { return nil }
        return try node(try found.id(0))
    }

    /// Keeps the row, changed by the operation under way.
    func put(_ row: NodeRow) {
        var row = row
        row.sequence = sequence
        nodes[row.id] = row
        dirty.insert(row.id)
    }

    func putNew(_ row: NodeRow) {
        put(row)
        nodeCount += 1
    }

    /// Marks a node whose last entry went.
    func bury(_ row: NodeRow) {
        var row = row
        row.deletedAt = time
        row.links = 0
        put(row)
        nodeCount -= 1
    }

    /// Brings back a node that is in the trash or was dropped from it: what it holds from here on lies in the trash when it is removed again.
    func revive(_ row: NodeRow) throws -> NodeRow {
        var row = row
        row.deletedAt = nil
        try sql.execute("UPDATE nodes SET purged_at = NULL WHERE id = $1 AND purged_at IS NOT NULL", [.id(row.id)])
        put(row)
        nodeCount += 1
        return row
    }

    /// So many living nodes went to another namespace.
    func letGo(_ count: Int64) { nodeCount -= count }

    func touch(_ directory: NodeID, _ time: Timestamp) throws {
        guard var row = try node(directory) else { return }
        row.modified = time
        row.changed = time
        put(row)
    }

    func exists(_ id: NodeID) throws -> Bool {
        if nodes[id] != nil { return true }
        return try sql.first("SELECT 1 FROM nodes WHERE id = $1", [.id(id)]) != nil
    }
}
