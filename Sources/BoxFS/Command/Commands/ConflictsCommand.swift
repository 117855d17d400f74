import ArgumentParser
import Foundation
import Shared

struct ConflictsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "conflicts", abstract: "List conflicted copies that nobody has decided about.",
        discussion: "boxfs resolve decides. Removing or renaming the copy yourself decides as well.")

    @Flag(help: "Print JSON.") var json = false
    @OptionGroup var account: AccountOption

    func run() throws {
        let (server, namespace) = try account.open()
        let conflicts = try server.ask { remote async throws(RemoteError) in
            try await remote.account().home == namespace ? try await remote.conflicts(home: namespace) : try await remote.conflicts(namespace)
        }
        if json { return Terminal.say(try JSONText.encode(conflicts)) }
        for conflict in conflicts {
            Terminal.say("\(conflict.path)\n  copy    \(conflict.copy)\n  of      \(conflict.device)\(conflict.mine ? " (mine)" : ""), \(conflict.created.iso8601)")
        }
    }
}

extension ResolveRequest.Side: ExpressibleByArgument {}

struct ResolveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resolve", abstract: "Decide about a conflicted copy.",
        discussion: """
            `mine` is the copy on the device whose change became the copy (conflicts says "mine"), and elsewhere the file under its own name; \
            `theirs` is the other. What is kept stands under the file's name; the copy goes to the trash. `both` keeps both files as they are.
            """)

    @Argument(help: "The file or its copy.", completion: .file()) var path: String
    @Option(help: "mine, theirs or both.") var keep: ResolveRequest.Side

    func run() throws {
        let place = try DrivePath(path), request = ResolveRequest(path: place.path, keep: keep)
        let answer = try ServerAccess(place.profile).ask { remote async throws(RemoteError) in try await remote.resolve(place.namespace, request) }
        for note in answer.notes { Terminal.complain(note) }
        Terminal.say("Resolved: \(answer.path ?? place.path)")
    }
}
