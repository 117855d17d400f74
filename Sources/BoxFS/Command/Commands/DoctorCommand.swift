import ArgumentParser
import Foundation
import Glibc

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Check what a mount needs, and say what to do about what is missing.",
        discussion: "Exit status 1 when a check failed; warnings alone give 0.")

    @Option(help: "The login to check.")
    var profile = ProfileName.standard

    @Option(help: "Take the damaged local database of the mount point DIR apart, so that the next mount makes a new one from the server. What was not sent is kept in rescue/ of the state folder. DIR must not be mounted.", completion: .directory)
    var repair: String?

    @Option(help: "With --repair: the folder that was given to mount.", completion: .directory)
    var cacheDir: String?

    @Flag(help: "Also check what --allow-other needs.")
    var allowOther = false

    @Flag(help: "Print JSON: a list of {name, result: ok|warning|failed, message}.")
    var json = false

    func run() throws {
        if let repair { return try repairState(of: repair) }
        let checks = MachineChecks.all(allowOther: allowOther) + AccountChecks.all(profile)
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            Terminal.say(String(decoding: try encoder.encode(checks), as: UTF8.self))
        } else {
            for check in checks {
                let mark = switch check.result {
                case .ok: "ok     "
                case .warning: "warning"
                case .failed: "FAILED "
                }
                Terminal.say("\(mark)  \(check.name): \(check.message)")
            }
        }
        if checks.contains(where: { $0.result == .failed }) { throw ExitCode(ExitStatus.failure.rawValue) }
    }
}

/// One line of `boxfs doctor`.
struct Check: Codable, Hashable, Sendable {
    enum Result: String, Codable, Sendable { case ok, warning, failed }
    var name: String
    var result: Result
    var message: String

    init(_ name: String, _ result: Result, _ message: String) { (self.name, self.result, self.message) = (name, result, message) }
}

/// What the machine must have.
enum MachineChecks {
    static func all(allowOther: Bool) -> [Check] {
        [device(), fusermount()] + (allowOther ? [fuseConfiguration()] : []) + [disk()]
    }

    private static func device() -> Check {
        let file = open("/dev/fuse", O_RDWR | O_CLOEXEC)
        if file >= 0 {
            close(file)
            return Check("/dev/fuse", .ok, "can be opened")
        }
        let hint = errno == ENOENT ? "Load the kernel module (modprobe fuse); in a container, pass the device in (--device /dev/fuse --cap-add SYS_ADMIN)."
            : "Give this user access to it."
        return Check("/dev/fuse", .failed, "cannot be opened (\(systemError())). \(hint)")
    }

    private static func fusermount() -> Check {
        let folders = (getenv("PATH").map { path in String(cString: path) } ?? "/usr/bin:/bin").split(separator: ":")
        guard let path = folders.lazy.map({ (folder) -> String in "\(folder)/fusermount3" }).first(where: { (path: String) in access(path, X_OK) == 0 }) else {
            return geteuid() == 0
                ? Check("fusermount3", .warning, "is missing; root mounts without it. apt install fuse3")
                : Check("fusermount3", .failed, "is missing. Run: apt install fuse3")
        }
        var status = stat()
        guard stat(path, &status) == 0, status.st_uid == 0, status.st_mode & S_ISUID != 0 else {
            return Check("fusermount3", geteuid() == 0 ? .warning : .failed, "\(path) is not set-user-id root, so only root can mount. Run: chmod u+s \(path)")
        }
        return Check("fusermount3", .ok, path)
    }

    private static func fuseConfiguration() -> Check {
        guard geteuid() != 0 else { return Check("allow_other", .ok, "root may always use it") }
        let text = (try? PrivateFile.read("/etc/fuse.conf")).flatMap { $0 }.map { String(decoding: $0.bytes, as: UTF8.self) } ?? ""
        let isAllowed = text.split(separator: "\n").contains { $0.trimmingCharacters(in: .whitespaces) == "user_allow_other" }
        return isAllowed ? Check("allow_other", .ok, "user_allow_other stands in /etc/fuse.conf")
            : Check("allow_other", .failed, "--allow-other needs the line user_allow_other in /etc/fuse.conf.")
    }

    private static func disk() -> Check {
        var folder = Folders().state
        while access(folder, F_OK) != 0, let slash = folder.lastIndex(of: "/"), slash != folder.startIndex { folder = String(folder[..<slash]) }
        var space = statvfs()
        guard statvfs(folder, &space) == 0 else { return Check("disk space", .failed, "\(folder) cannot be asked: \(systemError()).") }
        let free = UInt64(space.f_bavail) * UInt64(space.f_frsize)
        let text = "\(ByteCount(bytes: free)) free in \(folder)"
        if free < 256 << 20 { return Check("disk space", .failed, "\(text): too little to keep what is not sent yet. Make room, or give mounts a --cache-dir elsewhere.") }
        if free < 2 << 30 { return Check("disk space", .warning, "\(text). A --cache-size below that keeps the disk from filling up.") }
        return Check("disk space", .ok, text)
    }
}

/// What the login must have.
enum AccountChecks {
    private static let clockToleranceSeconds = 60.0

    static func all(_ name: ProfileName) -> [Check] {
        let profile: Profile
        do throws(CommandFailure) { profile = try Profile.load(name) } catch {
            return [Check("login", .failed, error.description)]
        }
        var checks = [Check("login", .ok, "\(profile.user) on \(profile.server), in \(Profile.path(name, in: Folders())) for you alone")]
        let server = ServerAccess(server: profile.server, token: profile.token)
        do throws(CommandFailure) {
            let information = try server.serverInformation()
            checks.append(Check("server", .ok, "\(profile.server) answers, version \(information.version)"))
            checks.append(clock(information.time.nanoseconds))
        } catch {
            return checks + [Check("server", .failed, error.description)]
        }
        do throws(CommandFailure) {
            let account = try server.account()
            checks.append(Check("token", .ok, "accepted, account \(account.name)"))
            if account.home != profile.home {
                checks.append(Check("account", .failed, "The server names another tree for this account than the login did: it may have been set up anew. Log in again."))
            }
        } catch {
            let hint = error.status == .notLoggedIn ? " Log in again: boxfs login \(profile.server) --user \(profile.user)" : ""
            checks.append(Check("token", .failed, error.description + hint))
        }
        return checks
    }

    /// - Parameter nanoseconds: the server's time since 1970.
    private static func clock(_ nanoseconds: Int64) -> Check {
        let difference = Date().timeIntervalSince1970 - Double(nanoseconds) / 1e9
        let text = String(format: "%.1f", abs(difference))
        guard abs(difference) > clockToleranceSeconds else { return Check("clock", .ok, "\(text) s from the server's") }
        return Check("clock", .warning, "\(text) s \(difference > 0 ? "ahead of" : "behind") the server's: dates of files and conflicted copies will be off. Set the clock (timedatectl set-ntp true).")
    }
}
