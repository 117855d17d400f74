import ArgumentParser
import Glibc
import Shared

struct AuditCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit", abstract: "Show who did what to your files, newest first.",
        discussion: "With PATH: to this file, or this folder and all below it. For the owner of the files.")

    @Argument(help: "A file or folder of a mount; all files if not given.", completion: .file()) var path: String?
    @Option(help: "Only what this account did.") var user: String?
    @Option(help: "Only this kind: created, edited, renamed, removed, opened, link-downloaded …") var action: String?
    @Option(help: ArgumentHelp("Only within the last time: 90s, 30m, 12h, 7d, 2w.", valueName: "time")) var since: Lifetime?
    @Option(help: ArgumentHelp("Only before the last time.", valueName: "time")) var until: Lifetime?
    @Option(help: "How many lines at most.") var limit = 1000
    @Option(help: "Which login, without PATH.") var profile = ProfileName.standard
    @Flag(help: "Print JSON.") var json = false
    @Flag(help: "Print CSV (RFC 4180).") var csv = false

    func validate() throws {
        if json, csv { throw ValidationError("--json and --csv do not go together.") }
        if limit < 1 { throw ValidationError("--limit wants 1 or more.") }
    }

    func run() throws {
        let place = try path.map { path throws(CommandFailure) in try DrivePath(path) }
        let profile = try place?.profile ?? Profile.load(profile)
        let now = Timestamp.now().nanoseconds
        var filter: [(String, String)] = []
        if let place { filter.append(("path", place.path)) }
        if let user { filter.append(("account", user)) }
        if let action { filter.append(("action", action)) }
        if let since { filter.append(("since", String(now - since.seconds * 1_000_000_000))) }
        if let until { filter.append(("until", String(now - until.seconds * 1_000_000_000))) }
        let records = try fetch(ServerAccess(profile), place?.namespace ?? profile.home, filter)
        if json { return Terminal.say(try JSONText.encode(records)) }
        if csv { return Terminal.write(([AuditRecord.csvHeader] + records.map(\.csv)).map { $0 + "\r\n" }.joined(), to: STDOUT_FILENO) }
        for record in records { Terminal.say(record.line) }
    }

    private func fetch(_ server: ServerAccess, _ namespace: NamespaceID, _ filter: [(String, String)]) throws(CommandFailure) -> [AuditRecord] {
        var records: [AuditRecord] = [], next: Identifier<AuditTag>?
        repeat {
            let page = try server.audit(namespace, filter + [("limit", String(min(limit - records.count, 5000)))] + (next.map { [("before", $0.description)] } ?? []))
            records += page.records
            next = page.next
        } while next != nil && records.count < limit
        return records
    }
}

extension Lifetime: ExpressibleByArgument {}
