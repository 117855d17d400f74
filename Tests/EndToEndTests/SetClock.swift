import Foundation
import Testing

/// The wall clock of one process, which Tests/Preload/clock.c makes another than the machine's.
final class SetClock: Sendable {
    private let file: String, library: String

    /// - Parameter folder: gets the library, and the file that says what is added.
    init(_ name: String, in folder: String) throws {
        (file, library) = ("\(folder)/clock-\(name)", "\(folder)/clock.so")
        if access(library, F_OK) != 0 {
            let source = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../Preload/clock.c").standardized.path
            let compiled = try run("gcc", ["-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"])
            try #require(compiled.status == 0, "\(compiled.output)")
        }
        try set(hours: 0)
    }

    var environment: [String: String] { ["LD_PRELOAD": library, "CLOCK_FILE": file] }

    /// From the machine's clock.
    func set(hours: Double) throws {
        let nanoseconds = Int64(hours * 3600 * 1e9)
        let descriptor = open(file, O_WRONLY | O_CREAT, 0o600)
        defer { close(descriptor) }
        let written = withUnsafeBytes(of: nanoseconds.littleEndian) { pwrite(descriptor, $0.baseAddress, 8, 0) }     // in place: it is mapped
        try #require(written == 8)
    }
}
