// The control protocol, between the mount process and the `boxfs` that a person starts; both are of one installation.
//
// A Unix stream socket `control.sock` in the mount's state folder, mode 0600; each side checks the other's user. The client
// sends one line of JSON, a `ControlRequest`; the mount sends lines of JSON, each a `ControlAnswer`: any number of `progress`,
// or `trace`, then one `done`, `error`, or the answer itself. A client that closes the connection cancels what it asked for; an unmount goes on.

enum ControlRequest: Codable, Hashable, Sendable {
    case status
    /// - Parameter path: relative to the mount; nil for everything.
    case flush(path: String?)
    case dropCache
    case unmount(now: Bool)
    case statistics(reset: Bool)
    case trace(TraceFilter)
    /// - Parameter path: relative to the mount.
    case explain(path: String)
}

enum ControlAnswer: Codable, Hashable, Sendable {
    case progress(FlushProgress)
    case done
    case status(MountStatus)
    case statistics(MountStatistics)
    case trace(TraceBatch)
    case explanation(FileExplanation)
    case error(Code, message: String)

    enum Code: String, Codable, Sendable {
        case busy, stopped, failed
    }
}

extension ControlAnswer {
    init(_ error: ControlError) {
        self = switch error {
        case .busy: .error(.busy, message: "files are in use")
        case .stopped(let reason): .error(.stopped, message: reason)
        case .failed(let reason): .error(.failed, message: reason)
        }
    }
}
