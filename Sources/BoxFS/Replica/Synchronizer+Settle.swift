// When the log is sent.
extension Synchronizer {
    /// For how long the log must have been quiet before it is sent, and how long it may wait at most. Waiting lets temporary files vanish before they
    /// are sent, and leaves the machine to the programs that write.
    private struct Wait {
        let quiet, atMost: Duration

        /// After a rest: somebody saved a file, and others may be looking at it.
        static let short = Wait(quiet: .milliseconds(2), atMost: .milliseconds(400))
        static let usual = Wait(quiet: .milliseconds(5), atMost: .milliseconds(400))
        /// While a file is open for writing: what is sent now would have to be copied for its next write.
        static let open = Wait(quiet: .milliseconds(150), atMost: .seconds(2))
    }
    private static let rest = Duration.milliseconds(100)

    /// Returns when the log is to be sent: it is quiet, it has waited for long, or somebody waits for the upload.
    /// - Parameter lastSent: nil: nothing was sent yet.
    func settle(after lastSent: ContinuousClock.Instant?) async throws {
        let begun = ContinuousClock.now, hasRested = lastSent.map { begun - $0 > Self.rest } ?? true
        var changed = begun, newest: Int64 = -1
        while state.withLock(\.uploadWaiters.isEmpty) {
            let (last, isOpen) = tree.lock.withLock { (tree.lastLog, tree.openWriters > 0) }
            let now = ContinuousClock.now, wait: Wait = isOpen ? .open : hasRested ? .short : .usual
            if last != newest { (newest, changed) = (last, now) }
            let left = min(wait.quiet - (now - changed), wait.atMost - (now - begun))
            if left <= .zero { return }
            await pause(left, whileOpen: isOpen)
            try Task.checkCancellation()
        }
    }

    /// Sleeps until it is time to look again, somebody waits for the upload, or no file is open for writing any more.
    private func pause(_ duration: Duration, whileOpen: Bool) async {
        let pause = Task { _ = try? await Task.sleep(for: duration) }
        state.withLock { state in
            guard state.uploadWaiters.isEmpty else { return pause.cancel() }
            (state.pause, state.pausesWhileOpen) = (pause, whileOpen)
        }
        if whileOpen, tree.lock.withLock({ tree.openWriters == 0 }) { pause.cancel() }
        await pause.value
        state.withLock { $0.pause = nil }
    }

    func writersAreGone() {
        state.withLock { if $0.pausesWhileOpen { $0.pause?.cancel() } }
    }
}
