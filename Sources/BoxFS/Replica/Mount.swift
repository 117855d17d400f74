import Foundation
import Shared
import Synchronization

/// A mounted replica: what the control socket talks to.
final class Mount: MountControl {
    let replica: Replica
    let session: MountSession
    private let about: About
    private let meter = Mutex(Meter())
    let instruments: Instruments
    let began = Timestamp.now()
    /// What was counted at the last `stats --reset`.
    let baseline = Mutex<MountStatistics?>(nil)

    /// What `status` repeats of the command line.
    struct About: Sendable {
        var server: String
        var account: String
        var mountPoint: String
    }

    init(replica: Replica, session: MountSession, instruments: Instruments, about: About) {
        self.instruments = instruments
        self.replica = replica
        self.session = session
        self.about = about
    }

    /// Mounts and begins to synchronize; `run` then answers the kernel.
    func begin() throws(MountError) {
        try session.mount()
        replica.synchronizer.start(notifying: session)
        replica.scrubber.start()
    }

    /// Blocks until the folder is unmounted, then closes the replica.
    func run() {
        session.run()
        instruments.listeners.end()
        replica.scrubber.stop()
        let done = DispatchSemaphore(value: 0)
        Task {
            await replica.synchronizer.stop()
            done.signal()
        }
        done.wait()
        replica.tree.database.close()
        session.destroy()
    }

    // MARK: MountControl

    func status() -> MountStatus {
        let state = replica.synchronizer.state.withLock { state in
            (state.isConnected, state.lastError, state.sending, state.stopped, state.problems)
        }
        let pending = replica.pending()
        let counters = replica.remote.engine.settings.counters
        let rates = meter.withLock {
            $0.rates(sent: counters.sent.load(ordering: .relaxed), received: counters.received.load(ordering: .relaxed), now: .now)
        }
        return MountStatus(
            server: about.server, account: about.account, mountPoint: about.mountPoint, connected: state.0, lastError: state.1,
            pendingChanges: pending.changes, pendingBytes: pending.bytes, uploadBytesPerSecond: rates.up,
            downloadBytesPerSecond: rates.down, cacheUsedBytes: replica.cache.usedBytes, cacheLimitBytes: replica.cache.limitBytes,
            unsentBytes: pending.bytes, sending: state.2, stopped: state.3, problems: state.4)
    }

    /// The log is sent in order, so waiting for what is under `path` is waiting for all that was written before the call.
    func flush(path: String?, progress: @escaping @Sendable (FlushProgress) -> Void) async throws(ControlError) {
        if let reason = replica.synchronizer.state.withLock({ $0.stopped }) { throw .stopped(reason) }
        let start = replica.pending()
        do throws(FileSystemError) {
            try await replica.flush { [self] in
                let (changes, bytes) = replica.pending()
                let obstacle = replica.synchronizer.state.withLock { state in
                    state.stopped ?? (state.isOverQuota ? "The quota is used up." : state.isConnected ? nil : state.lastError)
                }
                progress(FlushProgress(
                    changesLeft: changes, changesTotal: max(changes, start.changes), bytesLeft: bytes, bytesTotal: max(bytes, start.bytes),
                    obstacle: obstacle))
            }
        } catch { throw .failed("The local database cannot be written (\(error)).") }
        if let reason = replica.synchronizer.state.withLock({ $0.stopped }) { throw .stopped(reason) }
    }

    func dropCache() async throws(ControlError) { await replica.dropCache() }

    func unmount(now: Bool, progress: @escaping @Sendable (FlushProgress) -> Void) async throws(ControlError) {
        if !now {
            if session.isBusy() { throw .busy }     // before the upload: who waits for it should not learn this at its end
            try await flush(path: nil, progress: progress)
        }
        do throws(MountError) { try session.unmount() } catch {
            throw error.isBusy ? .busy : .failed(error.description)
        }
    }
}

/// Bytes a second since the last look.
private struct Meter {
    private var sent: UInt64 = 0, received: UInt64 = 0
    private var time: ContinuousClock.Instant?
    private var last = (up: 0.0, down: 0.0)

    mutating func rates(sent nowSent: UInt64, received nowReceived: UInt64, now: ContinuousClock.Instant) -> (up: Double, down: Double) {
        defer { (sent, received, time) = (nowSent, nowReceived, now) }
        guard let time else { return (0, 0) }
        let seconds = (now - time) / .seconds(1)
        if seconds > 0.05 { last = (Double(nowSent - sent) / seconds, Double(nowReceived - received) / seconds) }
        return last
    }
}
