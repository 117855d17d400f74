import Glibc

/// The folder that a mount covers.
enum MountPoint {
    /// Checks that a mount may be made there; a dead one of ours is cleared away first.
    ///
    /// - Returns: the absolute path, without symbolic links.
    static func prepare(_ path: String) throws(CommandFailure) -> String {
        var resolved = try AbsolutePath.resolve(path)
        if let mount = try MountTable.current().mount(at: resolved), mount.isBoxFS {
            guard isDead(mount, MountRegistry().record(of: mount)) else {
                throw CommandFailure(.busy, "\(resolved) is mounted already. boxfs status \(resolved) shows it; boxfs umount \(resolved) ends it.")
            }
            try detach(resolved, lazy: true)
            resolved = try AbsolutePath.resolve(path)
        }
        var status = stat()
        guard stat(resolved, &status) == 0 else {
            guard errno == ENOENT else { throw CommandFailure("\(resolved) cannot be used: \(systemError()).") }
            throw CommandFailure("\(resolved) does not exist. Run: mkdir -p '\(resolved)'")
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw CommandFailure("\(resolved) is not a folder.") }
        guard isEmpty(resolved) else {
            throw CommandFailure("\(resolved) is not empty, and a mount would hide what is in it. Take an empty folder.")
        }
        return resolved
    }

    /// Whether the kernel still shows a mount whose process is gone.
    ///
    /// The state folder's lock tells, where it is known. Otherwise statfs(2), which the kernel has no cached answer for: stat(2) of
    /// the root may go on succeeding from the kernel's memory.
    static func isDead(_ mount: MountTable.Mount, _ record: MountRecord?) -> Bool {
        if let record, access(record.stateFolder + "/lock", R_OK) == 0 { return !StateFolder.isInUse(record.stateFolder) }
        var space = statvfs()
        return statvfs(mount.mountPoint, &space) != 0 && (errno == ENOTCONN || errno == ECONNABORTED)
    }

    private static func isEmpty(_ path: String) -> Bool {
        guard let directory = opendir(path) else { return true }    // the mount itself will say what is wrong
        defer { closedir(directory) }
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if name != "." && name != ".." { return false }
        }
        return true
    }

    /// Unmounts without asking any mount process: umount2(2) for root, otherwise fusermount3.
    ///
    /// - Parameter lazy: also when files are in use; the kernel forgets the mount when the last is closed.
    static func detach(_ path: String, lazy: Bool) throws(CommandFailure) {
        if geteuid() == 0 {
            guard umount2(path, lazy ? Int32(MNT_DETACH) : 0) == 0 || errno == EINVAL else {
                throw CommandFailure(errno == EBUSY ? .busy : .failure, "\(path) cannot be unmounted: \(systemError()).")
            }
            return
        }
        let status = run(["fusermount3", "-u"] + (lazy ? ["-z"] : []) + [path])
        guard status == 0 else {
            throw CommandFailure("\(path) cannot be unmounted\(status == nil ? ": fusermount3 is missing (apt install fuse3)" : "; fusermount3 says why above").")
        }
    }

    /// Runs a program of the search path and waits; nil when it cannot be started.
    private static func run(_ words: [String]) -> Int32? {
        ChildProcess.start(words[0], words).map { ChildProcess.wait(for: $0) }
    }
}
