import ArgumentParser
import Shared

extension Role: ExpressibleByArgument {}

struct ShareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "share", abstract: "Share a folder with people who have an account on this server.",
        discussion: """
            A shared folder stays where it is; for the others it appears in the root of their trees, from where each may move and rename it. \
            Viewers read, editors change what is in it, managers invite people and make links; the one owner's quota it counts for. \
            rmdir of a shared folder answers "busy", as for a mount point: `boxfs share leave` takes it away.
            """,
        subcommands: [
            Add.self, List.self, Members.self, Accept.self, Decline.self, Leave.self, Remove.self, Transfer.self, Settings.self, GroupCommand.self,
        ])

    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Share a folder with somebody, or give another role.")
        @Argument(help: "A folder of a mount.", completion: .directory) var path: String
        @Argument(help: "An account's name; with --group a group of yours.") var name: String
        @Option(help: "viewer, editor or manager.") var role: Role
        @Flag(help: "NAME is a group: all who are in it, now and later.") var group = false

        func validate() throws {
            if role == .owner { throw ValidationError("There is one owner: boxfs share transfer gives the folder away.") }
        }

        func run() throws {
            let place = try DrivePath(path), (name, role, group) = (name, role, group)
            try ServerAccess(place.profile).ask { remote async throws(RemoteError) in
                var namespace = place.namespace
                if namespace == place.profile.home || !place.path.isEmpty { namespace = try await remote.share(namespace, place.path).namespace }
                if group { try await remote.setGroup(namespace, name, role) } else { try await remote.setMember(namespace, name, role) }
            }
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List shared folders, and those that wait to be accepted.")
        @OptionGroup var login: LoginOption
        @Flag(help: "Print JSON.") var json = false

        func run() throws {
            let shares = try login.open().shares()
            if json { return Terminal.say(try JSONText.encode(shares)) }
            for share in shares {
                let place = share.path.map { "/" + $0 } ?? "(invited by \(share.invitedBy ?? share.owner); boxfs share accept \"\(share.owner)/\(share.name)\")"
                Terminal.say("\(share.role.rawValue)\t\(share.owner)/\(share.name)\t\(place)")
            }
        }
    }

    struct Members: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List who is in a shared folder.")
        @Argument(help: "A shared folder of a mount.", completion: .directory) var path: String
        @Flag(help: "Print JSON.") var json = false

        func run() throws {
            let (place, namespace) = try SharedPlace.find(path)
            let members = try ServerAccess(place.profile).ask { remote async throws(RemoteError) in try await remote.members(namespace) }
            if json { return Terminal.say(try JSONText.encode(members)) }
            for member in members {
                let groups = member.groups.isEmpty ? "" : "\tthrough " + member.groups.joined(separator: ", ")
                Terminal.say("\(member.role.rawValue)\t\(member.account)\(member.invited ? "\tinvited" : "")\(groups)")
            }
        }
    }

    struct Accept: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Accept an invitation.")
        @Argument(help: "The folder's name, or OWNER/NAME, as the list shows it.") var name: String
        @Option(help: ArgumentHelp("Where it is to stand: from the root of your tree.", valueName: "path")) var at: String?
        @OptionGroup var login: LoginOption

        func run() throws {
            let server = try login.open(), namespace = try SharedPlace.invitation(name, server), at = at
            let share = try server.ask { remote async throws(RemoteError) in try await remote.accept(namespace, at: at) }
            Terminal.say("/" + (share.path ?? share.name))
        }
    }

    struct Decline: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Decline an invitation.")
        @Argument(help: "The folder's name, or OWNER/NAME, as the list shows it.") var name: String
        @OptionGroup var login: LoginOption

        func run() throws {
            let server = try login.open(), namespace = try SharedPlace.invitation(name, server)
            try server.ask { remote async throws(RemoteError) in try await remote.decline(namespace) }
        }
    }

    struct Leave: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Leave a shared folder of others; it goes from your tree, and nothing in it changes.")
        @Argument(help: "A shared folder of a mount.", completion: .directory) var path: String

        func run() throws {
            let (place, namespace) = try SharedPlace.find(path)
            try ServerAccess(place.profile).ask { remote async throws(RemoteError) in try await remote.removeMember(namespace, place.profile.user) }
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Take a shared folder away from somebody, or an invitation back.")
        @Argument(help: "A shared folder of a mount.", completion: .directory) var path: String
        @Argument(help: "An account's name; with --group a group of yours.") var name: String
        @Flag(help: "NAME is a group.") var group = false

        func run() throws {
            let (place, namespace) = try SharedPlace.find(path), (name, group) = (name, group)
            try ServerAccess(place.profile).ask { remote async throws(RemoteError) in
                if group { try await remote.removeGroup(name, from: namespace) } else { try await remote.removeMember(namespace, name) }
            }
        }
    }

    struct Transfer: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make a member the owner; it counts for that account's quota then. You stay as a manager.")
        @Argument(help: "A shared folder of a mount.", completion: .directory) var path: String
        @Argument(help: "An account that is in the folder.") var name: String

        func run() throws {
            let (place, namespace) = try SharedPlace.find(path), name = name
            try ServerAccess(place.profile).ask { remote async throws(RemoteError) in try await remote.transfer(namespace, to: name) }
        }
    }

    struct Settings: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show or set whether shared folders appear without being accepted.")
        @Option(help: "yes or no.") var acceptAutomatically: YesNo?
        @OptionGroup var login: LoginOption

        func run() throws {
            let server = try login.open()
            if let wanted = acceptAutomatically {
                try server.ask { remote async throws(RemoteError) in
                    try await remote.setSharingSettings(SharingSettings(acceptsAutomatically: wanted == .yes))
                }
            }
            let settings = try server.ask { remote async throws(RemoteError) in try await remote.sharingSettings() }
            Terminal.say("accept automatically: \(settings.acceptsAutomatically ? "yes" : "no")")
        }
    }
}

enum YesNo: String, ExpressibleByArgument, CaseIterable { case yes, no }
