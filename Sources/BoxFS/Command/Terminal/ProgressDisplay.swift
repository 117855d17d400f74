import Glibc

/// How far an upload is: a bar that is redrawn on a terminal, now and then a line elsewhere.
///
/// Used by one thread. Everything goes to standard error, so that output stays clean for scripts.
final class ProgressDisplay {
    private let verb: String
    private let isTerminal: Bool
    private var startBytes: UInt64 = 0
    private var isDrawn = false
    private var lastLine: UInt64 = 0
    private static let secondsBetweenLines: UInt64 = 5

    init(verb: String) {
        self.verb = verb
        isTerminal = Terminal.isTerminal(STDERR_FILENO)
    }

    func show(_ progress: FlushProgress) {
        startBytes = max(startBytes, progress.bytesLeft, progress.bytesTotal)
        let text = Self.text(verb: verb, progress, startBytes: startBytes)
        if isTerminal {
            let columns = Terminal.columns(STDERR_FILENO)
            let bar = Self.bar(fraction: Self.fraction(progress, startBytes: startBytes), width: min(30, max(10, columns - 60)))
            Terminal.write("\r\u{1B}[K" + String("\(bar) \(text)".prefix(columns - 1)), to: STDERR_FILENO)
            isDrawn = true
        } else {
            var now = timespec()
            clock_gettime(CLOCK_MONOTONIC, &now)
            guard lastLine == 0 || UInt64(now.tv_sec) >= lastLine + Self.secondsBetweenLines else { return }
            lastLine = UInt64(now.tv_sec)
            Terminal.complain(text)
        }
    }

    /// Removes the bar, so that the next sentence starts on an empty line.
    func finish() {
        if isDrawn { Terminal.write("\r\u{1B}[K", to: STDERR_FILENO) }
        isDrawn = false
    }

    /// From 0 to 1: by bytes while there are any, otherwise by changes.
    static func fraction(_ progress: FlushProgress, startBytes: UInt64) -> Double {
        let bytes = startBytes == 0 ? 1 : 1 - Double(min(progress.bytesLeft, startBytes)) / Double(startBytes)
        let changes = progress.changesTotal == 0 ? 1 : 1 - Double(min(progress.changesLeft, progress.changesTotal)) / Double(progress.changesTotal)
        return startBytes > 1 << 20 ? (bytes * 9 + changes) / 10 : changes
    }

    static func bar(fraction: Double, width: Int) -> String {
        let full = Int((min(max(fraction, 0), 1) * Double(width)).rounded(.down))
        return "[" + String(repeating: "#", count: full) + String(repeating: ".", count: width - full) + "]"
    }

    static func text(verb: String, _ progress: FlushProgress, startBytes: UInt64) -> String {
        var text = "\(verb): \(progress.changesLeft) of \(progress.changesTotal) changes left"
        if progress.bytesLeft > 0 { text += ", \(ByteCount(bytes: progress.bytesLeft)) to send" }
        if let obstacle = progress.obstacle { text += "; waiting: \(obstacle)" }
        return text
    }
}
