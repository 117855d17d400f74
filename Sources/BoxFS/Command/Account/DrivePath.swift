import Glibc
import Shared

/// A file or folder of a mount, as the server knows it.
struct DrivePath {
    let profile: Profile
    /// The home, or that of the shared folder in which it lies.
    let namespace: NamespaceID
    /// From the root of that namespace, names separated by `/`; empty for the root.
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
        let path = mount.relative(resolved) ?? ""
        _ = try ControlClient(record: record).ask(.flush(path: path.isEmpty || mayBeGone ? nil : path), timeoutSeconds: 60)
        // Shared folders are not nested: one at most lies on the way.
        let shared = try ServerAccess(profile).shares().first { share in share.path.map { path == $0 || path.hasPrefix($0 + "/") } ?? false }
        namespace = shared?.namespace ?? profile.home
        self.path = shared.map { String(path.dropFirst($0.path!.count + 1)) } ?? path
    }
}
