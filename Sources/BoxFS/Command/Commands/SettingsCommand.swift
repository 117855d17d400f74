import ArgumentParser
import Foundation
import Shared

struct SettingsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "settings", abstract: "Show or change how long versions and trash are kept, and when a mass change is noticed.",
        discussion: "Without an option the settings are shown. Times are 90s, 10m, 12h, 7d or 2w.")

    @Option(help: "Keep every version so long.") var keepAll: Duration?
    @Option(help: "Then keep the last version of each hour, so long.") var keepHourly: Duration?
    @Option(help: "Then keep the last version of each day, so long.") var keepDaily: Duration?
    @Option(help: "Keep the trash so long.") var keepTrash: Duration?
    @Option(help: "At most one version in this time of a file that is written again and again; 0s keeps each.") var versionEvery: Duration?
    @Option(help: "A mass change is more than so many files; 0 switches the guard off.") var guardFiles: Int64?
    @Option(help: "And more than so many percent of a folder.") var guardPercent: Int64?
    @Option(help: "In this time.") var guardTime: Duration?
    @Flag(help: "Print JSON.") var json = false
    @OptionGroup var account: AccountOption

    struct Duration: ExpressibleByArgument {
        let seconds: Int64

        init?(argument: String) {
            let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400]
            guard let unit = argument.last.flatMap({ units[$0] }), let number = Int64(argument.dropLast()), (0...1_000_000_000).contains(number) else { return nil }
            seconds = number * unit
        }
    }

    private struct Both: Codable { var account: RetentionSettings, namespace: NamespaceSettings }

    func run() throws {
        let (server, namespace) = try account.open()
        var both = try server.ask { remote async throws(RemoteError) in
            Both(account: try await remote.retention(), namespace: try await remote.namespaceSettings(namespace))
        }
        let before = both
        if let keepAll { both.account.allSeconds = keepAll.seconds }
        if let keepHourly { both.account.hourlySeconds = keepHourly.seconds }
        if let keepDaily { both.account.dailySeconds = keepDaily.seconds }
        if let keepTrash { both.account.trashSeconds = keepTrash.seconds }
        if let versionEvery { both.namespace.versionSeconds = versionEvery.seconds }
        if let guardFiles { both.namespace.guardFiles = guardFiles }
        if let guardPercent { both.namespace.guardPercent = guardPercent }
        if let guardTime { both.namespace.guardSeconds = guardTime.seconds }
        let wanted = both
        if wanted.account != before.account { try server.ask { remote async throws(RemoteError) in try await remote.setRetention(wanted.account) } }
        if wanted.namespace != before.namespace {
            try server.ask { remote async throws(RemoteError) in try await remote.setNamespaceSettings(namespace, wanted.namespace) }
        }
        if json { return Terminal.say(try JSONText.encode(wanted)) }
        Terminal.say("""
            keep-all       \(Self.text(wanted.account.allSeconds))
            keep-hourly    \(Self.text(wanted.account.hourlySeconds))
            keep-daily     \(Self.text(wanted.account.dailySeconds))
            keep-trash     \(Self.text(wanted.account.trashSeconds))
            version-every  \(Self.text(wanted.namespace.versionSeconds))
            guard-files    \(wanted.namespace.guardFiles)
            guard-percent  \(wanted.namespace.guardPercent)
            guard-time     \(Self.text(wanted.namespace.guardSeconds))
            """)
    }

    private static func text(_ seconds: Int64) -> String {
        for (unit, letter) in [(86_400, "d"), (3600, "h"), (60, "m")] as [(Int64, String)] where seconds >= unit && seconds % unit == 0 {
            return "\(seconds / unit)\(letter)"
        }
        return "\(seconds)s"
    }
}
