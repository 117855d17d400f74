import ArgumentParser
import Foundation
import Shared

struct Audit: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Shows who did what, newest first; also while the server runs.")

    @Option(help: "Only what this account did.") var user: String?
    @Option(help: "Only this kind: login, created, edited, removed, link-downloaded …") var action: String?
    @Option(help: "Only within the last time: 90s, 30m, 12h, 7d, 2w.") var since: Lifetime?
    @Option(help: "Only before the last time.") var until: Lifetime?
    @Option(help: "How many lines at most.") var limit = 1000
    @Flag(help: "As JSON.") var json = false
    @Flag(help: "As CSV (RFC 4180).") var csv = false
    @OptionGroup var folder: DataFolder

    func validate() throws {
        if json, csv { throw ValidationError("--json and --csv do not go together.") }
        if limit < 1 { throw ValidationError("--limit wants 1 or more.") }
    }

    func run() async throws {
        let now = Timestamp.now()
        func time(_ ago: Lifetime?) -> Timestamp? { ago.map { Timestamp(nanoseconds: now.nanoseconds - $0.seconds * 1_000_000_000) } }
        var filter = AuditFilter(account: user, action: action, since: time(since), until: time(until))
        var records: [AuditRecord] = []
        let drive = try folder.open()
        repeat {
            filter.limit = min(limit - records.count, Drive.maximumAuditPage)
            let wanted = filter
            let page = try await administer { try await drive.audit(wanted) }
            records += page.records
            filter.before = page.next
        } while filter.before != nil && records.count < limit
        if json { return print(String(decoding: try JSONEncoder().encode(records), as: UTF8.self)) }
        if csv { print(AuditRecord.csvHeader, terminator: "\r\n") }
        for record in records { print(csv ? record.csv : record.line, terminator: csv ? "\r\n" : "\n") }
    }
}

extension Lifetime: ExpressibleByArgument {}
