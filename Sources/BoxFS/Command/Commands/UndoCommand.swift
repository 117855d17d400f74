import ArgumentParser
import Foundation
import Shared

struct UndoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "undo",
        abstract: "Take back a mass change: many files that one device removed or rewrote in a short time.",
        discussion: """
            `boxfs undo list` lists them, those of shared folders too, `boxfs undo ID` takes one back whole. What others changed since stays as it is, and is said. \
            ID may be the end of an identifier (at least 4 digits), or `last`.
            """)

    @Argument(help: "list, last, or the identifier of a mass change.")
    var what = "list"

    @Flag(help: "Print the list as JSON.")
    var json = false

    @OptionGroup var account: AccountOption

    func run() throws {
        let (server, namespace) = try account.open()
        let changes = try server.ask { remote async throws(RemoteError) in
            if try await remote.account().home == namespace { return try await remote.massChanges(home: namespace, role: .editor) }
            return try await remote.massChanges(namespace).map { (namespace: namespace, event: $0) }
        }
        guard what != "list" else {
            if json { return Terminal.say(try JSONText.encode(changes.map(\.event))) }
            for change in changes { Terminal.say(Self.line(change.event)) }
            return
        }
        let found = what == "last" ? Array(changes.filter { $0.event.undone == nil }.prefix(1)) : changes.filter { change in
            let id = change.event.id.description
            return id == what.lowercased() || what.utf8.count >= 4 && id.hasSuffix(what.lowercased())
        }
        if what == "last", found.isEmpty { throw CommandFailure("There is no mass change to take back.") }
        guard found.count == 1 else {
            throw CommandFailure(found.isEmpty ? "There is no mass change \(what). boxfs undo list lists them." : "\(found.count) mass changes end with \(what): give more of it.")
        }
        try server.ask { remote async throws(RemoteError) in try await remote.undo(found[0].namespace, found[0].event.id) }.show()
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
