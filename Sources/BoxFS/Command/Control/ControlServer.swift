import Foundation
import Glibc
import Synchronization

/// The mount's end of the control socket. One thread accepts, one thread stands behind each connection (64 at most);
/// the work itself runs as a task, cancelled when the client goes away.
final class ControlServer: Sendable {
    private let socket: Int32
    private let folder: String
    private let control: any MountControl
    private let connections = Atomic<Int>(0)
    /// Unmounts that are not answered yet.
    private let unmounts = Atomic<Int>(0)
    private static let connectionLimit = 64

    /// Binds and listens; a socket file that an earlier process left is replaced, because the caller holds the folder's lock.
    init(folder: String, control: any MountControl) throws(CommandFailure) {
        self.folder = folder
        self.control = control
        let listening = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard listening >= 0 else { throw CommandFailure("The control socket cannot be made: \(systemError()).") }
        unlink("\(folder)/\(ControlSocket.name)")
        // The folder is 0700, so nobody else reaches the socket between bind and chmod.
        guard ControlSocket.withAddress(in: folder, { bind(listening, $0, $1) }) == 0,
            chmod("\(folder)/\(ControlSocket.name)", 0o600) == 0, listen(listening, 16) == 0
        else {
            let reason = systemError()
            close(listening)
            throw CommandFailure("The control socket in \(folder) cannot be made: \(reason).")
        }
        socket = listening
    }

    func start() { Thread.detachNewThread { self.acceptLoop() } }

    /// Takes the socket away and lets those who ask hear their last answer: the unmount that ends the process has one to give.
    /// Blocks for a second at most, for an unmount as long as the kernel takes (it has closed our session by then, and lets go of a million
    /// inodes before umount(2) returns), a minute at most; connections that are open then end with the process.
    func stop() {
        unlink("\(folder)/\(ControlSocket.name)")
        shutdown(socket, Int32(SHUT_RDWR))
        for _ in 0..<12_000 where unmounts.load(ordering: .relaxed) > 0 { usleep(5_000) }
        for _ in 0..<200 where connections.load(ordering: .relaxed) > 0 { usleep(5_000) }
    }

    private func acceptLoop() {
        while true {
            let client = accept(socket, nil, nil)
            if client < 0 {
                switch errno {
                case EINTR, ECONNABORTED: continue
                case EMFILE, ENFILE, ENOMEM, ENOBUFS: usleep(50_000); continue
                default: return    // shut down
                }
            }
            // Glibc's Swift module has no accept4(2); what a child started in between inherits, it closes or never reads.
            _ = fcntl(client, F_SETFD, FD_CLOEXEC)
            guard let peer = ControlSocket.peer(of: client)?.user, peer == geteuid() || peer == 0,
                connections.load(ordering: .relaxed) < Self.connectionLimit
            else {
                close(client)
                continue
            }
            connections.add(1, ordering: .relaxed)
            Thread.detachNewThread {
                self.serve(client)
                self.connections.subtract(1, ordering: .relaxed)
            }
        }
    }

    private func serve(_ client: Int32) {
        // A client that does not read holds up only itself.
        var patience = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        var lines = ControlLines(socket: client)
        guard let request = try? lines.next(ControlRequest.self) else {
            close(client)
            return
        }
        let connection = Connection(client)
        let task = Task { await self.answer(request, connection) }
        // The client says nothing more: what can be read now is the end of the connection.
        var byte: UInt8 = 0
        while recv(client, &byte, 1, 0) > 0 || errno == EINTR {}
        if case .unmount = request {} else { task.cancel() }
        connection.close()
    }

    private func answer(_ request: ControlRequest, _ connection: Connection) async {
        do throws(ControlError) {
            switch request {
            case .status:
                connection.send(.status(control.status()))
                return
            case .flush(let path):
                try await control.flush(path: path) { connection.send(.progress($0)) }
            case .dropCache:
                try await control.dropCache()
            case .unmount(let now):
                unmounts.add(1, ordering: .relaxed)
                defer { unmounts.subtract(1, ordering: .relaxed) }
                try await control.unmount(now: now) { connection.send(.progress($0)) }
            case .statistics(let reset):
                connection.send(.statistics(control.statistics(reset: reset)))
                return
            case .explain(let path):
                connection.send(.explanation(try control.explain(path)))
                return
            case .trace(let filter):
                await control.trace(filter, process: connection.process) { batch in connection.send(batch) }
            }
            connection.send(.done)
        } catch {
            connection.send(ControlAnswer(error))
        }
    }

    /// The descriptor of one client, which a task may still write to while the thread closes it.
    private final class Connection: Sendable {
        /// -1 once closed; the lock keeps a line whole and a closed number unused.
        private let descriptor: Mutex<Int32>
        /// Who asks.
        let process: Int32

        init(_ descriptor: Int32) {
            self.descriptor = Mutex(descriptor)
            process = ControlSocket.peer(of: descriptor)?.process ?? 0
        }

        /// A line holds only so many records.
        func send(_ batch: TraceBatch) {
            var rest = batch.records[...], lost = batch.lost
            repeat {
                send(.trace(TraceBatch(records: Array(rest.prefix(200)), lost: lost)))
                (rest, lost) = (rest.dropFirst(200), 0)
            } while !rest.isEmpty
        }

        func send(_ answer: ControlAnswer) {
            descriptor.withLock { if $0 >= 0 { _ = ControlSocket.send(answer, to: $0) } }
        }

        func close() {
            descriptor.withLock {
                if $0 >= 0 { Glibc.close($0) }
                $0 = -1
            }
        }
    }
}
