import Foundation
import Glibc
import Shared
import Synchronization

/// The process that serves one mount: from the options to the end of the mount.
enum MountProcess {
    /// Mounts, tells `ready`, serves, and cleans up.
    ///
    /// SIGTERM, SIGINT and SIGHUP send what waits and unmount; a second one does not wait any longer. Unsent data stay in the state folder.
    /// - Returns: when the mount has ended.
    /// - Throws: when there is no mount; then nothing is left behind.
    static func run(_ configuration: MountConfiguration, ready: () -> Void) throws(CommandFailure) {
        // Before any thread starts, so that all of them leave these signals to the one that waits for them.
        let signals = SignalWaiter()
        umask(0o077)
        let folder = try StateFolder(configuration.stateFolder)
        let outcome: Result<RunningMount, CommandFailure> = waitFor {
            do throws(CommandFailure) { return .success(try await Mount.start(configuration)) } catch { return .failure(error) }
        }
        let mount = try outcome.get()
        let record = configuration.record
        let registry = MountRegistry()
        let server: ControlServer
        do throws(CommandFailure) {
            server = try ControlServer(folder: folder.path, control: mount.control)
            server.start()
            try registry.add(record)
        } catch {
            // Nobody could steer such a mount: end it at once.
            mount.detach()
            mount.run()
            throw error
        }
        signals.start { count in handleSignal(count, mount, configuration) }
        let guarding = MountGuard(configuration.mountPoint)
        ready()
        mount.run()
        guarding.end()
        registry.remove(record)
        server.stop()
    }

    /// On the signal thread. The first signal ends the mount in good order, the second at once, the third leaves without a word.
    private static func handleSignal(_ count: Int, _ mount: RunningMount, _ configuration: MountConfiguration) {
        if count > 2 { _exit(ExitStatus.failure.rawValue) }
        Thread.detachNewThread {
            let display = Mutex(SendableDisplay(verb: "Sending before the end"))
            let result: Result<Void, ControlError> = waitFor {
                do throws(ControlError) {
                    return .success(try await mount.control.unmount(now: count > 1) { step in display.withLock { $0.display.show(step) } })
                } catch {
                    return .failure(error)
                }
            }
            display.withLock { $0.display.finish() }
            guard case .failure(let error) = result else { return }
            switch error {
            case .busy where count == 1:
                Terminal.complain("\(configuration.mountPoint) is in use and stays mounted: close what programs have open there, or send the signal again.")
            case .busy: mount.detach()
            case .stopped(let reason), .failed(let reason):
                Terminal.complain("The mount cannot end in good order: \(reason) Send the signal again to leave the rest for the next mount.")
                if count > 1 { mount.detach() }
            }
        }
    }
}

/// `ProgressDisplay` belongs to one thread; this one is only used under a lock.
private struct SendableDisplay: @unchecked Sendable {
    let display: ProgressDisplay
    init(verb: String) { display = ProgressDisplay(verb: verb) }
}

/// Takes the signals that end a mount on a thread of its own, where any function may be called.
private struct SignalWaiter: Sendable {
    private static var ending: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&set, signal) }
        return set
    }

    /// Blocks the signals for the calling thread and all that it starts later.
    init() {
        var set = Self.ending
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    /// - Parameter handler: given 1 for the first signal, 2 for the next.
    func start(_ handler: @escaping @Sendable (Int) -> Void) {
        Thread.detachNewThread {
            var set = Self.ending
            var count = 0
            while true {
                var signal: Int32 = 0
                guard sigwait(&set, &signal) == 0 else { continue }
                count += 1
                handler(count)
            }
        }
    }
}
