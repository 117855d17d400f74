import Foundation
import Glibc
import Shared

/// One running mount, as its process wrote it down for the other commands.
struct MountRecord: Codable, Hashable, Sendable {
    var mountPoint: String
    /// Holds the control socket, the log file, the lock.
    var stateFolder: String
    var process: Int32
    var profile: String
    var server: String
    var account: String
}

/// Where commands look up which process serves a mount point: a small file for each in the runtime folder.
///
/// A file may outlive its process (SIGKILL, power cut): it counts only while the kernel's table shows the mount as well.
struct MountRegistry {
    var folders: Folders = Folders()

    /// The file name for a mount point: 16 bytes of its SHA-256, in hexadecimal.
    static func key(_ text: String) -> String { String(SHA256.hash(Array(text.utf8)).description.prefix(32)) }

    /// Writes the record into the first folder that can be made.
    func add(_ record: MountRecord) throws(CommandFailure) {
        guard let data = try? JSONEncoder().encode(record) else { throw CommandFailure("The mount's record cannot be written as JSON.") }
        var failure: CommandFailure?
        for folder in folders.runtime {
            // Only the login service makes /run/user/UID; a folder like that of our own making would be a trap for later logins.
            if folder.hasPrefix("/run/user/"), access(String(folder.dropLast("/boxfs".count)), W_OK) != 0 { continue }
            do throws(CommandFailure) {
                try PrivateFile.makeFolder(folder)
                try PrivateFile.write(Array(data), to: "\(folder)/\(Self.key(record.mountPoint)).json")
                return
            } catch { failure = error }
        }
        throw failure ?? CommandFailure("No folder for the list of running mounts can be made.")
    }

    /// Removes the record, unless a newer process has taken the mount point over.
    func remove(_ record: MountRecord) {
        for folder in folders.runtime {
            let path = "\(folder)/\(Self.key(record.mountPoint)).json"
            if read(path)?.process == record.process { unlink(path) }
        }
    }

    /// The record of a mount point; nil when no process of a known user wrote one.
    func record(of mount: MountTable.Mount) -> MountRecord? {
        var places = folders.runtime
        if let user = mount.user, user != geteuid() { places += Folders.of(user: user).runtime }
        for folder in places {
            if let record = read("\(folder)/\(Self.key(mount.mountPoint)).json"), record.mountPoint == mount.mountPoint { return record }
        }
        return nil
    }

    /// Every mount of BoxFS that this user made (root sees those of all), with its record where there is one.
    func all(in table: MountTable) -> [(mount: MountTable.Mount, record: MountRecord?)] {
        table.mounts.filter { $0.isBoxFS && (geteuid() == 0 || $0.user == nil || $0.user == geteuid()) }
            .map { ($0, record(of: $0)) }
    }

    /// The mount that `path` lies in and its record.
    func find(_ path: String, in table: MountTable) throws(CommandFailure) -> (mount: MountTable.Mount, record: MountRecord) {
        guard let mount = table.mount(containing: path), mount.isBoxFS else {
            throw CommandFailure(.notMounted, "\(path) is not in a BoxFS mount. boxfs status lists the mounts.")
        }
        guard let record = record(of: mount) else {
            throw CommandFailure(
                .notMounted, "\(mount.mountPoint) is mounted, but its process left no address\(mount.user == geteuid() ? "" : " that this user may read"). If it died, run: boxfs umount \(mount.mountPoint)")
        }
        return (mount, record)
    }

    private func read(_ path: String) -> MountRecord? {
        // Who can write the record can lead us to any socket: it must be ours, or root's, or we are root.
        guard let (bytes, status) = try? PrivateFile.read(path), geteuid() == 0 || status.st_uid == geteuid() || status.st_uid == 0
        else { return nil }
        return try? JSONDecoder().decode(MountRecord.self, from: Data(bytes))
    }
}
