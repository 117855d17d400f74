import CXattr
import Foundation
import Glibc
import Testing
import TestSupport

/// Random calls on a mount and on a plain local folder give the same answers and the same tree. BOXFS_STEPS sets their number.
@Suite(.serialized) struct ModelTests {
    @Test func theMountAnswersAsALocalDiskDoes() throws {
        let drive = try Drive(seconds: 600)
        defer { drive.end() }
        var random = SeededGenerator("model")
        let steps = ProcessInfo.processInfo.environment["BOXFS_STEPS"].flatMap { Int($0) } ?? 10_000
        let mount = try drive.mount("one")
        let model = drive.root + "/model"
        #expect(mkdir(model, 0o755) == 0)
        for step in 0..<steps {
            let call = Call.random(&random)
            let expected = call.run(in: model), found = call.run(in: mount.path)
            try #require(expected == found, "step \(step), \(call): \(expected) on the local disk, \(found) on the mount")
            if step % 2500 == 2499 { try requireSame(model, mount.path, "after step \(step)") }
        }
        try requireSame(model, mount.path, "after the last step")
        try mount.unmount()
        try mount.start()
        try requireSame(model, mount.path, "after a remount")
        let two = try drive.mount("two")
        try requireSame(model, two.path, "through a second mount")
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }

    private func requireSame(_ model: String, _ mount: String, _ when: String) throws {
        let expected = Snapshot(model).lines, found = Snapshot(mount).lines
        let lost = expected.filter { !found.contains($0) }, invented = found.filter { !expected.contains($0) }
        try #require(expected == found, "\(when); only on the local disk: \(lost), only on the mount: \(invented)")
    }
}

/// One system call, or a few that belong together, on a small set of names, so that they meet.
private enum Call: CustomStringConvertible {
    case write(String, offset: Int, bytes: [UInt8], flags: Int32)
    case read(String, offset: Int, count: Int)
    case truncate(String, Int)
    case mkdir(String), rmdir(String), unlink(String)
    case rename(String, String), link(String, String), symlink(String, String)
    case chmod(String, UInt32), setxattr(String, [UInt8]), removexattr(String), stat(String), list(String)

    static func random(_ random: inout SeededGenerator) -> Call {
        func name() -> String {
            let parts = ["a", "b", "c", "d"]
            return (0...Int(random.next() % 3)).map { _ in parts[Int(random.next() % 4)] }.joined(separator: "/")
        }
        let size = [0, 1, 100, 4096, 70_000, 4 << 20][Int(random.next() % 6)]
        switch random.next() % 20 {
        case 0...4:
            let flags = [O_CREAT, O_CREAT | O_TRUNC, O_CREAT | O_EXCL, 0, O_APPEND][Int(random.next() % 5)]
            return .write(name(), offset: size / 2, bytes: random.bytes(Int(random.next() % 9000)), flags: flags)
        case 5...7: return .read(name(), offset: size / 3, count: 10_000)
        case 8: return .truncate(name(), size)
        case 9, 10: return .mkdir(name())
        case 11: return .rmdir(name())
        case 12: return .unlink(name())
        case 13, 14: return .rename(name(), name())
        case 15: return .link(name(), name())
        case 16: return .symlink(name(), name())
        case 17: return .chmod(name(), UInt32(random.next() % 0o1000) | 0o700)
        case 18: return random.next() % 3 == 0 ? .removexattr(name()) : .setxattr(name(), random.bytes(Int(random.next() % 50)))
        default: return random.next() % 2 == 0 ? .stat(name()) : .list(name())
        }
    }

    var description: String {
        switch self {
        case .write(let name, let offset, let bytes, let flags): "write \(bytes.count) bytes to \(name) at \(offset), flags \(flags)"
        case .read(let name, let offset, _): "read \(name) at \(offset)"
        case .truncate(let name, let size): "truncate \(name) to \(size)"
        case .mkdir(let name): "mkdir \(name)"
        case .rmdir(let name): "rmdir \(name)"
        case .unlink(let name): "unlink \(name)"
        case .rename(let from, let to): "rename \(from) to \(to)"
        case .link(let from, let to): "link \(from) to \(to)"
        case .symlink(let target, let name): "symlink \(name) to \(target)"
        case .chmod(let name, let mode): "chmod \(name) \(String(mode, radix: 8))"
        case .setxattr(let name, _): "setxattr \(name)"
        case .removexattr(let name): "removexattr \(name)"
        case .stat(let name): "stat \(name)"
        case .list(let name): "list \(name)"
        }
    }

    struct Answer: Equatable, CustomStringConvertible {
        var error: Int32 = 0
        var bytes: [UInt8] = []
        var words: [String] = []
        var description: String { error != 0 ? String(cString: strerror(error)) : words.isEmpty ? "\(bytes.count) bytes" : "\(words)" }
    }

    func run(in root: String) -> Answer {
        func at(_ name: String) -> String { "\(root)/\(name)" }
        func done(_ result: Int32) -> Answer { Answer(error: result == 0 ? 0 : errno) }
        switch self {
        case .write(let name, let offset, let bytes, let flags):
            let descriptor = open(at(name), O_WRONLY | flags, 0o644)
            guard descriptor >= 0 else { return done(-1) }
            let written = flags & O_APPEND != 0 ? Glibc.write(descriptor, bytes, bytes.count) : pwrite(descriptor, bytes, bytes.count, off_t(offset))
            let answer = written == bytes.count ? Answer() : done(-1)
            return close(descriptor) == 0 ? answer : done(-1)
        case .read(let name, let offset, let count):
            let descriptor = open(at(name), O_RDONLY)
            guard descriptor >= 0 else { return done(-1) }
            defer { close(descriptor) }
            var buffer = [UInt8](repeating: 0, count: count)
            let length = pread(descriptor, &buffer, count, off_t(offset))
            return length < 0 ? done(-1) : Answer(bytes: Array(buffer.prefix(length)))
        case .truncate(let name, let size): return done(Glibc.truncate(at(name), off_t(size)))
        case .mkdir(let name): return done(Glibc.mkdir(at(name), 0o755))
        case .rmdir(let name): return done(Glibc.rmdir(at(name)))
        case .unlink(let name): return done(Glibc.unlink(at(name)))
        case .rename(let from, let to): return done(Glibc.rename(at(from), at(to)))
        case .link(let from, let to): return done(Glibc.link(at(from), at(to)))
        case .symlink(let target, let name): return done(Glibc.symlink(target, at(name)))
        case .chmod(let name, let mode): return done(Glibc.chmod(at(name), mode))
        case .setxattr(let name, let value): return done(CXattr.setxattr(at(name), "user.model", value, value.count, 0))
        case .removexattr(let name): return done(CXattr.removexattr(at(name), "user.model"))
        case .stat(let name): return Snapshot.describe(at(name)).map { Answer(words: [$0]) } ?? done(-1)
        case .list(let name):
            guard let directory = opendir(at(name)) else { return done(-1) }
            defer { closedir(directory) }
            var words: [String] = []
            while let entry = readdir(directory) {
                words.append(withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } })
            }
            return Answer(words: words.sorted())
        }
    }
}

/// A whole tree, comparable: names, types, modes, link counts, targets, attributes and contents.
private struct Snapshot {
    var lines: [String]

    init(_ root: String) {
        lines = []
        for name in (FileManager.default.enumerator(atPath: root)?.compactMap { $0 as? String } ?? []).sorted() {
            lines.append("\(name) \(Snapshot.describe("\(root)/\(name)") ?? "?") \(Snapshot.content("\(root)/\(name)"))")
        }
    }

    static func describe(_ path: String) -> String? {
        var status = Glibc.stat()
        guard lstat(path, &status) == 0 else { return nil }
        let isDirectory = status.st_mode & 0o170000 == 0o040000
        var value = [UInt8](repeating: 0, count: 100)
        let length = getxattr(path, "user.model", &value, 100)
        return "\(String(status.st_mode, radix: 8)) \(isDirectory ? "" : "\(status.st_nlink) \(status.st_size)") \(value.prefix(max(0, length)))"
    }

    private static func content(_ path: String) -> Int {
        if let target = try? FileManager.default.destinationOfSymbolicLink(atPath: path) { return target.hashValue }
        guard let data = try? Data(contentsOf: URL(fileURLWithPath: path)) else { return 0 }
        var hasher = Hasher()       // Data's own hash value looks at its first 80 bytes only
        data.withUnsafeBytes { hasher.combine(bytes: $0) }
        return hasher.finalize()
    }
}
