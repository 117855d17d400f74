import Foundation
import Glibc

/// Names, addresses and lines of the control socket; both ends use it.
enum ControlSocket {
    static let name = "control.sock"
    static let lineLimitBytes = 1 << 20

    /// Calls bind(2) or connect(2) on `name` in `folder`, however long the folder's path is.
    ///
    /// sun_path holds 108 bytes, a state folder's path may be longer: the address goes through a descriptor of the folder.
    static func withAddress(in folder: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        let directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { return -1 }
        defer { close(directory) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let path = "/proc/self/fd/\(directory)/\(name)"
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
    }

    /// The user and the process at the other end; nil when the kernel does not tell.
    static func peer(of socket: Int32) -> (user: uid_t, process: pid_t)? {
        // struct ucred of unix(7), which Swift's Glibc module leaves out.
        var credentials: (pid: Int32, uid: UInt32, gid: UInt32) = (0, 0, 0)
        var length = socklen_t(MemoryLayout.size(ofValue: credentials))
        guard getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0, length == 12 else { return nil }
        return (credentials.uid, credentials.pid)
    }

    /// Sends one value as a line; false when the other end is gone or does not read for long.
    static func send(_ value: some Encodable, to socket: Int32) -> Bool {
        guard var line = try? JSONEncoder().encode(value) else { return false }
        line.append(UInt8(ascii: "\n"))
        return line.withUnsafeBytes { bytes in
            var sent = 0
            while sent < bytes.count {
                let count = Glibc.send(socket, bytes.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else { return false }
                sent += count
            }
            return true
        }
    }
}

/// Reads lines of JSON from a socket. Used by one thread.
struct ControlLines {
    let socket: Int32
    private var buffer = Data()

    init(socket: Int32) { self.socket = socket }

    enum Failure: Error { case closed, timedOut, malformed }

    /// Blocks until a line is there, the other end closes, or the socket's receive timeout passes.
    mutating func next<Value: Decodable>(_ type: Value.Type) throws(Failure) -> Value {
        while true {
            if let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
                let line = Data(buffer[..<end])
                buffer = Data(buffer[(end + 1)...])
                guard let value = try? JSONDecoder().decode(type, from: line) else { throw .malformed }
                return value
            }
            guard buffer.count < ControlSocket.lineLimitBytes else { throw .malformed }
            var block = [UInt8](repeating: 0, count: 16384)
            let count = recv(socket, &block, block.count, 0)
            if count < 0 && errno == EINTR { continue }
            if count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) { throw .timedOut }
            guard count > 0 else { throw .closed }
            buffer.append(contentsOf: block[..<count])
        }
    }
}
