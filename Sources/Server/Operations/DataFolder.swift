import ArgumentParser
import Foundation
import Glibc
import NIOPosix
import Shared

/// The folder that holds everything: `boxfs.db` and `objects/`.
struct DataFolder: ParsableArguments {
    @Option(name: .long, help: "The folder that holds everything. Made if it is not there. [default: $BOXFS_DATA or /var/lib/boxfs]")
    var data: String = ProcessInfo.processInfo.environment["BOXFS_DATA"] ?? "/var/lib/boxfs"

    /// The drive on this folder. Administrators' commands may run while the server does.
    func open(onCommit: @escaping @Sendable (NamespaceID, Int64) -> Void = { _, _ in }) throws -> Drive {
        do {
            try FileManager.default.createDirectory(atPath: data, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            let store = try SQLiteStore(path: data + "/boxfs.db")
            let chunks = try DirectoryChunkStore(root: data + "/objects", threads: NIOThreadPool.singleton)
            return Drive(store: store, chunks: chunks, onCommit: onCommit)
        } catch {
            throw ValidationError("\(data) cannot be used: \(error)")
        }
    }

    /// Held while the server runs: two servers on one folder would not see each other's commits.
    func lock() throws -> Int32 {
        try FileManager.default.createDirectory(atPath: data, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        let descriptor = Glibc.open(data + "/serve.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw ValidationError("\(data)/serve.lock cannot be opened: \(String(cString: strerror(errno))).") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            throw ValidationError("Another boxfs-server serves \(data). Stop it first, or give another --data.")
        }
        return descriptor
    }
}

/// `10GiB`, `500MB`, `1048576`.
struct ByteSize: ExpressibleByArgument {
    let bytes: UInt64

    init?(argument: String) {
        let units: [(String, UInt64)] = [
            ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("KB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000), ("B", 1),
        ]
        let unit = units.first { argument.hasSuffix($0.0) }
        guard let number = UInt64(argument.dropLast(unit?.0.count ?? 0)) else { return nil }
        let (product, over) = number.multipliedReportingOverflow(by: unit?.1 ?? 1)
        guard !over else { return nil }
        bytes = product
    }
}

/// Runs an administrator's command and turns the drive's refusals into sentences.
func administer<T>(_ body: () async throws -> T) async throws -> T {
    do { return try await body() } catch let error as DriveError {
        switch error {
        case .nameTaken(let name): throw ValidationError("There is an account \(name) already.")
        case .notFound(let detail), .badRequest(let detail), .forbidden(let detail): throw ValidationError(detail)
        case .invalidName(let problem): throw ValidationError("The name is not allowed: \(problem).")
        case .diskFull: throw ValidationError("The disk is full.")
        default: throw ValidationError("\(error)")
        }
    }
}

/// One line from standard input, without its end.
func readPassword() throws -> String {
    guard let line = readLine(strippingNewline: true), !line.isEmpty else { throw ValidationError("No password came on standard input.") }
    return line
}
