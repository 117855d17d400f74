import Glibc

/// `boxfs mount` without `--foreground`: this program is started once more as the mount process, in a session of its own,
/// and reports through a pipe.
///
/// The pipe's words, one line each: `ready`, or `failed STATUS SENTENCE`. Its end without either means that the process died.
enum BackgroundMount {
    /// Where the child finds its end of the pipe.
    static let reportDescriptor: Int32 = 3

    /// Starts the mount process and waits until it has mounted.
    ///
    /// - Parameter arguments: of `boxfs mount`, complete; `--foreground` and the report option are added here.
    static func start(_ arguments: [String], stateFolder: String) throws(CommandFailure) {
        try PrivateFile.makeFolder(stateFolder)
        let log = StateFolder.openLog(in: stateFolder)
        guard log >= 0 else { throw CommandFailure("The log file in \(stateFolder) cannot be opened: \(systemError()).") }
        defer { close(log) }
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw CommandFailure("No pipe can be made: \(systemError()).") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let process = spawn(["boxfs", "mount"] + arguments + ["--foreground", "--report-descriptor", "\(reportDescriptor)"], log: log, report: ends[1])
        let code = errno
        close(ends[1])
        defer { close(ends[0]) }
        guard let process else { throw CommandFailure("The mount process cannot be started: \(systemError(code)).") }
        guard let line = Terminal.readLine(from: ends[0], limitBytes: 8192) else {
            let status = ChildProcess.wait(for: process)
            throw CommandFailure("The mount process died (wait status \(status)) before the mount was there. Its log is \(stateFolder)/\(StateFolder.logName).")
        }
        if line == "ready" { return }
        let words = line.split(separator: " ", maxSplits: 2)
        guard words.count == 3, words[0] == "failed", let status = Int32(words[1]).flatMap(ExitStatus.init(rawValue:)) else {
            throw CommandFailure("The mount process said \"\(line)\". Its log is \(stateFolder)/\(StateFolder.logName).")
        }
        throw CommandFailure(status, String(words[2]))
    }

    private static func spawn(_ words: [String], log: Int32, report: Int32) -> pid_t? {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // The log and the pipe may already have the wanted numbers; dup2 of a number onto itself would keep close-on-exec,
        // so both go through numbers that are free for sure.
        let (safeLog, safeReport) = (fcntl(log, F_DUPFD_CLOEXEC, 10), fcntl(report, F_DUPFD_CLOEXEC, 10))
        defer {
            close(safeLog)
            close(safeReport)
        }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, safeLog, 1)
        posix_spawn_file_actions_adddup2(&actions, safeLog, 2)
        posix_spawn_file_actions_adddup2(&actions, safeReport, reportDescriptor)
        return ChildProcess.start("/proc/self/exe", words, &actions)
    }
}

/// The mount process's end of the pipe.
struct MountReport {
    private let descriptor: Int32

    /// - Parameter descriptor: nil in the foreground, where nobody waits for a report.
    init(_ descriptor: Int32?) {
        self.descriptor = descriptor ?? -1
        guard let descriptor else { return }
        // Programs that the mount starts (fusermount3) must not keep the pipe open.
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        // The terminal's end is not ours, and the starter's folder must not stay busy because of us.
        setsid()
        chdir("/")
    }

    func ready() { send("ready") }

    func failed(_ failure: CommandFailure) {
        send("failed \(failure.status.rawValue) \(failure.description.replacing("\n", with: " "))")
    }

    private func send(_ line: String) {
        guard descriptor >= 0 else { return }
        Terminal.write(line + "\n", to: descriptor)
        close(descriptor)
    }
}
