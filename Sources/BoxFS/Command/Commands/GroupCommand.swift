import ArgumentParser
import Shared

/// `boxfs share group`: people whom one account invites together.
struct GroupCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "group", abstract: "Groups of people, for `boxfs share add --group`. They are yours alone to see.",
        subcommands: [List.self, Create.self, Delete.self, Add.self, Remove.self])

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List your groups.")
        @OptionGroup var login: LoginOption
        @Flag(help: "Print JSON.") var json = false

        func run() throws {
            let groups = try login.open().ask { remote async throws(RemoteError) in try await remote.groups() }
            if json { return Terminal.say(try JSONText.encode(groups)) }
            for group in groups { Terminal.say("\(group.name)\t\(group.members.joined(separator: ", "))") }
        }
    }

    struct Create: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make a group.")
        @Argument(help: "Its name.") var group: String
        @Argument(help: "Accounts that are in it from the start.") var accounts: [String] = []
        @OptionGroup var login: LoginOption

        func run() throws {
            let (group, accounts) = (group, accounts)
            try login.open().ask { remote async throws(RemoteError) in
                try await remote.addGroup(group)
                for account in accounts { try await remote.addToGroup(group, account) }
            }
        }
    }

    struct Delete: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Remove a group; who is in a folder through it alone leaves the folder.")
        @Argument(help: "Its name.") var group: String
        @OptionGroup var login: LoginOption

        func run() throws {
            let group = group
            try login.open().ask { remote async throws(RemoteError) in try await remote.removeGroup(group) }
        }
    }

    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Put an account into a group, and so into the group's folders.")
        @Argument(help: "The group.") var group: String
        @Argument(help: "An account's name.") var account: String
        @OptionGroup var login: LoginOption

        func run() throws {
            let (group, account) = (group, account)
            try login.open().ask { remote async throws(RemoteError) in try await remote.addToGroup(group, account) }
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Take an account out of a group.")
        @Argument(help: "The group.") var group: String
        @Argument(help: "An account's name.") var account: String
        @OptionGroup var login: LoginOption

        func run() throws {
            let (group, account) = (group, account)
            try login.open().ask { remote async throws(RemoteError) in try await remote.removeFromGroup(group, account) }
        }
    }
}
