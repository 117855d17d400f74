import ArgumentParser
import Glibc
import Shared

extension Durability: ExpressibleByArgument {}

struct MountCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mount",
        abstract: "Show the account's files as a folder.",
        discussion: """
            Returns once the folder is there; the mount goes on in the background until boxfs umount DIR. \
            What you write is on this machine's disk at once and on the server soon after; without the server, you go on working.

            Replica, unsent data and cache lie in one folder for each mount, $XDG_STATE_HOME/boxfs/mounts/… or --cache-dir. \
            Do not delete it while boxfs status shows pending changes: they have no other copy.
            """)

    @Argument(help: "An existing empty folder.", completion: .directory)
    var dir: String

    @Option(help: "Keep replica, unsent data and cache in this folder.", completion: .directory)
    var cacheDir: String?

    @Option(help: "Hard limit of the cache, such as 500MiB or 10GiB. Only data that is not on the server may exceed it.")
    var cacheSize = ByteCount(bytes: 10 << 30)

    @Option(help: "When fsync returns: once the data is on this machine's disk (local), or also on the server (server).")
    var durability = Durability.local

    @Option(help: ArgumentHelp("How long a call may wait for data that is only on the server.", valueName: "seconds"))
    var deadline: Double = 30

    @Flag(help: "Keep and honour owners, groups and special bits as a local file system does. Implies --allow-other.")
    var posixOwners = false

    @Flag(help: "Let other users enter (root, or user_allow_other in /etc/fuse.conf).")
    var allowOther = false

    @Flag(help: "Stay in the foreground and log to standard error.")
    var foreground = false

    @Option(help: "The login to use.")
    var profile = ProfileName.standard

    @Option(help: "Bytes a second to send at most, such as 2MiB.")
    var uploadLimit: ByteCount?

    @Option(help: "Bytes a second to receive at most.")
    var downloadLimit: ByteCount?

    @Option(help: .hidden)
    var scrubRest = Scrubber.standardRestSeconds

    @Option(help: .hidden)
    var reportDescriptor: Int32?

    func validate() throws {
        guard deadline.isFinite, deadline >= 1, deadline <= 86400 else { throw ValidationError("--deadline is a number of seconds from 1 to 86400.") }
        guard cacheSize.bytes >= 64 << 20 else { throw ValidationError("--cache-size is at least 64MiB: a few chunks of open files must find room.") }
        for limit in [uploadLimit, downloadLimit].compactMap({ $0 }) where limit.bytes < 1024 {
            throw ValidationError("A limit below 1KiB a second would stop all work.")
        }
    }

    func run() throws {
        guard foreground else { return try runInBackground() }
        let report = MountReport(reportDescriptor)
        do throws(CommandFailure) {
            let configuration = try makeConfiguration()
            try MountProcess.run(configuration) {
                report.ready()
                Terminal.complain("\(configuration.profile.server) (\(configuration.profile.user)) is mounted on \(configuration.mountPoint).")
            }
        } catch {
            report.failed(error)
            throw error
        }
    }

    private func runInBackground() throws(CommandFailure) {
        let configuration = try makeConfiguration()
        var arguments = [
            configuration.mountPoint, "--cache-dir", configuration.stateFolder, "--cache-size", "\(cacheSize.bytes)",
            "--durability", durability.rawValue, "--deadline", "\(deadline)", "--profile", profile.description,
        ]
        if posixOwners { arguments.append("--posix-owners") }
        if allowOther { arguments.append("--allow-other") }
        if let uploadLimit { arguments += ["--upload-limit", "\(uploadLimit.bytes)"] }
        if let downloadLimit { arguments += ["--download-limit", "\(downloadLimit.bytes)"] }
        try BackgroundMount.start(arguments, stateFolder: configuration.stateFolder)
        Terminal.say("\(configuration.profile.server) (\(configuration.profile.user)) is mounted on \(configuration.mountPoint).")
    }

    private func makeConfiguration() throws(CommandFailure) -> MountConfiguration {
        let folders = Folders()
        let known = try Profile.load(profile, from: folders)
        let mountPoint = try MountPoint.prepare(dir)
        let state = try stateFolder(folders, known, mountPoint: mountPoint)
        return MountConfiguration(
            mountPoint: mountPoint, stateFolder: state, cacheLimitBytes: cacheSize.bytes, durability: durability,
            deadlineSeconds: deadline, posixOwners: posixOwners, allowOther: allowOther || posixOwners,
            uploadLimit: uploadLimit?.bytes ?? 0, downloadLimit: downloadLimit?.bytes ?? 0, profileName: profile, profile: known,
            device: HostName.current, uid: geteuid(), gid: getegid(), scrubRestSeconds: scrubRest)
    }

    private func stateFolder(_ folders: Folders, _ profile: Profile, mountPoint: String) throws(CommandFailure) -> String {
        guard let cacheDir else {
            return StateFolder.standardPath(folders, profile: self.profile, account: profile.account, mountPoint: mountPoint)
        }
        if access(cacheDir, F_OK) != 0 { try PrivateFile.makeFolder(cacheDir) }
        let folder = try AbsolutePath.resolve(cacheDir)
        guard !MountTable.contains(mountPoint, folder) else {
            throw CommandFailure(.usage, "--cache-dir lies in the mount point, which the mount will hide. Take another folder.")
        }
        if let mount = try MountTable.current().mount(containing: folder), mount.isBoxFS {
            throw CommandFailure(.usage, "--cache-dir lies in the BoxFS mount \(mount.mountPoint): a mount cannot keep its data in a mount. Take a folder on a local disk.")
        }
        return folder
    }
}
