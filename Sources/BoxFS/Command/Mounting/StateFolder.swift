import Glibc
import Shared

/// The folder of one mount on this machine. It holds the only copy of what is not yet on the server.
///
/// `lock`         flock(2)ed by the mount process; its text is that process's id
/// `boxfs.log`    what the mount process writes to standard error; one older one is kept as boxfs.log.1
/// `control.sock` see ControlMessages.swift
/// The rest belongs to Replica/ and ChunkCache (docs/FORMAT.md).
struct StateFolder: ~Copyable {
    static let logName = "boxfs.log"
    private static let logLimitBytes = 10 << 20

    let path: String
    private let lock: Int32

    /// The folder for a mount point of an account: another account, or another mount point, gets another one.
    static func standardPath(_ folders: Folders, profile: ProfileName, account: AccountID, mountPoint: String) -> String {
        "\(folders.state)/mounts/\(profile)-\(MountRegistry.key("\(account)\n\(mountPoint)").prefix(16))"
    }

    /// Makes the folder if need be and locks it for this process.
    ///
    /// - Throws: `.busy` when another mount process has it.
    init(_ path: String) throws(CommandFailure) {
        try PrivateFile.makeFolder(path)
        let descriptor = open(path + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw CommandFailure("The state folder \(path) cannot be used: \(systemError()).") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let code = errno
            var text = [UInt8](repeating: 0, count: 32)
            let count = max(0, read(descriptor, &text, text.count))
            close(descriptor)
            guard code == EWOULDBLOCK else { throw CommandFailure("The state folder \(path) cannot be locked: \(systemError(code)).") }
            let owner = String(decoding: text[..<count], as: UTF8.self).filter(\.isNumber)
            throw CommandFailure(
                .busy, "Another mount\(owner.isEmpty ? "" : " (process \(owner))") uses \(path). Unmount it first, or give this one a --cache-dir of its own.")
        }
        ftruncate(descriptor, 0)
        let text = "\(getpid())\n"
        _ = text.withCString { pwrite(descriptor, $0, strlen($0), 0) }
        lock = descriptor
        self.path = path
    }

    deinit { close(lock) }

    /// Whether a mount process has the folder now.
    static func isInUse(_ path: String) -> Bool {
        let descriptor = open(path + "/lock", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK
    }

    /// The log file, opened for appending; -1 when that fails. A long one is set aside first.
    static func openLog(in path: String) -> Int32 {
        let log = "\(path)/\(logName)"
        var status = stat()
        if stat(log, &status) == 0, status.st_size > logLimitBytes { rename(log, log + ".1") }
        return open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    }
}
