import CCurl
import Glibc
import Synchronization

/// Asks a running exchange to end.
///
/// libcurl looks at its progress callback about once a second while nothing arrives; shutting the sockets down wakes it at once.
final class TransferToken: Sendable {
    private struct State {
        var isCancelled = false
        var sockets: TransferSockets?
    }
    /// Held while the sockets are shut down, so that they are this exchange's and not the next one's. Taken before `TransferSockets`' lock.
    private let state = Mutex(State())

    var isCancelled: Bool { state.withLock(\.isCancelled) }

    func cancel() {
        state.withLock { state in
            state.isCancelled = true
            state.sockets?.shutDown()
        }
    }

    /// - Parameter sockets: of the connection that the exchange uses from now on; nil when it ended.
    func attach(_ sockets: TransferSockets?) { state.withLock { $0.sockets = sockets } }
}

/// The open sockets of one connection handle. Its lock is held while one of them closes: a number is never shut down after it became
/// another file's.
final class TransferSockets: Sendable {
    private let open = Mutex<Set<Int32>>([])

    func open(_ address: curl_sockaddr) -> curl_socket_t {
        let socket = socket(address.family, address.socktype | Int32(SOCK_CLOEXEC.rawValue), address.protocol)
        if socket >= 0 { _ = open.withLock { $0.insert(socket) } }
        return socket
    }

    func close(_ socket: curl_socket_t) -> Int32 {
        open.withLock { open in
            open.remove(socket)
            return Glibc.close(socket)
        }
    }

    func shutDown() {
        open.withLock { for socket in $0 { shutdown(socket, Int32(SHUT_RDWR)) } }
    }
}
