import ArgumentParser
import Glibc

struct FlushCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flush",
        abstract: "Wait until a file, a folder or a whole mount is on the server.",
        discussion: "Counts everything that was written before the command began. Progress goes to standard error.")

    @Argument(help: "A file or folder of a mount, or the mount itself.", completion: .file())
    var path: String

    @Option(help: ArgumentHelp("Give up waiting after this time, with exit status 5; sending goes on.", valueName: "seconds"))
    var timeout: Double?

    func run() throws {
        let resolved = try AbsolutePath.resolve(path)
        let (mount, record) = try MountRegistry().find(resolved, in: MountTable.current())
        var status = stat()
        guard lstat(resolved, &status) == 0 || errno != ENOENT else { throw CommandFailure("\(path): there is no such file or folder.") }
        writeBack(mount.mountPoint)
        let relative = mount.relative(resolved).flatMap { $0.isEmpty ? nil : $0 }
        let display = ProgressDisplay(verb: "Sending")
        defer { display.finish() }
        _ = try ControlClient(record: record).ask(.flush(path: relative), timeoutSeconds: timeout) { display.show($0) }
    }

    /// Has the kernel hand over pages that programs changed through mmap(2) and that the mount has not seen.
    private func writeBack(_ mountPoint: String) {
        // Swift's Glibc module leaves syncfs(2) out, because it asks for _GNU_SOURCE.
        guard let symbol = dlsym(nil, "syncfs") else { return }
        let syncfs = unsafeBitCast(symbol, to: (@convention(c) (Int32) -> Int32).self)
        let folder = open(mountPoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else { return }
        _ = syncfs(folder)
        close(folder)
    }
}

struct CacheCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cache", abstract: "The local cache of a mount.", subcommands: [Drop.self])

    struct Drop: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "drop",
            abstract: "Forget every chunk that is on the server as well, and the kernel's copies.",
            discussion: "What is not yet on the server stays. Files are fetched again when they are read.")

        @Argument(help: "The mount, or anything in it.", completion: .directory)
        var dir: String

        func run() throws {
            let (_, record) = try MountRegistry().find(AbsolutePath.resolve(dir), in: MountTable.current())
            _ = try ControlClient(record: record).ask(.dropCache)
        }
    }
}
