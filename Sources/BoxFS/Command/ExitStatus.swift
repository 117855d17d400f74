import ArgumentParser

/// What `boxfs` answers to the shell. Scripts rely on these numbers: a meaning is never changed, only added.
///
/// docs/COMMANDS.md lists them for people.
enum ExitStatus: Int32, Sendable {
    case success = 0
    /// It did not work; the sentence on standard error says why and what to do.
    case failure = 1
    /// The folder is not a BoxFS mount, or no mount process answers for it.
    case notMounted = 3
    /// The server cannot be reached.
    case unreachable = 4
    /// The given time passed and changes still wait; nothing is lost.
    case timedOut = 5
    /// Files of the mount are in use, or its state folder belongs to a running mount.
    case busy = 6
    /// Nobody is logged in, or the server does not accept the token or password.
    case notLoggedIn = 7
    /// The arguments are wrong (EX_USAGE of sysexits.h; ArgumentParser's own).
    case usage = 64
}

/// Why a command ends without having done what it was asked: one sentence that says what to do, and the exit status.
struct CommandFailure: Error, Sendable, CustomStringConvertible {
    var status: ExitStatus
    var description: String

    init(_ description: String) { self.init(.failure, description) }

    init(_ status: ExitStatus, _ description: String) {
        self.status = status
        self.description = description
    }
}
