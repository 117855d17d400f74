import Foundation
import Glibc
import Shared
import Synchronization
import Testing
@testable import BoxFS

/// Runs what blocks on a thread of its own: the cooperative pool has few threads, and the answering side needs one.
func onThread<Answer: Sendable>(_ work: @escaping @Sendable () throws -> Answer) async throws -> Answer {
    try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread { continuation.resume(with: Result { try work() }) }
    }
}

/// Both ends of the control socket, with a mount that only notes what it is asked.
@Suite(.timeLimit(.minutes(1))) struct CommandControlTests {
    final class RecordingControl: MountControl {
        struct State: Sendable { var asked: [String] = [], isCancelled = false, isWaiting = false }
        let state = Mutex(State())
        /// An unmount that succeeds takes so long; 0: it is refused.
        let slowUnmountSeconds: Double
        init(slowUnmountSeconds: Double = 0) { self.slowUnmountSeconds = slowUnmountSeconds }

        func note(_ text: String) { state.withLock { $0.asked.append(text) } }

        func status() -> MountStatus {
            MountStatus(
                server: "http://x", account: "ada", mountPoint: "/m", connected: false, lastError: "no route", pendingChanges: 1,
                pendingBytes: 2, uploadBytesPerSecond: 3, downloadBytesPerSecond: 4, cacheUsedBytes: 5, cacheLimitBytes: 6, unsentBytes: 7,
                sending: ["ä b"], stopped: nil, problems: ["p"])
        }

        func flush(path: String?, progress: @escaping @Sendable (FlushProgress) -> Void) async throws(ControlError) {
            note("flush \(path ?? "all")")
            if path == "stopped" { throw .stopped("Log in again.") }
            for left in [2, 1] { progress(FlushProgress(changesLeft: left, changesTotal: 2, bytesLeft: 0, bytesTotal: 0)) }
            guard path == "forever" else { return }
            state.withLock { $0.isWaiting = true }
            try? await Task.sleep(for: .seconds(60))
            state.withLock { $0.isCancelled = Task.isCancelled }
        }

        func dropCache() async throws(ControlError) { throw .failed("The disk is gone.") }

        func unmount(now: Bool, progress: @escaping @Sendable (FlushProgress) -> Void) async throws(ControlError) {
            note("unmount \(now)")
            guard slowUnmountSeconds > 0 else { throw .busy }
            state.withLock { $0.isWaiting = true }
            try? await Task.sleep(for: .seconds(slowUnmountSeconds))
        }

        func statistics(reset: Bool) -> MountStatistics {
            note("statistics \(reset)")
            return MountStatistics(
                since: Timestamp(nanoseconds: 1), time: Timestamp(nanoseconds: 2),
                operations: ["read": Instruments.Counts(durations: HistogramCounts(buckets: [3: 4], sum: 5, maximum: 6), errors: [2: 1], amount: 7)],
                lanes: [:], exchanges: [:], sentBytes: 1, receivedBytes: 2, cacheHits: 3, cacheMisses: 4, cacheEvictions: 5,
                keeps: HistogramCounts(), commits: HistogramCounts(), logSyncs: HistogramCounts(), dataSyncs: HistogramCounts())
        }

        func explain(_ path: String) throws(ControlError) -> FileExplanation {
            FileExplanation(path: path, inode: 5, isDirectory: false, size: 6, state: "local", version: nil, hasWaitingChange: true)
        }

        func trace(_ filter: TraceFilter, process: Int32, _ tell: @escaping @Sendable (TraceBatch) -> Void) async {
            let record = RequestRecord(RecentRequests.Kept(RequestAccount(RequestCall(.read, 1), thread: process), 0, 1), inode: 1, caller: nil)
            tell(TraceBatch(records: [RequestRecord](repeating: record, count: 450), lost: 3))
        }
    }

    let folder = TestFolder()
    let control = RecordingControl()

    /// - Parameter deep: makes the socket's path longer than sun_path holds.
    func start(deep: Bool = false) throws -> (server: ControlServer, client: ControlClient) {
        var path = folder / "state"
        if deep { path += "/" + String(repeating: "d", count: 200) }
        try PrivateFile.makeFolder(path)
        let server = try ControlServer(folder: path, control: control)
        server.start()
        let record = MountRecord(mountPoint: "/m", stateFolder: path, process: getpid(), profile: "default", server: "http://x", account: "ada")
        return (server, ControlClient(record: record))
    }

    @Test(arguments: [false, true]) func `a status comes back whole`(deep: Bool) async throws {
        let (server, client) = try start(deep: deep)
        defer { server.stop() }
        #expect(try await onThread { try client.ask(.status) } == .status(control.status()))
        #expect(TestFolder.mode("\(client.record.stateFolder)/\(ControlSocket.name)") == 0o600)
    }

    @Test func `progress is passed on, in order`() async throws {
        let (server, client) = try start()
        defer { server.stop() }
        let seen = Mutex<[Int]>([])
        let answer = try await onThread { try client.ask(.flush(path: "a/b")) { step in seen.withLock { $0.append(step.changesLeft) } } }
        #expect(answer == .done)
        #expect(seen.withLock { $0 } == [2, 1])
        #expect(control.state.withLock { $0.asked } == ["flush a/b"])
    }

    @Test func `statistics, explanations and traces come back whole`() async throws {
        let (server, client) = try start()
        defer { server.stop() }
        #expect(try await onThread { try client.ask(.statistics(reset: true)) } == .statistics(control.statistics(reset: true)))
        #expect(try await onThread { try client.ask(.explain(path: "a/b")) } == .explanation(control.explain("a/b")))
        let batches = Mutex<[TraceBatch]>([])
        #expect(try await onThread { try client.ask(.trace(TraceFilter()), trace: { batch in batches.withLock { $0.append(batch) } }) } == .done)
        #expect(batches.withLock { $0.reduce(0) { $0 + $1.records.count } } == 450 && batches.withLock { $0.map(\.lost) } == [3, 0, 0])
        #expect(batches.withLock { $0[0].records[0].process } == getpid())
    }

    @Test func `errors keep their meaning`() async throws {
        let (server, client) = try start()
        defer { server.stop() }
        #expect(await #expect(throws: CommandFailure.self) { try await onThread { try client.ask(.unmount(now: true)) } }?.status == .busy)
        #expect(await #expect(throws: CommandFailure.self) { try await onThread { try client.ask(.flush(path: "stopped")) } }?.description == "Log in again.")
        #expect(await #expect(throws: CommandFailure.self) { try await onThread { try client.ask(.dropCache) } }?.description == "The disk is gone.")
    }

    @Test func `a client that gives up cancels what it asked for`() async throws {
        let (server, client) = try start()
        defer { server.stop() }
        let failure = await #expect(throws: CommandFailure.self) { try await onThread { try client.ask(.flush(path: "forever"), timeoutSeconds: 0.3) } }
        #expect(failure?.status == .timedOut)
        let deadline = ControlClient.now() + 10
        while !control.state.withLock({ $0.isCancelled }), ControlClient.now() < deadline { try await Task.sleep(for: .milliseconds(10)) }
        #expect(control.state.withLock { $0.isCancelled })
    }

    @Test func `an unmount that takes the kernel long is answered before the process ends`() async throws {
        let folder = TestFolder(), slow = RecordingControl(slowUnmountSeconds: 2.5)
        let server = try ControlServer(folder: folder.path, control: slow)
        server.start()
        let record = MountRecord(mountPoint: "/m", stateFolder: folder.path, process: getpid(), profile: "default", server: "http://x", account: "ada")
        let asked = Task { try await onThread { try ControlClient(record: record).ask(.unmount(now: true)) } }
        while !slow.state.withLock({ $0.isWaiting }) { try await Task.sleep(for: .milliseconds(10)) }
        let start = ControlClient.now()
        try await onThread { server.stop() }
        #expect(ControlClient.now() - start > 2)
        #expect(try await asked.value == .done)
    }

    @Test func `nobody there is "not mounted"`() async throws {
        let (server, client) = try start()
        server.stop()
        #expect(await #expect(throws: CommandFailure.self) { try await onThread { try client.ask(.status) } }?.status == .notMounted)
    }

    @Test func `nonsense closes the connection and nothing else`() async throws {
        let (server, client) = try start()
        defer { server.stop() }
        for line in ["\n", "{}\n", "{\"status\":1}\n", "\u{0}\n", String(repeating: "x", count: 2 << 20)] {
            let socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
            #expect(ControlSocket.withAddress(in: client.record.stateFolder) { connect(socket, $0, $1) } == 0)
            _ = line.withCString { send(socket, $0, strlen($0), Int32(MSG_NOSIGNAL)) }
            shutdown(socket, Int32(SHUT_WR))
            var byte: UInt8 = 0
            #expect(recv(socket, &byte, 1, 0) <= 0)
            close(socket)
        }
        #expect(try await onThread { try client.ask(.status) } == .status(control.status()))
    }
}
