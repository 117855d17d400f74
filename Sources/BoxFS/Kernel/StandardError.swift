import Foundation
import Glibc

/// Hears what libfuse and fusermount3, which it starts, write to standard error: the only place where they say why.
enum StandardError {
    /// Runs `body` while standard error goes into a pipe; then writes what came to the real one as well.
    ///
    /// For the beginning of a mount, when no other thread has anything to say. A pipe holds 64 KiB; more would block.
    /// - Returns: the words as part of a sentence, empty if there were none.
    static func words(during body: () -> Void) -> String {
        var ends: [Int32] = [-1, -1]
        let saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10)
        guard saved >= 0, pipe(&ends) == 0 else {
            body()
            return ""
        }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        dup2(ends[1], STDERR_FILENO)
        body()
        dup2(saved, STDERR_FILENO)
        close(ends[1])
        close(saved)
        // Not to its end: a child of fusermount3 may live on with the pipe.
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
        var bytes = [UInt8](repeating: 0, count: 65_536)
        let count = max(0, read(ends[0], &bytes, bytes.count))
        close(ends[0])
        let words = Data(bytes[..<count])
        try? FileHandle.standardError.write(contentsOf: words)
        return sentence(words)
    }

    /// The lines without the program's name and the points at their ends.
    static func sentence(_ bytes: Data) -> String {
        String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { line in
            var words = line[...]
            for prefix in ["fusermount3: ", "fuse: "] where words.hasPrefix(prefix) { words = words.dropFirst(prefix.count) }
            while let last = words.last, last == "." || last == " " { words.removeLast() }
            return String(words)
        }.joined(separator: "; ")
    }
}
