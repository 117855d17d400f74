import Glibc

/// The process of a thread, as /proc tells.
struct CallingProcess: Sendable {
    let process: Int32
    let program: String

    /// Nil when there is no such thread (any more).
    init?(thread: Int32) {
        guard thread > 0 else { return nil }
        let file = open("/proc/\(thread)/status", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        let text = String(unsafeUninitializedCapacity: 512) { max(0, read(file, $0.baseAddress, $0.count)) }
        var name: Substring?, group: Int32?
        for line in text.split(separator: "\n") {
            if line.hasPrefix("Name:\t") { name = line.dropFirst(6) }
            if line.hasPrefix("Tgid:\t") { group = Int32(line.dropFirst(6)) }
        }
        guard let name, let group else { return nil }
        (process, program) = (group, String(name))
    }
}
