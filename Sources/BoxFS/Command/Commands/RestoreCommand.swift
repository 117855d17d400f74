import ArgumentParser
import Glibc
import Shared

struct RestoreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Bring back a version of a file, or a folder as it was at a time.",
        discussion: """
            A file gets the old content as a new version; with --to, a new file gets it. A folder gets back names, places and contents \
            in one step; what was not there then goes to the trash. TIME is 2026-03-01T12:00:00Z, "2026-03-01 12:00" (local time), \
            or 90s, 10m, 2h, 3d ago.
            """)

    @Argument(help: "A file or folder of a mount; it may be gone.", completion: .file())
    var path: String

    @Option(help: "The version of a file: its identifier, the end of it, or its name.")
    var version: String?

    @Option(help: ArgumentHelp("A new file for the content.", valueName: "path"), completion: .file())
    var to: String?

    @Option(help: ArgumentHelp("The time of a folder, or of a file.", valueName: "time"))
    var at: PointInTime?

    func validate() throws {
        guard (version == nil) != (at == nil) else { throw ValidationError("Give --version for a file, or --at for a folder.") }
    }

    func run() throws {
        if let at, to == nil {
            let place = try DrivePath(path, mayBeGone: true), server = ServerAccess(place.profile)
            let time = at.timestamp(now: try server.serverInformation().time)
            var status = stat()
            if stat(path, &status) != 0 || status.st_mode & S_IFMT == S_IFDIR {
                return try server.ask { remote async throws(RemoteError) in
                    try await remote.restoreFolder(place.namespace, FolderRestoreRequest(path: place.path, at: time))
                }.show()
            }
        }
        let history = try FileHistory(path), namespace = history.namespace
        let chosen: VersionInformation
        if let version { chosen = try history.version(version) } else {
            let time = at!.timestamp(now: try history.server.serverInformation().time)
            guard let found = history.versions.first(where: { $0.created <= time }) else { throw CommandFailure("\(path) has no version of that time or before.") }
            chosen = found
        }
        let place = try to.map { try DrivePath($0, mayBeGone: true) }
        guard place == nil || place?.namespace == namespace else {
            throw CommandFailure("\(to!) lies in another shared folder, or outside of this one: restore it here and copy it.")
        }
        let target = place?.path
        try history.server.ask { remote async throws(RemoteError) in try await remote.restoreVersion(namespace, chosen.id, to: target) }.show()
    }
}

extension RestoreAnswer {
    /// What was done on standard output, what a person should know on standard error.
    func show() {
        for note in notes { Terminal.complain(note) }
        var parts = ["\(files) \(files == 1 ? "file" : "files") restored"]
        if removed > 0 { parts.append("\(removed) moved to the trash") }
        Terminal.say(parts.joined(separator: ", ") + (path.map { ": \($0.isEmpty ? "/" : $0)" } ?? ""))
    }
}
