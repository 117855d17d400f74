import Glibc
import Shared

/// A file or folder of a mount, as the server knows it.
struct DrivePath {
    let profile: Profile
    /// From the root of the account's tree, names separated by `/`; empty for the root.
    let path: String

    /// Finds the mount that `path` lies in, and waits until the server has what is there.
    ///
    /// - Parameter mayBeGone: nothing needs to be there now, nor its folders.
    /// - Throws: `.notMounted` for a path that is in no mount; `.timedOut` when what is there cannot be sent within a minute.
    init(_ path: String, mayBeGone: Bool = false) throws(CommandFailure) {
        let resolved = mayBeGone ? try AbsolutePath.resolveGone(path) : try AbsolutePath.resolve(path)
        let (mount, record) = try MountRegistry().find(resolved, in: MountTable.current())
        guard mayBeGone || access(resolved, F_OK) == 0 else { throw CommandFailure("\(resolved): \(systemError()).") }
        guard let name = ProfileName(record.profile) else { throw CommandFailure("The mount's login has no usable name: \(record.profile).") }
        profile = try Profile.load(name)
        self.path = resolved == mount.mountPoint ? "" : String(resolved.dropFirst(mount.mountPoint.count + 1))
        _ = try ControlClient(record: record).ask(.flush(path: self.path.isEmpty || mayBeGone ? nil : self.path), timeoutSeconds: 60)
    }
}
