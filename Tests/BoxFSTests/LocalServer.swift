import Foundation
import Glibc
import Testing

/// A listening socket on loopback. Connections wait in the kernel's backlog, taken and never answered, until somebody answers one.
/// Closed by the caller.
struct LocalServer: Sendable {
    let descriptor: Int32
    let port: UInt16

    init() throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        try withUnsafeMutablePointer(to: &address) { pointer in
            try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                try #require(bind(descriptor, pointer, length) == 0 && listen(descriptor, 8) == 0 && getsockname(descriptor, pointer, &length) == 0)
            }
        }
        self.descriptor = descriptor
        port = UInt16(bigEndian: address.sin_port)
    }

    var url: String { "http://127.0.0.1:\(port)" }

    /// Takes one connection, waits for a request's head, answers this and closes.
    func answerOnce(_ answer: String) {
        let client = accept(descriptor, nil, nil)
        var request = "", buffer = [UInt8](repeating: 0, count: 4096)
        while !request.contains("\r\n\r\n") {
            let count = recv(client, &buffer, buffer.count, 0)
            guard count > 0 else { break }
            request += String(decoding: buffer.prefix(count), as: UTF8.self)
        }
        _ = send(client, answer, answer.utf8.count, Int32(MSG_NOSIGNAL))
        close(client)
    }

    func close() { close(descriptor) }
    private func close(_ descriptor: Int32) { Glibc.close(descriptor) }
}
