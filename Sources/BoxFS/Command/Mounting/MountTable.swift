import Glibc

/// The kernel's list of mounts, as far as BoxFS asks it.
struct MountTable: Sendable {
    struct Mount: Hashable, Sendable {
        var mountPoint: String
        var type: String
        var source: String
        /// The device's, which is also the name of a FUSE connection in fusectl.
        var minor: String
        /// Who mounted it, when it is a FUSE file system.
        var user: uid_t?

        /// An absolute path in it from its root, which is the empty path; nil outside of it.
        func relative(_ path: String) -> String? {
            guard path != mountPoint else { return "" }
            return path.hasPrefix(mountPoint + "/") ? String(decoding: path.utf8.dropFirst(mountPoint.utf8.count + 1), as: UTF8.self) : nil
        }

        var isBoxFS: Bool { type == "fuse.boxfs" || (type == "fuse" && source == "boxfs") }
    }

    /// In the order of mounting: a later one hides an earlier one at the same place.
    var mounts: [Mount]

    static func current() throws(CommandFailure) -> MountTable {
        guard let (bytes, _) = try PrivateFile.read("/proc/self/mountinfo", limitBytes: 16 << 20) else {
            throw CommandFailure("/proc is not mounted; boxfs needs it.")
        }
        return MountTable(mountinfo: String(decoding: bytes, as: UTF8.self))
    }

    /// Reads the text of /proc/PID/mountinfo (proc(5)): `36 35 98:0 /root /mount/point options [optional…] - type source options`.
    init(mountinfo: String) {
        mounts = mountinfo.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ", omittingEmptySubsequences: false)
            guard fields.count > 6, let dash = fields[6...].firstIndex(of: "-"), fields.count > dash + 2 else { return nil }
            var user: uid_t?
            if fields.count > dash + 3 {
                for option in fields[dash + 3].split(separator: ",") where option.hasPrefix("user_id=") {
                    user = uid_t(option.dropFirst("user_id=".count))
                }
            }
            return Mount(
                mountPoint: Self.unescape(fields[4]), type: String(fields[dash + 1]), source: Self.unescape(fields[dash + 2]),
                minor: String(fields[2].drop { $0 != ":" }.dropFirst()), user: user)
        }
    }

    /// The mount that a path lies in. The path is absolute and has no symbolic links left.
    func mount(containing path: String) -> Mount? {
        var best: Mount?
        for mount in mounts where Self.contains(mount.mountPoint, path) {
            if mount.mountPoint.utf8.count >= best?.mountPoint.utf8.count ?? 0 { best = mount }
        }
        return best
    }

    /// What is mounted exactly there, the uppermost.
    func mount(at path: String) -> Mount? { mounts.last { $0.mountPoint == path } }

    static func contains(_ folder: String, _ path: String) -> Bool {
        folder == "/" || path == folder || path.hasPrefix(folder + "/")
    }

    /// The kernel writes blank, tab, newline and backslash as `\` and three octal digits.
    static func unescape(_ field: Substring) -> String {
        guard field.utf8.contains(UInt8(ascii: "\\")) else { return String(field) }
        var bytes: [UInt8] = []
        let source = Array(field.utf8)
        var position = 0
        while position < source.count {
            if source[position] == UInt8(ascii: "\\"), position + 3 < source.count,
                let value = UInt8(String(decoding: source[(position + 1)...(position + 3)], as: UTF8.self), radix: 8) {
                bytes.append(value)
                position += 4
            } else {
                bytes.append(source[position])
                position += 1
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// Paths as a person gives them.
enum AbsolutePath {
    /// Absolute, without symbolic links. The last part may be missing, or be a mount whose process died (its stat fails).
    static func resolve(_ path: String) throws(CommandFailure) -> String {
        guard !path.isEmpty else { throw CommandFailure(.usage, "The path is empty.") }
        if let whole = real(path) { return whole }
        let code = errno
        var trimmed = path
        while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed.removeLast() }
        let parts = trimmed.split(separator: "/", omittingEmptySubsequences: false)
        guard let last = parts.last, last != "..", last != "." else { throw CommandFailure("\(path): \(systemError(code)).") }
        let parent = parts.count == 1 ? "." : parts.dropLast().joined(separator: "/")
        guard let folder = real(parent.isEmpty ? "/" : parent) else {
            // Deep inside a dead mount nothing can be asked: the spelling has to do.
            guard errno == ENOTCONN || code == ENOTCONN, trimmed.hasPrefix("/") else { throw CommandFailure("\(path): \(systemError(code)).") }
            return trimmed
        }
        return folder == "/" ? "/\(last)" : "\(folder)/\(last)"
    }

    /// The same where any number of the last parts may be missing; those are taken as they are spelled.
    static func resolveGone(_ path: String) throws(CommandFailure) -> String {
        var parts = path.split(separator: "/").map(String.init), missing: [String] = []
        while true {
            let front = (path.hasPrefix("/") ? "/" : parts.isEmpty ? "." : "") + parts.joined(separator: "/")
            if let found = real(front) { return missing.reduce(found == "/" ? "" : found) { $0 + "/" + $1 } }
            guard errno == ENOENT || errno == ENOTDIR, let last = parts.popLast(), last != "..", last != "." else { return try resolve(path) }
            missing.insert(last, at: 0)
        }
    }

    private static func real(_ path: String) -> String? {
        guard let resolved = realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }
}
