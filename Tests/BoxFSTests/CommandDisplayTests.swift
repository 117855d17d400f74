import Testing
@testable import BoxFS

@Suite struct CommandDisplayTests {
    func progress(_ left: Int, of total: Int, bytes: UInt64 = 0, obstacle: String? = nil) -> FlushProgress {
        FlushProgress(changesLeft: left, changesTotal: total, bytesLeft: bytes, bytesTotal: bytes, obstacle: obstacle)
    }

    @Test func `the bar follows bytes when there are many, changes otherwise`() {
        #expect(ProgressDisplay.fraction(progress(1, of: 4), startBytes: 0) == 0.75)
        #expect(ProgressDisplay.fraction(progress(1, of: 1, bytes: 50 << 20), startBytes: 100 << 20) == 0.45)
        #expect(ProgressDisplay.fraction(progress(0, of: 0), startBytes: 0) == 1)
        #expect(ProgressDisplay.bar(fraction: 0.5, width: 10) == "[#####.....]")
        #expect(ProgressDisplay.bar(fraction: 2, width: 3) == "[###]")
    }

    @Test func `an obstacle is named`() {
        #expect(ProgressDisplay.text(verb: "Sending", progress(2, of: 3, bytes: 2048, obstacle: "no route"), startBytes: 0)
            == "Sending: 2 of 3 changes left, 2 KiB to send; waiting: no route")
    }

    @Test func `a status says what waits and what is wrong`() {
        var status = MountStatus(
            server: "http://x", account: "ada", mountPoint: "/m", connected: true, lastError: nil, pendingChanges: 0, pendingBytes: 0,
            uploadBytesPerSecond: 0, downloadBytesPerSecond: 2048, cacheUsedBytes: 1 << 20, cacheLimitBytes: 10 << 30, unsentBytes: 0,
            sending: [], stopped: nil, problems: [])
        #expect(StatusText.lines(status) == [
            "/m", "  server    http://x as ada, connected", "  pending   nothing: all is on the server",
            "  rates     up 0 B/s, down 2 KiB/s", "  cache     1 MiB of 10 GiB",
        ])
        status.connected = false
        status.lastError = "no route"
        status.pendingChanges = 1
        status.pendingBytes = 5
        status.unsentBytes = 5
        status.stopped = "Another server answers."
        status.sending = (1...7).map { "file \($0)" }
        status.problems = (1...5).map { "problem \($0)" }
        let text = StatusText.lines(status).joined(separator: "\n")
        for part in ["not connected (no route)", "STOPPED", "Another server answers.", "1 change, 5 B", "5 B of it only here", "file 5", "and 2 more", "problem 5", "and 2 earlier"] {
            #expect(text.contains(part), "\(part)")
        }
        #expect(!text.contains("file 6"))
    }
}
