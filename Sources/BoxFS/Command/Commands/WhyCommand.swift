import ArgumentParser
import Foundation
import Shared

struct WhyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "why",
        abstract: "Why a file was slow: what its last open, read and write waited for, and what of it is on this machine.",
        discussion: """
            The mount remembers the last open, read and write of some thousand files. Times count from a request's arrival in the mount process; \
            how long it lay in the kernel before that, the kernel does not tell. What the kernel answered from its own caches never arrived.
            """)

    @Argument(help: "A file or folder of a mount.", completion: .file())
    var path: String

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let resolved = try AbsolutePath.resolve(path)
        let (mount, record) = try MountRegistry().find(resolved, in: MountTable.current())
        guard case .explanation(let explanation) = try ControlClient(record: record).ask(.explain(path: mount.relative(resolved) ?? ""), timeoutSeconds: 10) else {
            throw CommandFailure("The mount of \(record.mountPoint) gave no explanation.")
        }
        let report = ExplanationReport(explanation)
        Terminal.say(json ? try JSONText.encode(report) : report.lines(path).joined(separator: "\n"))
    }
}

/// `why --json`.
struct ExplanationReport: Encodable, Sendable {
    struct Amount: Encodable, Sendable { var count: Int, bytes: UInt64 }

    var path: String
    var inode: UInt64
    var size: UInt64
    var state: String
    var version: String?
    var hasWaitingChange: Bool
    var chunksHere, chunksOnServer, written: Amount
    var isManifestAbsent: Bool
    var isListed: Bool?
    var open, read, write: TraceLine?

    init(_ explanation: FileExplanation) {
        (path, inode, size, state) = (explanation.path, explanation.inode, explanation.size, explanation.state)
        (version, hasWaitingChange) = (explanation.version, explanation.hasWaitingChange)
        func amount(_ amount: FileExplanation.Amount) -> Amount { Amount(count: amount.count, bytes: amount.bytes) }
        (chunksHere, chunksOnServer, written) = (amount(explanation.here), amount(explanation.onServer), amount(explanation.written))
        (isManifestAbsent, isListed) = (explanation.isManifestAbsent, explanation.isListed)
        (open, read, write) = (explanation.open.map(TraceLine.init), explanation.read.map(TraceLine.init), explanation.write.map(TraceLine.init))
    }
}

// For people.
extension ExplanationReport {
    private static let states = [
        "memory": "changed; in this machine's memory", "local": "changed; on this machine, waits to be sent", "uploading": "changed; is being sent",
        "server": "all is on the server",
    ]

    func lines(_ name: String) -> [String] {
        var lines = [name]
        func field(_ name: String, _ text: String) { lines.append("  " + name.padding(toLength: 9, withPad: " ", startingAt: 0) + text) }
        field("state", "\(state): \(Self.states[state] ?? "")")
        if let version { field("version", version) }
        if hasWaitingChange { field("waiting", "a change of another device is taken once the server has answered ours") }
        if let isListed { field("entries", isListed ? "all known here" : "not known here yet") } else { contentLines(field) }
        for (name, line) in [("open", open), ("read", read), ("write", write)] {
            guard let line else {
                if isListed == nil { field(name, "none that is remembered") }
                continue
            }
            requestLines(name, line, field)
        }
        return lines
    }

    private func contentLines(_ field: (String, String) -> Void) {
        func text(_ amount: Amount) -> String { "\(amount.count) (\(ByteCount(bytes: amount.bytes)))" }
        if isManifestAbsent { return field("chunks", "which they are is known to the server only, \(ByteCount(bytes: size))") }
        var parts = ["\(text(chunksHere)) on this machine"]
        if chunksOnServer.count > 0 { parts.append("\(text(chunksOnServer)) on the server only") }
        if written.count > 0 { parts.append("\(text(written)) written and not sealed") }
        field("chunks", parts.joined(separator: ", "))
    }

    private func requestLines(_ name: String, _ line: TraceLine, _ field: (String, String) -> Void) {
        let place = line.offset.map { ", \(line.length ?? 0) bytes at \($0)" } ?? ""
        let result = line.error ?? line.amount.map { "\($0) bytes" } ?? "ok"
        field(name, "\(TraceLine.clock(line.time)) by \(line.caller)\(place): \(result) after \(durationText(nanoseconds: UInt64(line.milliseconds * 1e6)))")
        let waited = line.waited.sorted { $0.milliseconds > $1.milliseconds }
        if waited.isEmpty { field("", "waited for nothing") }
        for wait in waited.prefix(12) { field("", wait.explanation) }
        if waited.count > 12 { field("", "and \(waited.count - 12) more; --json shows all") }
    }
}

extension TraceLine.Waited {
    /// In words.
    var explanation: String {
        let time = durationText(nanoseconds: UInt64(milliseconds * 1e6)), end = failed == true ? ", which did not come" : ""
        let size = bytes.map { " of \(ByteCount(bytes: $0))" } ?? ""
        return switch cause {
        case "lock": "\(time) for another request's lock"
        case "log": "\(time) for the log of changes (SQLite)"
        case "disk": "\(time) for this machine's disk"
        case "chunk": "\(time) for the network: chunk \(chunk ?? "")\(size)\(end)"
        case "directory": "\(time) for the network: a folder's entries\(end)"
        case "manifest": "\(time) for the network: the list of the file's chunks\(end)"
        case "room": "\(time) for room in the cache, which unsent data fill\(end)"
        case "server": "\(time) for the server to have the data\(end)"
        default: "\(time) for \(cause)\(end)"
        }
    }
}
