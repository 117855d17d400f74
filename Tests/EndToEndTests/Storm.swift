import Foundation
import Glibc
import Shared
import Synchronization
import Testing
import TestSupport

// What tests of faults and storms share: how long they run, what went wrong, what the server holds, and who makes the trouble.

enum Storm {
    /// How long a storm blows. BOXFS_STORM_SECONDS, as scripts/torture gives it; by default what CI has time for.
    static let seconds = ProcessInfo.processInfo.environment["BOXFS_STORM_SECONDS"].flatMap { Double($0) } ?? 10

    /// What a file of these bytes is called in a `TreeText`: the hashes of each 4 MiB.
    static func content(_ bytes: [UInt8]) -> String {
        stride(from: 0, to: bytes.count, by: 4 << 20)
            .map { SHA256.hash(Array(bytes[$0..<min(bytes.count, $0 + 4 << 20)])).description }.joined(separator: "+")
    }

    struct Unreadable: Error { let what: String, error: Int32 }

    /// A tree as the mount shows it.
    /// - Throws: `Unreadable` if it changed or failed while it was read.
    static func tree(_ mount: Mount) throws(Unreadable) -> TreeText {
        var tree: TreeText = [:], folders = [""]
        while let folder = folders.popLast() {
            for name in try mount.names(folder).map({ folder.isEmpty ? $0 : "\(folder)/\($0)" }) {
                var status = stat()
                guard lstat(mount(name), &status) == 0 else { throw Unreadable(what: "the attributes of \(name)", error: errno) }
                if status.st_mode & S_IFMT == S_IFDIR {
                    tree[name] = "/"
                    folders.append(name)
                } else {
                    guard let bytes = mount.read(name) else { throw Unreadable(what: "\(name) of \(status.st_size) bytes", error: errno) }
                    tree[name] = content(bytes)
                }
            }
        }
        return tree
    }

    /// For people.
    static func difference(_ found: TreeText, _ expected: TreeText) -> String {
        Set(found.keys).union(expected.keys).sorted().filter { found[$0] != expected[$0] }
            .map { "\($0): \(found[$0]?.prefix(8) ?? "nothing") instead of \(expected[$0]?.prefix(8) ?? "nothing")" }.joined(separator: ", ")
    }
}

/// Paths, with "/" for a folder and `Storm.content` for a file.
typealias TreeText = [String: String]

extension Drive {
    /// The account's tree on the server, at one moment. Read from its database: so it can be asked while the server is stopped or dead.
    func serverTree() throws -> TreeText {
        var tree: TreeText = [:]
        for line in try query("""
            WITH RECURSIVE t(path, node) AS (
                SELECT e.name, e.node FROM entries e JOIN namespaces n ON n.root = e.parent WHERE e.deleted_at IS NULL
                UNION ALL SELECT t.path || '/' || e.name, e.node FROM t JOIN entries e ON e.parent = t.node WHERE e.deleted_at IS NULL)
            SELECT t.path, n.mode & 61440 = 16384, v.inline FROM t JOIN nodes n ON n.id = t.node LEFT JOIN versions v ON v.id = n.version
            """) {
            tree[line[0]] = line[1] == "1" ? "/" : try content(line[2])
        }
        return tree
    }

    /// What a person can still get at: the contents of all versions, of files that are there or in the trash.
    func keptContents() throws -> Set<String> {
        Set(try query("""
            SELECT v.inline FROM versions v JOIN nodes n ON n.id = v.node WHERE v.superseded IS NULL AND n.purged_at IS NULL
            """).map { try content($0[0]) })
    }

    /// For people: the newest versions, each with its file's last name. Their identifiers tell when the mount sealed them (RFC 9562).
    func lastVersions() -> String {
        let rows = try? query("""
            SELECT v.id, v.created, v.node, (SELECT e.name FROM entries e WHERE e.node = v.node ORDER BY e.sequence DESC LIMIT 1), v.kind, v.size, v.inline, v.parents
            FROM versions v ORDER BY v.created DESC, v.id DESC LIMIT 40
            """)
        return rows?.map { "\n  \($0[0]) \($0[1]) \($0[2]) \($0[3]) \($0[4]) \($0[5]) \($0[6].prefix(8)) from \($0[7])" }.joined() ?? "not to be had"
    }

    /// For people: the versions that have a content, whatever became of them and of their files.
    func versions(of content: String) -> String {
        let rows = try? query("""
            SELECT v.id, v.created, v.kind, v.superseded, v.node, n.deleted_at, n.purged_at, n.successor FROM versions v LEFT JOIN nodes n ON n.id = v.node
            WHERE lower(hex(v.inline)) LIKE '\(content.prefix(64))%'
            """)
        return rows.map { $0.map { $0.joined(separator: " ") }.joined(separator: "; ") } ?? "not to be had"
    }

    /// `Storm.content` of a manifest in hexadecimal (docs/FORMAT.md: hash and length for each chunk). Where 4 MiB have several chunks, or end with a
    /// hole, their bytes tell.
    private func content(_ manifest: String) throws -> String {
        var stretches: [[ChunkReference]] = [], at = 0
        for start in stride(from: 0, to: manifest.utf8.count / 72 * 72, by: 72) {
            let hash = try #require(ChunkHash(String(manifest.dropFirst(start).prefix(64))))
            let length = try #require(UInt32(manifest.dropFirst(start + 64).prefix(8), radix: 16)).byteSwapped
            if at.isMultiple(of: 4 << 20) { stretches.append([]) }
            stretches[stretches.count - 1].append(ChunkReference(hash: hash, length: length))
            at += Int(length)
        }
        return try stretches.map { try $0.count == 1 && !$0[0].isHole ? $0[0].hash.description : hash(of: $0) }.joined(separator: "+")
    }

    private static let hashes = Mutex<[[ChunkReference]: String]>([:])

    private func hash(of chunks: [ChunkReference]) throws -> String {
        if let known = Self.hashes.withLock({ $0[chunks] }) { return known }
        let names = chunks.map { "x'\($0.hash)'" }.joined(separator: ",")
        let rows = try query("SELECT hash, object, byte_offset FROM chunks WHERE hash IN (\(names))")
        let places = Dictionary(rows.map { ($0[0], (object: $0[1], offset: Int($0[2])!)) }, uniquingKeysWith: { first, _ in first })
        var bytes: [UInt8] = []
        for chunk in chunks {
            var part = [UInt8](repeating: 0, count: Int(chunk.length))
            defer { bytes += part }
            guard !chunk.isHole else { continue }
            let place = try #require(places[chunk.hash.description]), file = open("\(root)/data/objects/\(place.object.suffix(2))/\(place.object)", O_RDONLY)
            defer { close(file) }
            try #require(pread(file, &part, part.count, off_t(place.offset)) == part.count && SHA256.hash(part) == chunk.hash)
        }
        let hash = SHA256.hash(bytes).description
        Self.hashes.withLock { $0[chunks] = hash }
        return hash
    }

    /// Rows in one transaction; blobs in hexadecimal, NULL as nothing.
    func query(_ sql: String) throws -> [[String]] {
        let program = """
            import sqlite3, sys
            for row in sqlite3.connect(sys.argv[1], timeout=20).execute(sys.argv[2]).fetchall():
                print("\\t".join("" if x is None else x.hex() if isinstance(x, bytes) else str(x) for x in row))
            """
        let answer = try run("python3", ["-c", program, root + "/data/boxfs.db", sql])
        try #require(answer.status == 0, "\(answer.output)")
        return answer.output.split(separator: "\n").map { $0.split(separator: "\t", omittingEmptySubsequences: false).map(String.init) }
    }
}

/// What went wrong, collected from several threads: issues belong to the test's own task.
final class Problems: @unchecked Sendable {     // guarded by `lock`
    private let lock = NSLock()
    private var found: [String] = []

    var all: [String] { lock.withLock { found } }

    func expect(_ isRight: Bool, _ what: @autoclosure () -> String = "is not so", line: Int = #line) {
        guard !isRight else { return }
        let text = "line \(line): \(what())"
        lock.withLock { if found.count < 50 { found.append(text) } }
    }

    /// What a machine gets more than a call needs, in seconds: under load, as much more as there are programs for each processor.
    static var allowance: Double {
        let load = (try? String(contentsOfFile: "/proc/loadavg", encoding: .utf8))?.split(separator: " ").first.flatMap { Double($0) } ?? 0
        return max(1, load / Double(ProcessInfo.processInfo.activeProcessorCount))
    }

    /// Makes a call that may take so long, in seconds, and `allowance`.
    @discardableResult
    func within<T>(_ seconds: Double, _ what: String, line: Int = #line, _ call: () throws -> T) rethrows -> T {
        let start = Date()
        let result = try call()
        let taken = Date().timeIntervalSince(start)
        expect(taken < seconds + Self.allowance, "\(what) took \(taken) s", line: line)
        return result
    }

    func report() { for problem in all { Issue.record("\(problem)") } }
}

/// Makes trouble on a thread of its own until it is told to stop; then all is whole again, but for mounts that were killed.
final class Trouble: @unchecked Sendable {      // `isOver` is guarded by `lock`; all else belongs to the thread
    private let drive: Drive
    private let proxies: [FaultProxy]
    private let kill: ((inout SeededGenerator) -> Void)?
    private var random: SeededGenerator
    private let lock = NSLock()
    private var isOver = false
    private let done = DispatchSemaphore(value: 0)
    private(set) var counts: [String: Int] = [:]

    /// - Parameter kill: ends a mount with SIGKILL; nil if mounts are to live.
    init(_ drive: Drive, _ proxies: [FaultProxy], _ random: inout SeededGenerator, kill: ((inout SeededGenerator) -> Void)? = nil) {
        (self.drive, self.proxies, self.kill, self.random) = (drive, proxies, kill, random)
        _ = random.next()
        Thread.detachNewThread { [self] in
            while !lock.withLock({ isOver }) {
                pause(0.05...0.5)
                makeTrouble()
            }
            done.signal()
        }
    }

    func stop() {
        lock.withLock { isOver = true }
        done.wait()
    }

    private func pause(_ seconds: ClosedRange<Double>) { usleep(UInt32(Double.random(in: seconds, using: &random) * 1e6)) }

    private func makeTrouble() {
        let kinds = ["network", "network", "network", "server killed", "server stopped"] + (kill == nil ? [] : ["mount killed", "mount killed"])
        let kind = kinds.randomElement(using: &random)!
        counts[kind, default: 0] += 1
        switch kind {
        case "server killed":
            drive.stopServer(SIGKILL)
            pause(0...0.4)
            do { try drive.startServer() } catch { counts["server did not start", default: 0] += 1 }
        case "server stopped":
            drive.signalServer(SIGSTOP)
            pause(0.05...1)
            drive.signalServer(SIGCONT)
        case "mount killed": kill?(&random)
        default:
            let hit = proxies.filter { _ in Bool.random(using: &random) }
            for proxy in hit { proxy.fault = fault() }
            pause(0.1...1.5)
            for proxy in hit { proxy.fault = .none }
        }
    }

    private func fault() -> Fault {
        let bytes = Int.random(in: 1...20_000, using: &random)
        return [
            .silent, .blackHole, .refuse, .cut(afterBytes: bytes), .truncate(afterBytes: bytes), .corrupt(everyBytes: bytes),
            .throttle(bytesPerSecond: 2_000 + bytes * 10), .delay(seconds: Double(bytes) / 2e5),
        ].randomElement(using: &random)!
    }
}
