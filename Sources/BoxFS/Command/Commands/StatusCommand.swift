import ArgumentParser
import Foundation
import Glibc
import Shared

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show how a mount is: connected or not, what waits, what is being sent.",
        discussion: """
            Without DIR: all your mounts, as a list with --json. The fields of --json are described in docs/COMMANDS.md. \
            Exit status 3 when DIR is not mounted or its process does not answer.
            """)

    @Argument(help: "The mount, or anything in it.", completion: .directory)
    var dir: String?

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let table = try MountTable.current()
        if let dir {
            let (_, record) = try MountRegistry().find(AbsolutePath.resolve(dir), in: table)
            let status = try ask(record)
            Terminal.say(json ? try Self.encode(status) : StatusText.lines(status).joined(separator: "\n"))
            return
        }
        var statuses: [MountStatus] = []
        var failed = false
        for (mount, record) in MountRegistry().all(in: table) {
            do throws(CommandFailure) {
                guard let record else { throw CommandFailure(.notMounted, "\(mount.mountPoint) is mounted, but no process answers for it. Run: boxfs umount \(mount.mountPoint)") }
                statuses.append(try ask(record))
            } catch {
                Terminal.complain(error.description)
                failed = true
            }
        }
        if json {
            Terminal.say(try Self.encode(statuses))
        } else if statuses.isEmpty, !failed {
            Terminal.say("Nothing is mounted. boxfs mount DIR mounts your files on an empty folder.")
        } else {
            Terminal.say(statuses.map { StatusText.lines($0).joined(separator: "\n") }.joined(separator: "\n\n"))
        }
        if failed { throw ExitCode(ExitStatus.notMounted.rawValue) }
    }

    private func ask(_ record: MountRecord) throws(CommandFailure) -> MountStatus {
        guard case .status(var status) = try ControlClient(record: record).ask(.status, timeoutSeconds: 10) else {
            throw CommandFailure("The mount of \(record.mountPoint) gave no status.")
        }
        if status.connected { status.massChanges = massChanges(record) }
        return status
    }

    /// nil when the server does not tell in time: the mount's own state counts more.
    private func massChanges(_ record: MountRecord) -> [MassChange]? {
        guard let name = ProfileName(record.profile), let profile = try? Profile.load(name) else { return nil }
        let day = Timestamp.now().adding(seconds: -86_400)
        return try? ServerAccess(profile).ask { remote async throws(RemoteError) in
            try await remote.massChanges(home: profile.home, role: .manager, seconds: 1).map(\.event).filter { $0.undone == nil && $0.last > day }
        }
    }

    private static func encode(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }
}

/// A mount's status for people.
enum StatusText {
    private static let pathLimit = 5, problemLimit = 3

    static func lines(_ status: MountStatus) -> [String] {
        var lines = [status.mountPoint]
        func field(_ name: String, _ text: String) { lines.append("  " + name.padding(toLength: 10, withPad: " ", startingAt: 0) + text) }
        field("server", "\(status.server) as \(status.account), " + (status.connected ? "connected" : "not connected" + (status.lastError.map { " (\($0))" } ?? "")))
        if let stopped = status.stopped { field("STOPPED", stopped) }
        if status.pendingChanges == 0, status.pendingBytes == 0 {
            field("pending", "nothing: all is on the server")
        } else {
            let changes = status.pendingChanges == 1 ? "1 change" : "\(status.pendingChanges) changes"
            field("pending", "\(changes), \(ByteCount(bytes: status.pendingBytes))")
        }
        field("rates", "up \(ByteCount.rate(status.uploadBytesPerSecond)), down \(ByteCount.rate(status.downloadBytesPerSecond))")
        let unsent = status.unsentBytes > 0 ? ", \(ByteCount(bytes: status.unsentBytes)) of it only here" : ""
        field("cache", "\(ByteCount(bytes: status.cacheUsedBytes)) of \(ByteCount(bytes: status.cacheLimitBytes))\(unsent)")
        for path in status.sending.prefix(pathLimit) { field("sending", path) }
        if status.sending.count > pathLimit { field("", "and \(status.sending.count - pathLimit) more") }
        for event in status.massChanges ?? [] {
            field("ATTENTION", "\(UndoCommand.summary(event)). If that was not meant: boxfs undo \(event.id)")
        }
        for problem in status.problems.suffix(problemLimit) { field("problem", problem) }
        if status.problems.count > problemLimit { field("", "and \(status.problems.count - problemLimit) earlier; --json shows all") }
        return lines
    }
}
