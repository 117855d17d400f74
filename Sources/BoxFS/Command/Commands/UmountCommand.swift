import ArgumentParser
import Glibc

struct UmountCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "umount",
        abstract: "Send what waits, then take the folder away.",
        discussion: "Interrupting this command while it shows progress does not stop the unmount. A mount whose process died is cleaned up.")

    @Argument(help: "The mount, or anything in it.", completion: .directory)
    var dir: String

    @Flag(help: "Do not wait: what is not sent stays on this machine for the next mount of the folder.")
    var now = false

    @Option(help: ArgumentHelp("Wait no longer than this; the unmount then goes on by itself.", valueName: "seconds"))
    var timeout: Double?

    func run() throws {
        let path = try AbsolutePath.resolve(dir)
        let table = try MountTable.current()
        guard let mount = table.mount(containing: path), mount.isBoxFS else {
            throw CommandFailure(.notMounted, "\(path) is not in a BoxFS mount. boxfs status lists the mounts.")
        }
        let record = MountRegistry().record(of: mount)
        guard let record, !MountPoint.isDead(mount, record) else {
            return try cleanUp(mount, record)
        }
        let display = ProgressDisplay(verb: "Sending")
        defer { display.finish() }
        _ = try ControlClient(record: record).ask(.unmount(now: now), timeoutSeconds: timeout) { display.show($0) }
        waitForEnd(of: record)
    }

    /// The mount process died and left the mount behind; what it had not sent is in its state folder.
    private func cleanUp(_ mount: MountTable.Mount, _ record: MountRecord?) throws {
        guard MountPoint.isDead(mount, record) else {
            throw CommandFailure(.notMounted, "\(mount.mountPoint) is served by a process that left no address. Ask as the user who mounted it, or run: fusermount3 -u '\(mount.mountPoint)'")
        }
        try MountPoint.detach(mount.mountPoint, lazy: true)
        if let record { MountRegistry().remove(record) }
        Terminal.complain("The mount process had died; the folder is free again. What was not sent is kept and goes on with the next mount.")
    }

    /// Returns when the process has let go of its state folder, so that the next `boxfs mount` finds it free; after ten seconds in any case.
    private func waitForEnd(of record: MountRecord) {
        let deadline = ControlClient.now() + 10
        while StateFolder.isInUse(record.stateFolder), ControlClient.now() < deadline { usleep(5_000) }
    }
}
