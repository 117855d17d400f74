import ArgumentParser
import CLinux
import Glibc

/// `boxfs`: the command line. Each command is a file of Commands/.
@main
struct BoxFSCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "boxfs",
        abstract: "A cloud drive that you host yourself, as an ordinary folder.",
        discussion: """
            First time:  boxfs login https://drive.example.org --user ada
                         mkdir -p ~/Box && boxfs mount ~/Box
            How is it?   boxfs status        What is wrong?  boxfs doctor
            Take back:   boxfs history FILE, boxfs restore, boxfs trash, boxfs undo
            The end:     boxfs umount ~/Box

            Exit status: 0 done, 1 failed, 3 not mounted, 4 server unreachable, 5 timed out with changes left, \
            6 in use, 7 not logged in, 64 wrong arguments.
            """,
        version: "boxfs \(BoxFSVersion.text)",
        subcommands: [
            LoginCommand.self, LogoutCommand.self, MountCommand.self, UmountCommand.self, StatusCommand.self,
            FlushCommand.self, CacheCommand.self, StatsCommand.self, TraceCommand.self, WhyCommand.self,
            HistoryCommand.self, CatCommand.self, DiffCommand.self, RestoreCommand.self, TrashCommand.self, UndoCommand.self,
            ConflictsCommand.self, ResolveCommand.self, SettingsCommand.self,
            ShareCommand.self, LinkCommand.self, AuditCommand.self, DoctorCommand.self, CompletionsCommand.self,
        ])

    static func main() {
        // A reader that went away (`boxfs status | head -1`) is an error of write(2), not the end of a mount.
        signal(SIGPIPE, SIG_IGN)
        linux_limit_heaps(2)    // before there are threads: a quarter less memory for 100,000 files, and nobody waits for it (docs/PERFORMANCE.md)
        do {
            var command = try parseAsRoot()
            try command.run()
            end(.success)
        } catch let failure as CommandFailure {
            Terminal.complain(failure.description)
            end(failure.status)
        } catch {
            exit(withError: error)
        }
    }

    /// Ends the process without exit(3)'s handlers and destructors: those of OpenSSL, SQLite and the Swift runtime take things away that
    /// transfer and pool threads still hold, and one run in twenty-five died of it (SIGABRT, double free).
    private static func end(_ status: ExitStatus) -> Never {
        fflush(nil)
        _exit(status.rawValue)
    }
}

enum BoxFSVersion {
    static let text = "0.1.0"
}
