import CCurl
import Foundation
import Glibc
import Shared
import Synchronization

/// One connection: a libcurl easy handle that one thread uses for one exchange after another.
final class CurlWorker {
    private var handle: UnsafeMutableRawPointer
    private var silencesSeen: UInt64 = 0
    private let sockets = TransferSockets()

    /// What the callbacks work on; lives for one exchange.
    final class Exchange {
        var answer: [UInt8] = []
        var sink: (any AnswerSink)?
        var received = 0
        var isSuccess = false
        /// A success in JSON has a digest.
        var isJSON = false
        var maximumAnswerBytes = 0
        var isTooLong = false
        var retryAfterSeconds: Double?
        var digest: String?
        var body: [UInt8] = []
        var file: OpenDescriptor?
        var fileOffset = 0
        var bodyCount = 0
        var sent = 0
        let token: TransferToken
        init(_ token: TransferToken) { self.token = token }
    }

    init() {
        curl_global_init(Int(CURL_GLOBAL_DEFAULT))
        handle = Self.makeHandle()
    }

    deinit { curl_easy_cleanup(handle) }

    private static func makeHandle() -> UnsafeMutableRawPointer {
        guard let handle = curl_easy_init() else { preconditionFailure("libcurl has no memory for a handle") }
        return handle
    }

    /// Where one connection was forgotten, the others that are as old were too, most likely: each would take as long to be found out.
    private func dropDoubtfulConnection(_ counters: TransferCounters) {
        let silences = counters.silences.load(ordering: .relaxed)
        guard silences != silencesSeen else { return }
        silencesSeen = silences
        curl_easy_cleanup(handle)
        handle = Self.makeHandle()
    }

    /// Does one exchange; blocks its thread until the answer, the time-out or the token's cancellation.
    func perform(_ request: HTTPRequest, _ settings: ConnectionSettings, _ token: TransferToken) throws(RemoteError) -> HTTPResponse {
        dropDoubtfulConnection(settings.counters)
        let curl = handle
        curl_easy_reset(curl)       // keeps the connection
        let exchange = Exchange(token)
        exchange.maximumAnswerBytes = request.maximumAnswerBytes
        exchange.sink = request.sink
        let user = Unmanaged.passUnretained(exchange).toOpaque()
        var headers: UnsafeMutablePointer<curl_slist>?
        defer { curl_slist_free_all(headers) }
        func header(_ line: String) { headers = curl_slist_append(headers, line) }
        header("Expect:")
        if let authorization = settings.token { header("Authorization: Bearer \(authorization)") }
        boxfs_curl_set_string(curl, CURLOPT_URL, settings.server + request.path)
        boxfs_curl_set_string(curl, CURLOPT_CUSTOMREQUEST, request.method)
        boxfs_curl_set_long(curl, CURLOPT_NOSIGNAL, 1)
        boxfs_curl_set_long(curl, CURLOPT_TCP_NODELAY, 1)
        // A connection that was forgotten while it lay idle is found out before it is used again.
        boxfs_curl_set_long(curl, CURLOPT_TCP_KEEPALIVE, 1)
        boxfs_curl_set_long(curl, CURLOPT_TCP_KEEPIDLE, 15)
        boxfs_curl_set_long(curl, CURLOPT_TCP_KEEPINTVL, 5)
        boxfs_curl_set_long(curl, CURLOPT_CONNECTTIMEOUT_MS, 5_000)
        boxfs_curl_set_long(curl, CURLOPT_TIMEOUT_MS, Int(request.timeoutSeconds * 1000))
        if request.silenceSeconds < request.timeoutSeconds {
            boxfs_curl_set_long(curl, CURLOPT_LOW_SPEED_LIMIT, 1)
            boxfs_curl_set_long(curl, CURLOPT_LOW_SPEED_TIME, Int(request.silenceSeconds.rounded(.up)))
        }
        boxfs_curl_set_long(curl, CURLOPT_BUFFERSIZE, 512 << 10)
        boxfs_curl_set_long(curl, CURLOPT_UPLOAD_BUFFERSIZE, 1 << 20)
        boxfs_curl_set_string(curl, CURLOPT_USERAGENT, ContentDigest.agent)
        boxfs_curl_set_string(curl, CURLOPT_NOPROXY, "localhost,127.0.0.1,::1")
        if let file = settings.certificateAuthorityFile { boxfs_curl_set_string(curl, CURLOPT_CAINFO, file) }
        boxfs_curl_set_offset(curl, CURLOPT_MAX_RECV_SPEED_LARGE, curl_off_t(settings.downloadLimit))
        boxfs_curl_set_offset(curl, CURLOPT_MAX_SEND_SPEED_LARGE, curl_off_t(settings.uploadLimit))
        boxfs_curl_set_transfer(curl, CURLOPT_WRITEFUNCTION, receiveBody)
        boxfs_curl_set_pointer(curl, CURLOPT_WRITEDATA, user)
        boxfs_curl_set_transfer(curl, CURLOPT_HEADERFUNCTION, receiveHeader)
        boxfs_curl_set_pointer(curl, CURLOPT_HEADERDATA, user)
        boxfs_curl_set_long(curl, CURLOPT_NOPROGRESS, 0)
        boxfs_curl_set_progress(curl, checkCancelled)
        boxfs_curl_set_pointer(curl, CURLOPT_XFERINFODATA, user)
        switch request.body {
        case .none: break
        case .bytes(let bytes):
            exchange.body = bytes
            exchange.bodyCount = bytes.count
            if request.contentType == HTTPRequest.json { header("\(ContentDigest.name): \(bytes.withUnsafeBytes { ContentDigest.value(of: $0) })") }
        case .file(let file, let offset, let count):
            (exchange.file, exchange.fileOffset) = (file, offset)
            exchange.bodyCount = count
        }
        if case .none = request.body {} else {
            header("Content-Type: \(request.contentType)")
            boxfs_curl_set_long(curl, CURLOPT_UPLOAD, 1)
            boxfs_curl_set_offset(curl, CURLOPT_INFILESIZE_LARGE, curl_off_t(exchange.bodyCount))
            boxfs_curl_set_transfer(curl, CURLOPT_READFUNCTION, sendBody)
            boxfs_curl_set_pointer(curl, CURLOPT_READDATA, user)
        }
        if request.method == "POST", case .none = request.body { header("Content-Length: 0") }
        boxfs_curl_set_pointer(curl, CURLOPT_HTTPHEADER, headers)
        boxfs_curl_set_sockets(curl, openSocket, closeSocket, Unmanaged.passUnretained(sockets).toOpaque())
        token.attach(sockets)
        let code = withExtendedLifetime(exchange) { curl_easy_perform(curl) }
        token.attach(nil)
        settings.counters.sent.add(UInt64(exchange.sent), ordering: .relaxed)
        settings.counters.received.add(UInt64(exchange.received), ordering: .relaxed)
        guard code == CURLE_OK else {
            if token.isCancelled { throw .cancelled }
            if code == CURLE_OPERATION_TIMEDOUT { settings.counters.silences.add(1, ordering: .relaxed) }
            if exchange.isTooLong { throw .invalidAnswer("the answer is longer than \(request.maximumAnswerBytes) bytes") }
            throw .offline("\(settings.server) cannot be reached: \(String(cString: curl_easy_strerror(code)))")
        }
        let isWhole = exchange.digest.flatMap { digest in exchange.answer.withUnsafeBytes { ContentDigest.agrees(digest, with: $0) } }
        guard isWhole ?? !(exchange.isSuccess && exchange.isJSON) else {
            throw .offline("the answer of \(settings.server) was damaged on its way")
        }
        var status = 0
        boxfs_curl_get_long(curl, CURLINFO_RESPONSE_CODE, &status)
        return HTTPResponse(status: status, body: exchange.answer, retryAfterSeconds: exchange.retryAfterSeconds)
    }
}


private func exchange(_ user: UnsafeMutableRawPointer?) -> CurlWorker.Exchange {
    Unmanaged<CurlWorker.Exchange>.fromOpaque(user!).takeUnretainedValue()
}

private func receiveBody(_ bytes: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ user: UnsafeMutableRawPointer?) -> Int {
    let exchange = exchange(user), length = size * count
    exchange.received += length
    guard exchange.received <= exchange.maximumAnswerBytes else {
        exchange.isTooLong = true
        return 0
    }
    let piece = UnsafeRawBufferPointer(start: bytes, count: length)
    if exchange.isSuccess, let sink = exchange.sink { return sink.take(piece) ? length : 0 }
    exchange.answer.append(contentsOf: piece)
    return length
}

private func receiveHeader(_ bytes: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ user: UnsafeMutableRawPointer?) -> Int {
    let exchange = exchange(user), length = size * count
    let text = String(decoding: UnsafeRawBufferPointer(start: bytes, count: length), as: UTF8.self), line = text.lowercased()
    if line.hasPrefix("http/") {        // RFC 9112, section 4: version, space, three digits
        exchange.isSuccess = line.split(separator: " ").dropFirst().first?.first == "2"
    } else if exchange.sink == nil, line.hasPrefix("content-length:"), let announced = Int(line.dropFirst(15).filter(\.isNumber)) {
        exchange.answer.reserveCapacity(min(announced, exchange.maximumAnswerBytes))
    } else if line.hasPrefix("content-type: \(HTTPRequest.json)") {
        exchange.isJSON = true
    } else if line.hasPrefix("retry-after:") {
        exchange.retryAfterSeconds = Double(line.dropFirst(12).filter(\.isNumber))
    } else if line.hasPrefix("\(ContentDigest.name.lowercased()):") {
        exchange.digest = text.dropFirst(ContentDigest.name.count + 1).trimmingCharacters(in: .whitespacesAndNewlines)
    }
    return length
}

private func sendBody(_ buffer: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ user: UnsafeMutableRawPointer?) -> Int {
    let exchange = exchange(user)
    let part = min(size * count, exchange.bodyCount - exchange.sent)
    guard part > 0 else { return 0 }
    if let file = exchange.file {
        let done = pread(file.rawValue, buffer, part, off_t(exchange.fileOffset + exchange.sent))
        guard done > 0 else { return Int(CURL_READFUNC_ABORT) }
        exchange.sent += done
        return done
    }
    exchange.body.withUnsafeBytes { bytes in
        UnsafeMutableRawPointer(buffer!).copyMemory(from: bytes.baseAddress! + exchange.sent, byteCount: part)
    }
    exchange.sent += part
    return part
}

private func checkCancelled(_ user: UnsafeMutableRawPointer?, _: curl_off_t, _: curl_off_t, _: curl_off_t, _: curl_off_t) -> Int32 {
    exchange(user).token.isCancelled ? 1 : 0
}

private func openSocket(_ user: UnsafeMutableRawPointer?, _: curlsocktype, _ address: UnsafeMutablePointer<curl_sockaddr>?) -> curl_socket_t {
    Unmanaged<TransferSockets>.fromOpaque(user!).takeUnretainedValue().open(address!.pointee)
}

private func closeSocket(_ user: UnsafeMutableRawPointer?, _ socket: curl_socket_t) -> Int32 {
    Unmanaged<TransferSockets>.fromOpaque(user!).takeUnretainedValue().close(socket)
}
