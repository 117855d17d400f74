import ArgumentParser
import Foundation
import Glibc
import Shared

/// The name of one login: an account on a server. A file name, so it is checked.
struct ProfileName: Hashable, Sendable, ExpressibleByArgument, CustomStringConvertible {
    let description: String
    static let standard = ProfileName("default")!

    /// 1–64 of letters, digits, `-`, `_` and `.`, not starting with a dot.
    init?(_ text: String) {
        let allowed = text.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
            default: [UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: ".")].contains(byte)
            }
        }
        guard allowed, (1...64).contains(text.utf8.count), !text.hasPrefix(".") else { return nil }
        description = text
    }

    init?(argument: String) { self.init(argument) }
}

/// What `boxfs login` leaves: `PROFILE.json` in the configuration folder, mode 0600.
struct Profile: Codable, Hashable, Sendable {
    /// Raised when a field changes its meaning.
    var format = 1
    /// `http(s)://host[:port]`, without a slash at the end.
    var server: String
    var user: String
    var account: AccountID
    var home: NamespaceID
    /// This machine's entry in the account's list of tokens.
    var device: DeviceID
    /// A secret: whoever has it can do what the person can.
    var token: String

    static func path(_ name: ProfileName, in folders: Folders) -> String { "\(folders.configuration)/\(name).json" }

    /// - Throws: `.notLoggedIn` when there is none; `.failure` for one that others may read, or that is damaged.
    static func load(_ name: ProfileName, from folders: Folders = Folders()) throws(CommandFailure) -> Profile {
        let path = path(name, in: folders)
        guard let (bytes, status) = try PrivateFile.read(path) else {
            let option = name == .standard ? "" : " --profile \(name)"
            throw CommandFailure(.notLoggedIn, "Nobody is logged in\(option.isEmpty ? "" : " under the profile \(name)"). Run: boxfs login URL --user NAME\(option)")
        }
        guard status.st_mode & 0o077 == 0 else {
            throw CommandFailure("\(path) holds a secret and others may read it. Run: chmod 600 '\(path)'. If somebody may have seen it, log out and in again.")
        }
        guard status.st_uid == geteuid() || geteuid() == 0 else {
            throw CommandFailure("\(path) belongs to another user. Log in as yourself, or run: chown $(id -u) '\(path)'")
        }
        guard let profile = try? JSONDecoder().decode(Profile.self, from: Data(bytes)), profile.format == 1 else {
            throw CommandFailure("\(path) is damaged or of a newer boxfs. Log in again: boxfs login URL --user NAME")
        }
        return profile
    }

    func save(_ name: ProfileName, in folders: Folders = Folders()) throws(CommandFailure) {
        try PrivateFile.makeFolder(folders.configuration)
        // The folder may have been there before us, and more open than the tokens in it should lie.
        guard chmod(folders.configuration, 0o700) == 0 else {
            throw CommandFailure("\(folders.configuration) cannot be closed to others: \(systemError()).")
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(self) else { throw CommandFailure("The profile cannot be written as JSON.") }
        try PrivateFile.write(Array(data) + [UInt8(ascii: "\n")], to: Self.path(name, in: folders))
    }

    static func remove(_ name: ProfileName, from folders: Folders = Folders()) throws(CommandFailure) {
        guard unlink(path(name, in: folders)) == 0 || errno == ENOENT else {
            throw CommandFailure("\(path(name, in: folders)) cannot be removed: \(systemError()).")
        }
    }
}
