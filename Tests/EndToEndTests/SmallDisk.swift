import Foundation
import Glibc
import Testing

/// A small file system (tmpfs; needs root), which can be filled to the last byte.
final class SmallDisk {
    let path: String
    private var ballast: String { path + "/ballast" }

    init(_ path: String, megabytes: Int) throws {
        self.path = path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        try #require(Glibc.mount("disk", path, "tmpfs", 0, "size=\(megabytes)m,mode=700") == 0, "mounting a tmpfs: errno \(errno)")
    }

    deinit { umount2(path, Int32(MNT_DETACH)) }

    var freeBytes: Int {
        var space = statvfs()
        return statvfs(path, &space) == 0 ? Int(space.f_bavail) * Int(space.f_frsize) : 0
    }

    /// Takes what is free, but for some bytes.
    func fill(except left: Int = 0) throws {
        let file = open(ballast, O_WRONLY | O_CREAT, 0o600)
        defer { close(file) }
        var at = lseek(file, 0, SEEK_END)
        while true {
            let part = min(freeBytes - left, 1 << 20)
            guard part > 0 else { return }
            let zeros = [UInt8](repeating: 0, count: part)
            let done = pwrite(file, zeros, part, at)
            guard done > 0 else { return }
            at += done
        }
    }

    func free() { unlink(ballast) }
}
