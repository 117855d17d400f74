import ArgumentParser
import Foundation
import Glibc
import Shared

struct TraceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trace",
        abstract: "Show requests as they happen: what programs ask, what they are answered, and what it waited for.",
        discussion: """
            A line for each request that was answered: time of day, duration, process, operation, path (or inode), arguments, result, and what \
            it waited for. Ends with Ctrl-C. A reader that is too slow misses some, and is told how many; programs never wait for it. What the \
            kernel answers from its own caches asks nobody, and is not shown.
            """)

    @Argument(help: "The mount, or anything in it.", completion: .directory)
    var dir: String

    @Option(help: "Only what is about this file, or about this folder and what lies below.", completion: .file())
    var path: String?

    @Option(help: ArgumentHelp("Only this operation; may be given several times.", valueName: "name"), completion: .list(RequestOperation.allCases.map(\.name)))
    var operation: [String] = []

    @Option(help: ArgumentHelp("Only what took at least so long.", valueName: "milliseconds"))
    var slow: Double?

    @Flag(help: "Print a JSON object on each line.")
    var json = false

    func validate() throws {
        for name in operation where RequestOperation(name: name) == nil {
            throw ValidationError("There is no operation \(name). They are: \(RequestOperation.allCases.map(\.name).joined(separator: ", ")).")
        }
        if let slow, !(slow >= 0 && slow < 1e9) { throw ValidationError("--slow is a number of milliseconds.") }
    }

    func run() throws {
        let (mount, record) = try MountRegistry().find(AbsolutePath.resolve(dir), in: MountTable.current())
        var filter = TraceFilter(operations: Set(operation), minimumNanoseconds: UInt64((slow ?? 0) * 1e6))
        if let path {
            guard let relative = mount.relative(try AbsolutePath.resolve(path)) else { throw CommandFailure("\(path) is not in the mount \(mount.mountPoint).") }
            filter.path = relative      // empty: all
        }
        _ = try ControlClient(record: record).ask(.trace(filter), trace: show)
    }

    private func show(_ batch: TraceBatch) {
        if batch.lost > 0 {
            if json { Terminal.say("{\"lost\":\(batch.lost)}") } else { Terminal.complain("\(batch.lost) requests lost here: they came faster than they were read.") }
        }
        for record in batch.records {
            Terminal.say(json ? (try? JSONText.line(TraceLine(record))) ?? "{}" : TraceLine(record).text)
        }
    }
}

/// `trace --json` and `why --json` of one request.
struct TraceLine: Encodable, Sendable {
    struct Waited: Encodable, Sendable {
        var cause: String
        var milliseconds: Double
        var count: Int
        var chunk: String?
        var bytes: UInt64?
        var failed: Bool?
    }

    /// Seconds since 1970.
    var time: Double
    var operation: String
    var path: String?
    var newPath: String?
    var inode: UInt64
    var offset: Int64?
    var length: Int?
    /// `ENOENT`; left out for a success.
    var error: String?
    /// Bytes read or written, entries listed.
    var amount: Int64?
    var milliseconds: Double
    var waited: [Waited]
    var process: Int32
    var program: String?

    init(_ record: RequestRecord) {
        func milliseconds(_ nanoseconds: UInt64) -> Double { Double(nanoseconds) / 1e6 }
        time = Double(record.time.nanoseconds) / 1e9
        operation = record.operation
        (path, newPath, inode) = (record.path, record.newPath, record.inode)
        (offset, length) = (record.offset, record.length)
        error = record.error == 0 ? nil : errorName(record.error)
        amount = record.amount == 0 ? nil : record.amount
        self.milliseconds = milliseconds(record.nanoseconds)
        waited = record.waits.map {
            Waited(cause: $0.cause.rawValue, milliseconds: milliseconds($0.nanoseconds), count: $0.count, chunk: $0.chunk, bytes: $0.bytes, failed: $0.failed)
        }
        (process, program) = (record.process, record.program)
    }

    /// `12:03:11.123456   24.3 ms  4711 (vim)  read        docs/a.txt offset 0 length 131072 = 5000  [chunk 1b2c3d4e… 4.9 KiB 24.1 ms]`
    var text: String {
        let place = path.map { $0.isEmpty ? "." : $0 } ?? (inode == 0 ? "" : "(inode \(inode))")
        var words = [place]
        if let newPath { words.append("to \(newPath)") }
        if let offset { words.append("offset \(offset)") }
        if let length { words.append("length \(length)") }
        words.append("= " + (error ?? amount.map { String($0) } ?? "ok"))
        if !waited.isEmpty { words.append(" [" + waited.map(\.text).joined(separator: ", ") + "]") }
        let duration = durationText(nanoseconds: UInt64(milliseconds * 1e6))
        return "\(Self.clock(time))  \(String(repeating: " ", count: max(0, 8 - duration.count)))\(duration)  \(caller)  "
            + operation.padding(toLength: max(11, operation.count), withPad: " ", startingAt: 0) + " " + words.filter { !$0.isEmpty }.joined(separator: " ")
    }

    /// `4711 (vim)`
    var caller: String { "\(process)" + (program.map { " (\($0))" } ?? "") }

    /// The local time of day, with microseconds.
    static func clock(_ time: Double) -> String {
        var seconds = time_t(time), local = tm()
        localtime_r(&seconds, &local)
        func digits(_ number: Int, _ count: Int) -> String { String(repeating: "0", count: max(0, count - String(number).count)) + String(number) }
        return "\(digits(Int(local.tm_hour), 2)):\(digits(Int(local.tm_min), 2)):\(digits(Int(local.tm_sec), 2))."
            + digits(Int((time - Double(seconds)) * 1e6), 6)
    }
}

extension TraceLine.Waited {
    var text: String {
        let what = chunk.map { "chunk \($0.prefix(8))…" } ?? cause
        let size = bytes.map { " " + ByteCount(bytes: $0).description } ?? ""
        return "\(what)\(size) \(durationText(nanoseconds: UInt64(milliseconds * 1e6)))" + (failed == true ? " failed" : "")
    }
}
