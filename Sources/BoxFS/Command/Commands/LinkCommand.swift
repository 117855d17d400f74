import ArgumentParser
import Foundation
import Glibc
import Shared

struct LinkCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "link", abstract: "Links for people without an account: to a file, to a folder, or to send files in.",
        discussion: "Whoever has a link's address can use it. The address is told once, when the link is made.",
        subcommands: [Create.self, List.self, Show.self, Revoke.self])

    struct Create: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a link and print its address.",
            discussion: "The link follows the file or folder when it is moved. ADDRESS shows a page; ADDRESS/download gives the file, or the folder as a zip file.")

        @Argument(help: "A file or folder of a mount.", completion: .file()) var path: String
        @Flag(help: "Protect it with the password in the first line of standard input.") var passwordStdin = false
        @Option(help: ArgumentHelp("How long it works: 90s, 30m, 12h, 7d, 2w.", valueName: "time")) var expires: Lifetime?
        @Option(help: ArgumentHelp("How many downloads it gives.", valueName: "count")) var maxDownloads: Int64?
        @Flag(help: "Show files in the browser, and give none away.") var viewOnly = false
        @Flag(help: "The other way: visitors send files into the folder and see nothing of it.") var upload = false
        @Option(help: ArgumentHelp("With --upload: what all that is sent may have together.", valueName: "size")) var maxSize: ByteCount?
        @Flag(help: "Print JSON.") var json = false

        func validate() throws {
            if upload, viewOnly || maxDownloads != nil { throw ValidationError("--upload goes with neither --view-only nor --max-downloads.") }
            if maxSize != nil, !upload { throw ValidationError("--max-size goes with --upload.") }
            if viewOnly, maxDownloads != nil { throw ValidationError("A link that only shows gives no downloads to count.") }
            if let maxDownloads, maxDownloads < 1 { throw ValidationError("--max-downloads wants 1 or more.") }
            if let maxSize, maxSize.bytes < 1 { throw ValidationError("--max-size wants 1 byte or more.") }
        }

        func run() throws {
            let place = try DrivePath(path)
            var password: String?
            if passwordStdin {
                guard let line = Terminal.readLine(from: STDIN_FILENO), !line.isEmpty else { throw CommandFailure(.usage, "Standard input holds no password.") }
                password = line
            }
            let answer = try ServerAccess(place.profile).createLink(place.namespace, LinkRequest(
                path: place.path, kind: upload ? .upload : .download, password: password, lifetimeSeconds: expires?.seconds,
                maximumDownloads: maxDownloads, viewOnly: viewOnly, maximumBytes: maxSize?.bytes))
            let address = place.profile.server + answer.address
            Terminal.say(json ? try JSONText.encode(LinkAnswer(link: answer.link, address: address)) : address)
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List links, newest first.")
        @OptionGroup var login: LoginOption
        @Flag(help: "Print JSON.") var json = false

        func run() throws {
            let links = try login.open().links()
            if json { return Terminal.say(try JSONText.encode(links)) }
            if links.isEmpty { return Terminal.say("There are no links. boxfs link create PATH makes one.") }
            for link in links {
                let limit = link.maximumDownloads.map { " of \($0)" } ?? ""
                Terminal.say("\(link.id)  \(link.state.rawValue)  \(link.kind.rawValue)  \(link.opens) opens  \(link.downloads)\(limit) downloads  \(LinkText.place(link))")
            }
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show how a link was used.")
        @Argument(help: "A link's address, or its identifier from `boxfs link list`.") var link: String
        @OptionGroup var login: LoginOption
        @Flag(help: "Print JSON.") var json = false

        func run() throws {
            let link = try login.open().link(LinkText.name(link))
            Terminal.say(json ? try JSONText.encode(link) : LinkText.lines(link).joined(separator: "\n"))
        }
    }

    struct Revoke: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "End a link at once; what is being downloaded ends by itself.")
        @Argument(help: "A link's address, or its identifier from `boxfs link list`.") var link: String
        @OptionGroup var login: LoginOption

        func run() throws { try login.open().revokeLink(LinkText.name(link)) }
    }
}

/// Links in words.
enum LinkText {
    /// The token of an address (what follows `/l/`), or the word itself.
    static func name(_ text: String) -> String {
        guard let start = text.range(of: "/l/", options: .backwards) else { return text }
        return String(text[start.upperBound...].prefix { $0 != "/" && $0 != "?" && $0 != "#" })
    }

    static func place(_ link: LinkInformation) -> String { link.path.map { $0.isEmpty ? "/" : $0 } ?? "(not there any more)" }

    static func lines(_ link: LinkInformation) -> [String] {
        var lines = [link.id.description]
        func field(_ name: String, _ text: String) { lines.append("  " + name.padding(toLength: 11, withPad: " ", startingAt: 0) + text) }
        field("leads to", place(link))
        field("kind", link.kind.rawValue + (link.viewOnly ? ", view only" : "") + (link.hasPassword ? ", with a password" : ""))
        field("state", link.state.rawValue)
        field("made", "\(link.created.iso8601) by \(link.creator)")
        if let expires = link.expires { field("expires", expires.iso8601) }
        if let revoked = link.revoked { field("revoked", revoked.iso8601) }
        field("opens", "\(link.opens)")
        switch link.kind {
        case .download: field("downloads", "\(link.downloads)" + (link.maximumDownloads.map { " of \($0)" } ?? ""))
        case .upload: field("received", "\(ByteCount(bytes: link.receivedBytes))" + (link.maximumBytes.map { " of \(ByteCount(bytes: $0))" } ?? ""))
        }
        field("last use", link.lastUsed?.iso8601 ?? "never")
        return lines
    }
}
