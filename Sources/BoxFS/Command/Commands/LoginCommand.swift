import ArgumentParser
import Glibc
import Shared

struct LoginCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "login",
        abstract: "Log in to a server and keep a token for this machine.",
        discussion: "The token lies in the configuration folder ($XDG_CONFIG_HOME/boxfs), readable by you alone. The password is not kept.")

    @Argument(help: "The server, such as https://drive.example.org or http://127.0.0.1:8420.")
    var url: ServerAddress

    @Option(help: "The account's name on the server.")
    var user: String

    @Flag(help: "Read the password from the first line of standard input.")
    var passwordStdin = false

    @Option(help: "What this machine is called in the account's list of devices (default: its host name).")
    var device: String?

    @Option(help: "A name for this login, for people with several.")
    var profile = ProfileName.standard

    func run() throws {
        let password = try readPassword()
        if !url.isEncrypted, !url.isLoopback {
            Terminal.complain("Warning: \(url) is not encrypted; everyone on the way can read the password. Use https:// where you can.")
        }
        let previous = try? Profile.load(profile)
        let answer = try logIn(password)
        let new = Profile(
            server: url.description, user: answer.account.name, account: answer.account.id, home: answer.account.home,
            device: answer.device, token: answer.token)
        try new.save(profile)
        // The token of an earlier login to the same place is of no use to anybody now, unless a mount still runs with it.
        if let previous, previous.server == new.server, !MountsOf.isMounted(profile) {
            try? ServerAccess(server: previous.server, token: previous.token).logout()
        }
        let option = profile == .standard ? "" : " --profile \(profile)"
        Terminal.say("Logged in to \(url) as \(new.user).\nNext: mkdir -p ~/Box && boxfs mount ~/Box\(option)")
    }

    private func logIn(_ password: String) throws(CommandFailure) -> LoginAnswer {
        let request = LoginRequest(user: user, password: password, device: device ?? HostName.current)
        do throws(CommandFailure) { return try ServerAccess(server: url.description, token: nil).login(request) } catch {
            guard error.status == .notLoggedIn else { throw error }
            throw CommandFailure(.notLoggedIn, "The server does not know this name and password. Check both; the server's keeper can set a new password with: boxfs-server user set-password \(user)")
        }
    }

    private func readPassword() throws(CommandFailure) -> String {
        let line = passwordStdin ? Terminal.readLine(from: STDIN_FILENO) : Terminal.readPassword(prompt: "Password of \(user) on \(url): ")
        guard let line else {
            throw CommandFailure(.usage, passwordStdin ? "Standard input holds no password." : "There is no terminal to ask for the password. Give it with --password-stdin.")
        }
        guard !line.isEmpty else { throw CommandFailure(.usage, "The password is empty.") }
        return line
    }
}

struct LogoutCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logout", abstract: "Give back this machine's token and forget the login.")

    @Option(help: "The login to end.")
    var profile = ProfileName.standard

    @Flag(help: "Forget the login even when the server cannot be told; revoke the token there later.")
    var force = false

    func run() throws {
        let known = try Profile.load(profile)
        guard !MountsOf.isMounted(profile) else {
            throw CommandFailure(.busy, "A folder is still mounted with this login. boxfs status shows it; end it with boxfs umount first.")
        }
        do throws(CommandFailure) { try ServerAccess(server: known.server, token: known.token).logout() } catch {
            // A token that the server no longer accepts needs no giving back.
            guard error.status == .notLoggedIn || force else {
                throw CommandFailure(error.status, "\(error.description) The login is kept; --force forgets it here alone.")
            }
        }
        try Profile.remove(profile)
        Terminal.say("Logged out of \(known.server).")
    }
}

/// Which mounts run with a login.
enum MountsOf {
    static func isMounted(_ profile: ProfileName) -> Bool {
        guard let table = try? MountTable.current() else { return false }
        return MountRegistry().all(in: table).contains { $0.record?.profile == profile.description && StateFolder.isInUse($0.record?.stateFolder ?? "") }
    }
}

enum HostName {
    /// Without the domain; `linux` when the machine has no name.
    static var current: String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "linux" }
        let text = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return text.split(separator: ".").first.map(String.init) ?? "linux"
    }
}
