import Glibc

/// The person's end of the control socket: one request, its answers. Blocks the calling thread.
struct ControlClient {
    let record: MountRecord

    /// Asks, shows progress, and returns the last answer.
    ///
    /// - Parameters:
    ///   - timeoutSeconds: for the whole, nil to wait as long as it takes.
    ///   - progress: called for each step.
    ///   - trace: called for what is told before the last answer.
    /// - Throws: `.notMounted` when no process answers, `.timedOut`, `.busy`, `.failure`.
    func ask(
        _ request: ControlRequest, timeoutSeconds: Double? = nil, progress: (FlushProgress) -> Void = { _ in },
        trace: (TraceBatch) -> Void = { _ in }
    ) throws(CommandFailure) -> ControlAnswer {
        let socket = try connect()
        defer { close(socket) }
        let deadline = timeoutSeconds.map { Self.now() + $0 }
        guard ControlSocket.send(request, to: socket) else { throw gone }
        var lines = ControlLines(socket: socket)
        while true {
            if let deadline { try limit(socket, until: deadline) }
            let answer: ControlAnswer
            do throws(ControlLines.Failure) { answer = try lines.next(ControlAnswer.self) } catch {
                switch error {
                case .timedOut: throw CommandFailure(.timedOut, Self.timedOut)
                case .closed: throw gone
                case .malformed:
                    throw CommandFailure("The mount of \(record.mountPoint) answers in another version's words. Mount it again with this boxfs.")
                }
            }
            switch answer {
            case .progress(let step): progress(step)
            case .trace(let batch): trace(batch)
            case .done, .status, .statistics, .explanation: return answer
            case .error(.busy, _):
                throw CommandFailure(
                    .busy, "\(record.mountPoint) is in use: close the files and leave the folders that programs have open there "
                        + "(fuser -vm \(record.mountPoint) names them), then try again.")
            case .error(.stopped, let message), .error(.failed, let message): throw CommandFailure(message)
            }
        }
    }

    static let timedOut = "The time is over and changes still wait. They are safe on this machine and go on being sent; boxfs status shows how far it is."

    private var gone: CommandFailure {
        CommandFailure(
            .notMounted, "The mount process of \(record.mountPoint) ended meanwhile. Nothing is lost: run boxfs umount \(record.mountPoint), then mount it again. Its log is \(record.stateFolder)/\(StateFolder.logName).")
    }

    private func connect() throws(CommandFailure) -> Int32 {
        let client = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard client >= 0 else { throw CommandFailure("No socket can be made: \(systemError()).") }
        guard ControlSocket.withAddress(in: record.stateFolder, { Glibc.connect(client, $0, $1) }) == 0 else {
            let code = errno
            close(client)
            if code == EACCES || code == EPERM {
                throw CommandFailure("\(record.mountPoint) was mounted by another user. Ask as that user, or as root.")
            }
            throw CommandFailure(
                .notMounted, "No mount process answers for \(record.mountPoint) (\(systemError(code))). Run boxfs umount \(record.mountPoint) to clean up, then mount it again; nothing is lost.")
        }
        // Who listens there must be the owner of the mount, or root: otherwise it could tell us anything.
        guard let peer = ControlSocket.peer(of: client)?.user, peer == geteuid() || peer == 0 || geteuid() == 0 else {
            close(client)
            throw CommandFailure("The control socket of \(record.mountPoint) belongs to another user.")
        }
        return client
    }

    private func limit(_ socket: Int32, until deadline: Double) throws(CommandFailure) {
        let left = deadline - Self.now()
        guard left > 0.001 else { throw CommandFailure(.timedOut, Self.timedOut) }
        var time = timeval(tv_sec: Int(left), tv_usec: Int((left - left.rounded(.down)) * 1_000_000))
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    }

    static func now() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
