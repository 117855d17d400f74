import Foundation
import Glibc
import Testing

/// The WebSocket of changes, heard by a client of our own that knows RFC 6455 and nothing of the server.
@Suite(.serialized) struct NotificationTests {
    /// Blocking; masks what it sends, as clients must.
    final class WebSocket {
        private let descriptor: Int32
        let status: Int
        let head: String
        private var buffer: [UInt8] = []

        init(port: Int, _ target: String, _ headers: [String]) throws {
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            self.descriptor = descriptor
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = in_port_t(port).bigEndian
            address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
            let connected = withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
            }
            var limit = timeval(tv_sec: 10, tv_usec: 0)
            setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
            try #require(connected == 0)
            // Key and answer of RFC 6455, section 1.3.
            let lines = ["GET \(target) HTTP/1.1", "Host: test", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
            let request = Array(((lines + headers).joined(separator: "\r\n") + "\r\n\r\n").utf8)
            try #require(write(descriptor, request, request.count) == request.count)
            var bytes: [UInt8] = [], end = 0
            while end == 0 {
                var block = [UInt8](repeating: 0, count: 4096)
                let count = read(descriptor, &block, block.count)
                try #require(count > 0, "no answer to the handshake: \(String(decoding: bytes, as: UTF8.self))")
                bytes += block[..<count]
                for at in 0..<max(0, bytes.count - 3) where end == 0 && Array(bytes[at..<at + 4]) == [13, 10, 13, 10] { end = at + 4 }
            }
            head = String(decoding: bytes[..<end], as: UTF8.self)
            status = head.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
            buffer = Array(bytes[end...])
        }

        deinit { close(descriptor) }

        private func take(_ count: Int) -> [UInt8]? {
            while buffer.count < count {
                var block = [UInt8](repeating: 0, count: 65_536)
                let got = read(descriptor, &block, block.count)
                guard got > 0 else { return nil }
                buffer += block[..<got]
            }
            defer { buffer.removeFirst(count) }
            return Array(buffer[..<count])
        }

        /// The next frame; nil at the end of the connection.
        func frame() -> (opcode: UInt8, body: [UInt8])? {
            guard let start = take(2) else { return nil }
            var length = Int(start[1] & 127)
            if length >= 126 {
                guard let more = take(length == 126 ? 2 : 8) else { return nil }
                length = more.reduce(0) { $0 << 8 | Int($1) }
            }
            guard let body = take(length) else { return nil }
            return (start[0] & 15, body)
        }

        func send(_ opcode: UInt8, _ body: [UInt8]) {
            let mask: [UInt8] = [1, 2, 3, 4]
            let bytes = [0x80 | opcode, 0x80 | UInt8(body.count)] + mask + body.enumerated().map { $0.element ^ mask[$0.offset & 3] }
            _ = write(descriptor, bytes, bytes.count)
        }

        /// The next page of changes; pings between are answered.
        func page() throws -> [String: Any] {
            while let (opcode, body) = frame() {
                if opcode == 9 { send(10, body) }
                if opcode == 1 { return try #require(try JSONSerialization.jsonObject(with: Data(body)) as? [String: Any]) }
                try #require(opcode != 8, "closed: \(body)")
            }
            throw POSIXError(.ECONNRESET)
        }
    }

    private static func login(_ drive: Drive, _ name: String) throws -> (token: String, home: String) {
        let body = #"{"user":"\#(name)","password":"secret of \#(name)","device":"test"}"#
        let answer = try run("curl", ["-s", "-X", "POST", drive.url + "/v1/login", "-d", body])
        let json = try #require(try JSONSerialization.jsonObject(with: Data(answer.output.utf8)) as? [String: Any])
        return (try #require(json["token"] as? String), try #require((json["account"] as? [String: Any])?["home"] as? String))
    }

    /// Rows of entries and nodes, each as one text with its number.
    private func rows(_ page: [String: Any]) -> Set<String> {
        var rows: Set<String> = []
        for entry in page["entries"] as? [[String: Any]] ?? [] { rows.insert("\(entry["parent"]!) \(entry["name"]!) \(entry["node"]!) \(entry["sequence"]!) \(entry["deleted"]!)") }
        for node in page["nodes"] as? [[String: Any]] ?? [] { rows.insert("\(node["id"]!) \(node["sequence"]!) \(node["deleted"]!)") }
        return rows
    }

    @Test func theSocketTellsWhatTheLongPollTellsAndGoesOnAtACursor() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        let (token, home) = try Self.login(drive, "ann")
        let bearer = ["Authorization: Bearer \(token)"]
        let socket = try WebSocket(port: drive.port, "/v1/notifications?namespace=\(home)&after=0", bearer)
        #expect(socket.status == 101 && socket.head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "\(socket.head)")
        for index in 0..<40 { try mount.write("f\(index)", [1]) }
        for index in 0..<10 { #expect(unlink(mount("f\(index)")) == 0) }
        try mount.flush()
        func poll(_ after: Int) throws -> [String: Any] {
            let answer = try run("curl", ["-s", "-H", bearer[0], "\(drive.url)/v1/namespaces/\(home)/changes?after=\(after)&limit=2000"])
            return try #require(try JSONSerialization.jsonObject(with: Data(answer.output.utf8)) as? [String: Any])
        }
        let truth = try poll(0), end = try #require(truth["cursor"] as? Int)
        var told: Set<String> = [], cursor = 0
        while cursor < end {
            let page = try socket.page()
            told.formUnion(rows(page))
            let next = try #require(page["cursor"] as? Int)
            #expect(next > cursor)
            cursor = next
        }
        #expect(rows(truth).subtracting(told) == [], "the socket did not tell what the poll tells")
        // Gone for a while; nothing of it is missed.
        socket.send(8, [3, 232])
        #expect(socket.frame()?.opcode == 8)
        try mount.write("meanwhile", [1])
        try mount.flush()
        let again = try WebSocket(port: drive.port, "/v1/notifications?namespace=\(home)&after=\(cursor)", bearer)
        let page = try again.page()
        #expect((page["entries"] as? [[String: Any]])?.contains { $0["name"] as? String == "meanwhile" } == true, "\(page)")
        again.send(9, Array("beat".utf8))
        let pong = again.frame()
        #expect(pong?.opcode == 10 && pong?.body == Array("beat".utf8))
        // A browser's way to say who it is.
        let browser = try WebSocket(port: drive.port, "/v1/notifications", ["Sec-WebSocket-Protocol: boxfs.v1, boxfs.token.\(token)"])
        #expect(browser.status == 101 && browser.head.contains("boxfs.v1") && !browser.head.contains("boxfs.token"), "\(browser.head)")
        try mount.write("after that", [1])
        #expect((try browser.page()["entries"] as? [[String: Any]])?.contains { $0["name"] as? String == "after that" } == true)
        // The server ends without waiting for its subscribers, and says so.
        drive.stopServer()
        var last = browser.frame()
        while let frame = last, frame.opcode != 8 { last = browser.frame() }
        #expect(last == nil || last?.body == [3, 233], "1001, going away: \(String(describing: last))")
    }

    @Test func aSubscriberHearsOnlyWhatItMayRead() throws {
        let drive = try Drive()
        defer { drive.end() }
        try drive.addAccount("eve")
        let ann = try Self.login(drive, "ann"), eve = try Self.login(drive, "eve")
        #expect(try WebSocket(port: drive.port, "/v1/notifications", []).status == 401)
        #expect(try WebSocket(port: drive.port, "/v1/notifications", ["Authorization: Bearer 00"]).status == 401)
        #expect(try WebSocket(port: drive.port, "/v1/notifications?namespace=\(ann.home)", ["Authorization: Bearer \(eve.token)"]).status == 404)
        #expect(try WebSocket(port: drive.port, "/v1/notifications?after=x", ["Authorization: Bearer \(eve.token)"]).status == 400)
        #expect(try run("curl", ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Authorization: Bearer \(eve.token)", drive.url + "/v1/notifications"]).output == "426")
        let socket = try WebSocket(port: drive.port, "/v1/notifications", ["Authorization: Bearer \(eve.token)"])
        #expect(socket.status == 101)
        let logout = try run("curl", ["-s", "-X", "POST", "-w", "%{http_code}", "-H", "Authorization: Bearer \(eve.token)", drive.url + "/v1/logout"])
        #expect(logout.output == "204")
        // Looked at again every 5 seconds, and before anything is told.
        var frame = socket.frame()
        while let found = frame, found.opcode != 8 { frame = socket.frame() }
        #expect(frame?.body == [3, 240], "1008, policy violation: \(String(describing: frame))")
    }
}
