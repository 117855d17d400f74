import ArgumentParser
import Foundation
import Shared

struct UndoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "undo",
        abstract: "Take back a mass change: many files that one device removed or rewrote in a short time.",
        discussion: """
            `boxfs undo list` lists them, `boxfs undo ID` takes one back whole. What others changed since stays as it is, and is said. \
            ID may be the end of an identifier (at least 4 digits), or `last`.
            """)

    @Argument(help: "list, last, or the identifier of a mass change.")
    var what = "list"

    @Flag(help: "Print the list as JSON.")
    var json = false

    @OptionGroup var account: AccountOption

    func run() throws {
        let (server, namespace) = try account.open()
        let events = try server.ask { remote async throws(RemoteError) in try await remote.massChanges(namespace) }
        guard what != "list" else {
            if json { return Terminal.say(try JSONText.encode(events)) }
            for event in events { Terminal.say(Self.line(event)) }
            return
        }
        let found = what == "last" ? Array(events.filter { $0.undone == nil }.prefix(1))
            : events.filter { $0.id.description == what.lowercased() || what.utf8.count >= 4 && $0.id.description.hasSuffix(what.lowercased()) }
        guard found.count == 1 else {
            throw CommandFailure(found.isEmpty ? "There is no mass change \(what). boxfs undo list lists them." : "\(found.count) mass changes end with \(what): give more of it.")
        }
        try server.ask { remote async throws(RemoteError) in try await remote.undo(namespace, found[0].id) }.show()
    }

    static func line(_ event: MassChange) -> String { "\(event.id)  \(event.last.iso8601)  \(summary(event))" + (event.undone == nil ? "" : "  undone") }

    /// `212 files removed, 3 rewritten in photos by ada on desk`
    static func summary(_ event: MassChange) -> String {
        var parts: [String] = []
        if event.removed > 0 { parts.append("\(event.removed) files removed") }
        if event.rewritten > 0 { parts.append("\(event.rewritten)\(parts.isEmpty ? " files" : "") rewritten") }
        return parts.joined(separator: ", ") + " in \(event.path.isEmpty ? "/" : event.path) by " + (event.author.map { "\($0) on " } ?? "") + event.device
    }
}
