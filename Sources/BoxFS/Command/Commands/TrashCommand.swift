import ArgumentParser
import Foundation
import Shared

struct TrashCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trash", abstract: "What was removed: list it, bring it back, drop it for good.",
        subcommands: [List.self, Restore.self, Purge.self])

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list", abstract: "List what is in the trash, what was removed last first.",
            discussion: "A folder stands for what was removed with it; --all lists that as well.")

        @Flag(help: "Also what lies in removed folders.") var all = false
        @Flag(help: "Print JSON; always with --all.") var json = false
        @OptionGroup var account: AccountOption

        func run() throws {
            let (server, namespace) = try account.open()
            let items = try server.ask { remote async throws(RemoteError) in
                var items: [TrashItem] = [], after: String?
                repeat {
                    let page = try await remote.trash(namespace, after: after)
                    items += page.items
                    after = page.next
                } while after != nil
                return items
            }
            if json { return Terminal.say(try JSONText.encode(items)) }
            for item in items where all || !item.parentDeleted {
                let size = item.directory ? "folder" : ByteCount(bytes: item.size).description
                Terminal.say("\(item.node)  \(item.deleted.iso8601)  \(size)  \(item.path)\(item.directory ? "/" : "")")
            }
        }
    }

    /// What a person names: the identifier that `trash list` shows, a path from the root of the drive, or a path of a mount, which says itself
    /// in whose trash it is.
    static func request(_ text: String, _ account: (server: ServerAccess, namespace: NamespaceID)) -> (server: ServerAccess, namespace: NamespaceID, TrashRequest) {
        if let node = NodeID(text) { return (account.server, account.namespace, TrashRequest(node: node)) }
        if let place = try? DrivePath(text, mayBeGone: true) { return (ServerAccess(place.profile), place.namespace, TrashRequest(path: place.path)) }
        return (account.server, account.namespace, TrashRequest(path: text))
    }

    struct Restore: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "restore", abstract: "Bring something back to where it was, a folder with what was removed with it.",
            discussion: "Folders above it come back as well if they are gone; a name that is taken gets \"(restored)\".")

        @Argument(help: "The identifier that trash list shows, or the path where it was.") var what: [String]
        @OptionGroup var account: AccountOption

        func run() throws {
            let account = try account.open()
            for (server, namespace, request) in what.map({ TrashCommand.request($0, account) }) {
                try server.ask { remote async throws(RemoteError) in try await remote.restoreTrash(namespace, request) }.show()
            }
        }
    }

    struct Purge: ParsableCommand {
        static let configuration = CommandConfiguration(commandName: "purge", abstract: "Drop something in the trash for good, or all of it. Nothing brings it back.")

        @Argument(help: "The identifier that trash list shows, or the path where it was.") var what: [String] = []
        @Flag(help: "All that is in the trash.") var all = false
        @Option(help: ArgumentHelp("Only what was removed before; with --all.", valueName: "time")) var before: PointInTime?
        @OptionGroup var account: AccountOption

        func validate() throws {
            guard what.isEmpty == all else { throw ValidationError("Name what is to go, or say --all.") }
        }

        func run() throws {
            let (server, namespace) = try account.open()
            let time = try before.map { $0.timestamp(now: try server.serverInformation().time) }
            let requests = all ? [(server, namespace, TrashRequest(before: time))] : what.map { TrashCommand.request($0, (server, namespace)) }
            for (server, namespace, request) in requests {
                let answer = try server.ask { remote async throws(RemoteError) in try await remote.purgeTrash(namespace, request) }
                Terminal.say("\(answer.files) \(answer.files == 1 ? "file" : "files") dropped, \(ByteCount(bytes: answer.bytes)) freed.")
            }
        }
    }
}
