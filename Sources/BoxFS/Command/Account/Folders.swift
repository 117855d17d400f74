import Glibc

/// Where BoxFS keeps its things for one person (XDG base directories).
struct Folders: Sendable {
    /// Profiles with their tokens.
    var configuration: String
    /// One folder for each mount: replica, log, unsent data, cache. Nothing here may be cleaned away: unsent data have no other copy.
    var state: String
    /// Where running mounts are written down, best first; all are read, the first usable is written.
    var runtime: [String]

    init(environment: [String: String] = Folders.environment, user: uid_t = geteuid()) {
        func value(_ name: String) -> String? { environment[name].flatMap { $0.hasPrefix("/") ? $0 : nil } }
        let home = value("HOME") ?? Self.home(of: user) ?? "/"
        configuration = (value("XDG_CONFIG_HOME") ?? "\(home)/.config") + "/boxfs"
        state = (value("XDG_STATE_HOME") ?? "\(home)/.local/state") + "/boxfs"
        runtime = Self.runtimeFolders(of: user, environment: environment) + [state + "/running"]
    }

    /// The folders of another user, as far as they can be known without that user's environment.
    static func of(user: uid_t) -> Folders { Folders(environment: [:], user: user) }

    private static func runtimeFolders(of user: uid_t, environment: [String: String]) -> [String] {
        var folders: [String] = []
        if let folder = environment["XDG_RUNTIME_DIR"], folder.hasPrefix("/") { folders.append(folder + "/boxfs") }
        if !folders.contains("/run/user/\(user)/boxfs") { folders.append("/run/user/\(user)/boxfs") }
        if user == 0 { folders.append("/run/boxfs") }
        return folders
    }

    private static func home(of user: uid_t) -> String? {
        guard let entry = getpwuid(user), let home = entry.pointee.pw_dir else { return nil }
        return String(cString: home)
    }

    static var environment: [String: String] {
        var result: [String: String] = [:]
        for name in ["HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
            if let value = getenv(name) { result[name] = String(cString: value) }
        }
        return result
    }
}

/// Files and folders that only their owner may read.
enum PrivateFile {
    /// Makes `folder` and what is missing above it, mode 0700 (an existing folder is left as it is).
    static func makeFolder(_ folder: String) throws(CommandFailure) {
        if mkdir(folder, 0o700) == 0 || errno == EEXIST {
            var status = stat()
            guard stat(folder, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
                throw CommandFailure("\(folder) is needed as a folder, and something else is there.")
            }
            return
        }
        guard errno == ENOENT, let slash = folder.lastIndex(of: "/"), slash != folder.startIndex else {
            throw CommandFailure("The folder \(folder) cannot be made: \(systemError()).")
        }
        try makeFolder(String(folder[..<slash]))
        guard mkdir(folder, 0o700) == 0 || errno == EEXIST else {
            throw CommandFailure("The folder \(folder) cannot be made: \(systemError()).")
        }
    }

    /// Replaces `path` by `bytes` with mode 0600: a reader sees the old file or the new one, also after a power cut.
    ///
    /// Order: write a new file, sync it, rename it over `path`, sync the folder.
    static func write(_ bytes: [UInt8], to path: String) throws(CommandFailure) {
        let temporary = "\(path).\(getpid()).new"
        let file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard file >= 0 else { throw CommandFailure("\(path) cannot be written: \(systemError()).") }
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            if count < 0 && errno == EINTR { continue }
            if count <= 0 { break }
            written += count
        }
        let isWhole = written == bytes.count && fsync(file) == 0
        let reason = systemError()
        close(file)
        guard isWhole, rename(temporary, path) == 0 else {
            let why = isWhole ? systemError() : reason
            unlink(temporary)
            throw CommandFailure("\(path) cannot be written: \(why).")
        }
        if let slash = path.lastIndex(of: "/") {
            let folder = open(String(path[..<slash]), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            if folder >= 0 {
                fsync(folder)
                close(folder)
            }
        }
    }

    /// All bytes of a small file; nil when it is not there.
    static func read(_ path: String, limitBytes: Int = 1 << 20) throws(CommandFailure) -> (bytes: [UInt8], status: stat)? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            if errno == ENOENT || errno == ENOTDIR { return nil }
            throw CommandFailure("\(path) cannot be read: \(systemError()).")
        }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw CommandFailure("\(path) cannot be read: \(systemError()).") }
        var bytes: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 65536)
        while bytes.count < limitBytes {
            let count = Glibc.read(file, &block, block.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw CommandFailure("\(path) cannot be read: \(systemError()).") }
            if count == 0 { break }
            bytes += block[..<count]
        }
        return (bytes, status)
    }
}
