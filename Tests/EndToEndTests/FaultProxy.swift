import Foundation
import Glibc
import Synchronization
import Testing

/// What happens to the connections of a `FaultProxy`, old and new ones.
enum Fault: Equatable, Sendable {
    case none
    /// Every piece comes so much later.
    case delay(seconds: Double)
    /// Each direction of each connection.
    case throttle(bytesPerSecond: Int)
    /// Connections are taken and nothing moves; what was sent goes on afterwards.
    case silent
    /// As `silent`, but connections that saw it stay silent for ever: new ones work as soon as it is over.
    case blackHole
    /// Connections that ask for changes are as with `silent`; all others work. What such a connection asked before counts.
    case withoutNews
    /// Nobody listens; connections are reset.
    case refuse
    /// Connections are reset (RST) after so many bytes, both directions together.
    case cut(afterBytes: Int)
    /// The answer ends in good order (FIN) after so many bytes: less than its head announced.
    case truncate(afterBytes: Int)
    /// One bit is flipped in so many bytes. Heads of HTTP messages are left alone: only TLS can protect them.
    case corrupt(everyBytes: Int)
}

/// Passes bytes between mounts and a server, and does to them what the network can do. `fault` may be changed at any time.
///
/// One thread accepts, one pumps for each direction of a connection. `end` closes everything.
final class FaultProxy: Sendable {
    let port: Int
    private let target: Int
    private struct State: Sendable {
        var fault = Fault.none
        var listener: Int32 = -1
        var links: [ObjectIdentifier: Link] = [:]
        var isOver = false
        var random = SystemRandomNumberGenerator()
    }
    private let state = Mutex(State())
    /// Connections that were taken, bits that were flipped, and bytes that went to the server, so far.
    let connections = Atomic<Int>(0), flips = Atomic<Int>(0), sent = Atomic<Int>(0)

    /// - Parameter target: the server's port, on loopback.
    init(to target: Int) throws {
        self.target = target
        let (listener, port) = try Self.listen(try Drive.freePort())
        self.port = port
        accept(listener)
    }

    deinit { end() }

    var url: String { "http://127.0.0.1:\(port)" }

    var fault: Fault {
        get { state.withLock(\.fault) }
        set {
            let (old, links) = state.withLock { state in
                defer { state.fault = newValue }
                return (state.fault, Array(state.links.values))
            }
            switch (old, newValue) {
            case (.refuse, .refuse): break
            case (_, .refuse):
                closeListener()
                for link in links { link.reset() }
            case (.refuse, _): if let (listener, _) = try? Self.listen(port) { accept(listener) }
            default: break
            }
            if newValue == .blackHole { for link in links { link.isForgotten.store(true, ordering: .relaxed) } }
        }
    }

    /// Connections that are open now are forgotten: nothing moves on them any more, and nobody is told. New ones work.
    func forget() { for link in state.withLock({ Array($0.links.values) }) { link.isForgotten.store(true, ordering: .relaxed) } }

    func end() {
        let links = state.withLock { state in
            state.isOver = true
            return Array(state.links.values)
        }
        closeListener()
        for link in links { link.reset() }
    }

    // MARK: Accepting

    private static func listen(_ port: Int) throws -> (descriptor: Int32, port: Int) {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var yes: Int32 = 1
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        var address = loopback(port), length = socklen_t(MemoryLayout<sockaddr_in>.size)
        try withUnsafeMutablePointer(to: &address) { pointer in
            try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                try #require(bind(listener, pointer, length) == 0 && Glibc.listen(listener, 256) == 0 && getsockname(listener, pointer, &length) == 0)
            }
        }
        return (listener, Int(UInt16(bigEndian: address.sin_port)))
    }

    private static func loopback(_ port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        return address
    }

    private func accept(_ listener: Int32) {
        state.withLock { $0.listener = listener }
        Thread.detachNewThread { [weak self] in
            while true {
                let client = Glibc.accept(listener, nil, nil)
                if client < 0, errno == EINTR || errno == ECONNABORTED { continue }
                guard client >= 0 else { break }
                _ = fcntl(client, F_SETFD, FD_CLOEXEC)
                guard let self else { _ = close(client); break }
                self.open(client)
            }
            _ = close(listener)
        }
    }

    /// Wakes the accepting thread, which closes the descriptor: nobody else may, as its number would be another's at once.
    private func closeListener() {
        state.withLock { state in
            if state.listener >= 0 { shutdown(state.listener, Int32(SHUT_RDWR)) }
            state.listener = -1
        }
    }

    private func open(_ client: Int32) {
        connections.add(1, ordering: .relaxed)
        let server = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = Self.loopback(target), yes: Int32 = 1
        for descriptor in [client, server] { setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size)) }
        let isConnected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(server, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0 }
        }
        let link = Link(client: client, server: server)
        // The server is down: as without a proxy, the client is told so.
        guard isConnected else { return link.close() }
        let isOpen = state.withLock { state in
            guard !state.isOver, state.fault != .refuse else { return false }
            if state.fault == .blackHole { link.isForgotten.store(true, ordering: .relaxed) }
            state.links[ObjectIdentifier(link)] = link
            return true
        }
        guard isOpen else { return link.close() }
        for (from, to, isAnswer) in [(client, server, false), (server, client, true)] {
            let thread = Thread { [self] in
                pump(link, from, to, isAnswer)
                if link.leave() {
                    _ = state.withLock { $0.links.removeValue(forKey: ObjectIdentifier(link)) }
                    link.close()
                }
            }
            thread.stackSize = 256 << 10
            thread.start()
        }
    }

    // MARK: Passing on

    private func pump(_ link: Link, _ from: Int32, _ to: Int32, _ isAnswer: Bool) {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = recv(from, &buffer, buffer.count, 0)
            if count < 0, errno == EINTR { continue }
            if count < 0 { return link.reset() }
            if !isAnswer, buffer.starts(with: Array("POST /v1/changes".utf8)) { link.asksForChanges.store(true, ordering: .relaxed) }
            guard pass(link) else { return }
            if count == 0 {
                shutdown(to, Int32(SHUT_WR))
                return
            }
            guard deliver(&buffer, count, to, link, isAnswer) else { return }
        }
    }

    /// Waits while nothing may move.
    /// - Returns: false when the connection ended meanwhile.
    private func pass(_ link: Link) -> Bool {
        while !link.isReset.load(ordering: .relaxed) {
            let fault = fault
            let isSilent = fault == .silent || fault == .blackHole || fault == .withoutNews && link.asksForChanges.load(ordering: .relaxed)
            if !link.isForgotten.load(ordering: .relaxed), !isSilent { return true }
            usleep(5_000)
        }
        return false
    }

    private func deliver(_ buffer: inout [UInt8], _ count: Int, _ to: Int32, _ link: Link, _ isAnswer: Bool) -> Bool {
        var done = 0
        while done < count {
            guard pass(link) else { return false }
            var part = count - done
            switch fault {
            case .delay(let seconds): sleep(seconds, link)
            case .throttle(let rate):
                part = min(part, max(1, rate / 20))
                sleep(Double(part) / Double(rate), link)
            case .cut(let limit):
                if link.passed.add(part, ordering: .relaxed).newValue > limit {
                    link.reset()
                    return false
                }
            case .truncate(let limit) where isAnswer:
                let before = link.passed.add(part, ordering: .relaxed).oldValue
                if before + part > limit {
                    send(buffer, done, max(0, limit - before), to)
                    shutdown(to, Int32(SHUT_WR))
                    link.reset(afterEnd: true)
                    return false
                }
            case .corrupt(let interval): flip(&buffer, done..<count, interval)
            default: break
            }
            guard send(buffer, done, part, to) else {
                link.reset()
                return false
            }
            done += part
            if !isAnswer { sent.add(part, ordering: .relaxed) }
        }
        return true
    }

    @discardableResult
    private func send(_ buffer: [UInt8], _ offset: Int, _ count: Int, _ to: Int32) -> Bool {
        var done = 0
        while done < count {
            let part = buffer.withUnsafeBytes { Glibc.send(to, $0.baseAddress! + offset + done, count - done, Int32(MSG_NOSIGNAL)) }
            if part < 0, errno == EINTR { continue }
            guard part > 0 else { return false }
            done += part
        }
        return true
    }

    private func flip(_ buffer: inout [UInt8], _ range: Range<Int>, _ interval: Int) {
        var start = range.lowerBound
        let head = buffer[range].prefix(16)
        if head.starts(with: Array("HTTP/1.1".utf8)) || String(decoding: head, as: UTF8.self).contains(" /v1/") {
            guard let end = (start..<max(start, range.upperBound - 3)).first(where: { buffer[$0...].starts(with: [13, 10, 13, 10]) }) else { return }
            start = end + 4
        }
        let count = range.upperBound - start
        guard count > 0 else { return }
        let at = state.withLock { Int.random(in: 0..<max(interval, count), using: &$0.random) }
        guard at < count else { return }
        buffer[start + at] ^= 1 << UInt8(at % 8)
        flips.add(1, ordering: .relaxed)
    }

    private func sleep(_ seconds: Double, _ link: Link) {
        let end = Date(timeIntervalSinceNow: seconds)
        while Date() < end, !link.isReset.load(ordering: .relaxed) { usleep(UInt32(min(20_000, max(100, end.timeIntervalSinceNow * 1e6)))) }
    }

    /// One connection of a client and ours to the server for it.
    private final class Link: Sendable {
        let client: Int32, server: Int32
        let isForgotten = Atomic<Bool>(false), isReset = Atomic<Bool>(false), asksForChanges = Atomic<Bool>(false)
        let passed = Atomic<Int>(0)
        private let pumps = Atomic<Int>(2)

        init(client: Int32, server: Int32) { (self.client, self.server) = (client, server) }

        /// Ends both sides; RST for who still sends, unless the end was told in good order.
        func reset(afterEnd: Bool = false) {
            guard !isReset.exchange(true, ordering: .relaxed) else { return }
            if !afterEnd {
                var now = linger(l_onoff: 1, l_linger: 0)
                for descriptor in [client, server] { setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &now, socklen_t(MemoryLayout<linger>.size)) }
            }
            for descriptor in [client, server] { shutdown(descriptor, Int32(afterEnd ? SHUT_RD : SHUT_RDWR)) }
        }

        /// - Returns: true for the last of the two pumps.
        func leave() -> Bool { pumps.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 }

        func close() { for descriptor in [client, server] { Glibc.close(descriptor) } }
    }
}
