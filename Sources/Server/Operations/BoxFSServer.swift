import ArgumentParser
import Foundation
import Shared

@main
struct BoxFSServer: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "boxfs-server",
        abstract: "The server of BoxFS, a cloud drive that you host yourself.",
        discussion: """
            One process, one folder, no configuration: `boxfs-server serve --data DIR`. Accounts are made beside it with
            `boxfs-server user add NAME --password-stdin --data DIR`; people then `boxfs login` and `boxfs mount`.

            Exit codes: 0 done; 1 fsck found problems; 64 the command line makes no sense or the command was refused.
            """,
        version: boxfsVersion,
        subcommands: [Serve.self, User.self, Token.self, Audit.self, Fsck.self, CollectGarbage.self])
}

struct User: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Adds, lists and changes accounts; also while the server runs.",
        subcommands: [Add.self, List.self, Disable.self, Enable.self, SetPassword.self, SetQuota.self])

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Adds an account with an empty tree.")
        @Argument(help: "The name to log in with.") var name: String
        @Flag(help: "Reads the password from standard input, one line. Required: a password on a command line can be seen by others.")
        var passwordStdin = false
        @Option(help: "What the account may store: 10GiB, 500MB. No limit if not given.") var quota: ByteSize?
        @OptionGroup var folder: DataFolder

        func run() async throws {
            guard passwordStdin else { throw ValidationError("Give the password on standard input, with --password-stdin.") }
            let password = try readPassword()
            try await administer { try await folder.open().addAccount(name, password: password, quota: quota?.bytes) }
            print("Account \(name) added.")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists accounts with what they store.")
        @Flag(help: "As JSON.") var json = false
        @OptionGroup var folder: DataFolder

        func run() async throws {
            let accounts = try await administer { try await folder.open().accounts() }
            if json { return print(String(decoding: try JSONEncoder().encode(accounts), as: UTF8.self)) }
            for account in accounts {
                let quota = account.quota.map { " of \($0)" } ?? ""
                print("\(account.name)\t\(account.used)\(quota) bytes\t\(account.devices) devices\(account.disabled ? "\tdisabled" : "")")
            }
        }
    }

    struct Disable: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Ends all sessions of an account and refuses new ones; its files stay.")
        @Argument var name: String
        @OptionGroup var folder: DataFolder
        func run() async throws { try await administer { try await folder.open().setDisabled(name, true) } }
    }

    struct Enable: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Takes `disable` back.")
        @Argument var name: String
        @OptionGroup var folder: DataFolder
        func run() async throws { try await administer { try await folder.open().setDisabled(name, false) } }
    }

    struct SetPassword: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Sets a password and ends all sessions of the account.")
        @Argument var name: String
        @Flag(help: "Reads the password from standard input, one line. Required.") var passwordStdin = false
        @OptionGroup var folder: DataFolder

        func run() async throws {
            guard passwordStdin else { throw ValidationError("Give the password on standard input, with --password-stdin.") }
            let password = try readPassword()
            try await administer { try await folder.open().setPassword(name, password) }
        }
    }

    struct SetQuota: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Sets what an account may store.")
        @Argument var name: String
        @Argument(help: "10GiB, 500MB, or none.") var size: String
        @OptionGroup var folder: DataFolder

        func run() async throws {
            let quota = ByteSize(argument: size)?.bytes
            guard quota != nil || size == "none" else { throw ValidationError("\(size) is no size. Say 10GiB, 500MB or none.") }
            try await administer { try await folder.open().setQuota(name, quota) }
        }
    }
}

struct Token: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Lists and revokes the devices that an account logged in with.", subcommands: [List.self, Revoke.self])

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists an account's devices.")
        @Argument var name: String
        @OptionGroup var folder: DataFolder
        func run() async throws {
            for device in try await administer({ try await folder.open().devices(of: name) }) {
                print("\(device.id)\t\(device.name)\t\(Date(timeIntervalSince1970: Double(device.created.nanoseconds) / 1e9).ISO8601Format())")
            }
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Ends a device's session within seconds.")
        @Argument var name: String
        @Argument(help: "The identifier that `token list` shows.") var device: String
        @OptionGroup var folder: DataFolder
        func run() async throws {
            guard let id = DeviceID(device) else { throw ValidationError("\(device) is no identifier.") }
            try await administer { try await folder.open().revokeDevice(of: name, id) }
        }
    }
}

struct Fsck: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Proves counts, references and the tree; changes nothing. Exit code 1 if anything is wrong.")
    @Flag(help: "Also reads every chunk and checks its SHA-256.") var bytes = false
    @Flag(help: "As JSON.") var json = false
    @OptionGroup var folder: DataFolder

    func run() async throws {
        let report = try await administer { try await folder.open().fsck(checkBytes: bytes) }
        if json {
            print(String(decoding: try JSONEncoder().encode(report), as: UTF8.self))
        } else {
            for problem in report.problems { print(problem) }
            print("\(report.nodes) nodes, \(report.versions) versions, \(report.chunks) chunks (\(report.chunkBytes) bytes), \(report.objects) objects: "
                + (report.problems.isEmpty ? "clean" : "\(report.problems.count) problems"))
        }
        if !report.problems.isEmpty { throw ExitCode(1) }
    }
}

struct CollectGarbage: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "gc", abstract: "Drops versions and trash whose time is over, and frees what no version refers to and no live upload leases; also while the server runs.")
    @Option(help: "Leaves alone what is younger, in seconds.") var grace: Int64 = 3600
    @OptionGroup var folder: DataFolder

    func run() async throws {
        let thinned = try await administer { try await folder.open().thin() }
        print("\(thinned.versions) versions and \(thinned.purged) things of the trash dropped.")
        let report = try await administer { try await folder.open().collectGarbage(graceSeconds: grace, pauseSeconds: min(grace, 30)) }
        print("\(report.uploads) uploads, \(report.pages) pages, \(report.chunks) chunks, \(report.objects) objects (\(report.bytes) bytes) freed, \(report.compacted) objects written anew without what was dead in them.")
    }
}
