import Foundation
import Glibc

/// A process that ends the mount's connection with the kernel when this one is killed (Sources/Launcher/guard.c).
///
/// The kernel ends a connection when the last thread that has it is gone. A thread that tells it of a change waits for a folder's lock, which
/// no signal ends (fuse_reverse_inval_entry, fs/fuse/dir.c), and a program that holds the lock may wait for an answer of the process that was
/// killed: neither would ever go on.
struct MountGuard {
    private let process: pid_t?

    /// For the main thread: the guard is told when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG).
    ///
    /// Without the right to end connections (a user where fusectl is not mounted) the mount goes on unguarded.
    init(_ mountPoint: String) {
        let launcher = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        guard launcher.hasSuffix("-command"), let mount = try? MountTable.current().mount(at: mountPoint) else {
            process = nil
            return
        }
        process = ChildProcess.start(String(launcher.dropLast("-command".count)), ["boxfs", "--guard", mount.minor, "\(getpid())"])
    }

    /// When the mount has ended.
    func end() {
        guard let process else { return }
        kill(process, SIGKILL)
        ChildProcess.wait(for: process)
    }
}
