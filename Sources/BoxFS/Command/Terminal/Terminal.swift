import Glibc

/// Standard output and error, as a command uses them.
enum Terminal {
    static func say(_ line: String) { write(line + "\n", to: STDOUT_FILENO) }

    /// A sentence on standard error, after the program's name.
    static func complain(_ sentence: String) { write("boxfs: \(sentence)\n", to: STDERR_FILENO) }

    static func isTerminal(_ descriptor: Int32) -> Bool { isatty(descriptor) == 1 }

    /// Columns of the terminal behind `descriptor`; 80 when it does not tell.
    static func columns(_ descriptor: Int32) -> Int {
        var size = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }

    /// Writes everything, or gives up silently: there is nobody left to tell.
    static func write(_ text: String, to descriptor: Int32) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let written = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if written < 0 && errno == EINTR { continue }
            guard written > 0 else { return }
            bytes = bytes.dropFirst(written)
        }
    }

    /// Asks for a password without showing it; nil when there is no terminal or the input ended.
    static func readPassword(prompt: String) -> String? {
        let terminal = open("/dev/tty", O_RDWR | O_CLOEXEC)
        guard terminal >= 0 else { return nil }
        defer { close(terminal) }
        var shown = termios()
        guard tcgetattr(terminal, &shown) == 0 else { return nil }
        var hidden = shown
        hidden.c_lflag &= ~tcflag_t(ECHO)
        // Control-C while echo is off would leave a mute terminal behind, so it arrives as a character instead.
        hidden.c_lflag &= ~tcflag_t(ISIG)
        guard tcsetattr(terminal, TCSAFLUSH, &hidden) == 0 else { return nil }
        defer {
            tcsetattr(terminal, TCSAFLUSH, &shown)
            write("\n", to: terminal)
        }
        write(prompt, to: terminal)
        guard let line = readLine(from: terminal), !line.unicodeScalars.contains("\u{3}") else { return nil }
        return line
    }

    /// One line without its end, byte by byte so that nothing after it is taken; nil at the end of input or for invalid UTF-8.
    static func readLine(from descriptor: Int32, limitBytes: Int = 4096) -> String? {
        var line: [UInt8] = []
        var byte: UInt8 = 0
        while line.count < limitBytes {
            let count = read(descriptor, &byte, 1)
            if count < 0 && errno == EINTR { continue }
            if count <= 0 {
                if line.isEmpty { return nil }
                break
            }
            if byte == UInt8(ascii: "\n") { break }
            line.append(byte)
        }
        if line.last == UInt8(ascii: "\r") { line.removeLast() }
        return String(validating: line, as: UTF8.self)
    }
}

/// The last failed system call in words.
func systemError(_ code: Int32 = errno) -> String { String(cString: strerror(code)) }
