import ArgumentParser
import Foundation
import Glibc
import Shared

struct HistoryCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "history",
        abstract: "List a file's versions, newest first; name one so that it is kept for ever.",
        discussion: "Works for files that were removed as well, by the path where they were.")

    @Argument(help: "A file of a mount.", completion: .file())
    var path: String

    @Option(help: "The version to name: its identifier, the end of it, or its present name.")
    var version: String?

    @Option(help: ArgumentHelp("Gives --version this name; an empty one takes the name away.", valueName: "text"))
    var name: String?

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard (name == nil) == (version == nil) else { throw ValidationError("--version and --name go together.") }
    }

    func run() throws {
        let history = try FileHistory(path)
        if let name, let version {
            let (namespace, id) = (history.namespace, try history.version(version).id)
            return try history.server.ask { remote async throws(RemoteError) in try await remote.nameVersion(namespace, id, name.isEmpty ? nil : name) }
        }
        if json { return Terminal.say(try JSONText.encode(history.versions)) }
        if history.isDeleted { Terminal.complain("\(path) is in the trash.") }
        for version in history.versions { Terminal.say(Self.line(version)) }
    }

    /// Identifier, time, size, who and where, and what else is to be said.
    static func line(_ version: VersionInformation) -> String {
        var more = version.current ? ["current"] : []
        switch version.kind {
        case .write: break
        case .merge: more.append("merge of " + version.parents.map { String($0.description.suffix(12)) }.joined(separator: " and "))
        case .restore: more.append("restored from " + (version.parents.last.map { String($0.description.suffix(12)) } ?? "an older one"))
        }
        if let name = version.name { more.append("\"\(name)\"") }
        let who = (version.author.map { "\($0) on " } ?? "") + version.device
        return "\(version.id)  \(version.created.iso8601)  \(ByteCount(bytes: version.size))  \(who)" + (more.isEmpty ? "" : "  " + more.joined(separator: ", "))
    }
}

struct CatCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "cat", abstract: "Write a version of a file to standard output.")

    @Argument(help: "A file of a mount.", completion: .file())
    var path: String

    @Option(help: "The version: its identifier, the end of it, or its name. [default: the newest]")
    var version: String?

    func run() throws {
        let history = try FileHistory(path)
        guard let chosen = try version.map({ try history.version($0) }) ?? history.versions.first else { return }   // an empty file has none
        try history.write(chosen, to: STDOUT_FILENO)
    }
}

struct DiffCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff",
        abstract: "Show what changed in a file since a version, by diff(1).",
        discussion: "Exit status as diff(1): 0 no difference, 1 differences, 2 trouble. Of binary files it says only that they differ.")

    @Argument(help: "A file of a mount.", completion: .file())
    var path: String

    @Option(help: "The older side: a version's identifier, the end of it, or its name. [default: the one before the newest]")
    var version: String?

    @Option(help: ArgumentHelp("The newer side.", valueName: "version"))
    var to: String?

    func run() throws {
        let history = try FileHistory(path)
        let folder = NSTemporaryDirectory() + "/boxfs-diff-\(UUID().uuidString)"
        guard mkdir(folder, 0o700) == 0 else { throw CommandFailure("No temporary folder can be made: \(systemError()).") }
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let newer = try to.map { try history.version($0) } ?? history.versions.first
        guard let older = try version.map({ try history.version($0) }) ?? history.versions.dropFirst().first ?? newer, let newer else {
            throw CommandFailure("\(path) has no versions.")
        }
        var arguments = ["-u"]
        for (name, side) in [("old", older), ("new", newer)] {
            let file = open("\(folder)/\(name)", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
            guard file >= 0 else { throw CommandFailure("A temporary file cannot be made: \(systemError()).") }
            defer { close(file) }
            try history.write(side, to: file)
            arguments += ["--label", "\(history.place.path)\t\(side.created.iso8601) \(side.id)"]
        }
        let status = try run(arguments + ["old", "new"], in: folder)
        throw ExitCode(status)
    }

    private func run(_ arguments: [String], in folder: String) throws -> Int32 {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["diff"] + arguments
        process.currentDirectoryURL = URL(fileURLWithPath: folder)
        do { try process.run() } catch { throw CommandFailure("diff(1) cannot be started: \(error.localizedDescription)") }
        process.waitUntilExit()
        return process.terminationStatus
    }
}
