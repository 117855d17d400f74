import Foundation
import NIOCore

/// Reads `multipart/form-data` (RFC 7578, RFC 2046) as it comes, keeping no more than a part's header and what might be a boundary.
struct MultipartParser {
    enum Event: Equatable {
        /// A part begins; `filename` is nil for a plain field.
        case part(filename: String?)
        case bytes(ByteBuffer)
        case partEnd
    }
    enum FormatError: Error { case malformed }

    private static let maximumHeaderBytes = 16 << 10
    private enum State { case preamble, header, body, epilogue }
    private let delimiter: [UInt8]
    private var state = State.preamble
    /// As if a line had ended before the first byte, so that the first boundary looks like the others.
    private var buffer: [UInt8] = [13, 10]

    /// - Parameter contentType: the request's; nil unless it is multipart/form-data with a boundary of 1 to 70 characters.
    init?(contentType: String) {
        let parts = contentType.split(separator: ";").map { $0.drop { $0 == " " } }
        guard parts.first?.lowercased() == "multipart/form-data",
              let field = parts.dropFirst().first(where: { $0.lowercased().hasPrefix("boundary=") }) else { return nil }
        let boundary = field.dropFirst(9).filter { $0 != "\"" }
        guard (1...70).contains(boundary.utf8.count) else { return nil }
        delimiter = Array("\r\n--\(boundary)".utf8)
    }

    /// Whether the last boundary has come.
    var isComplete: Bool { if case .epilogue = state { true } else { false } }

    mutating func feed(_ bytes: ByteBuffer) throws(FormatError) -> [Event] {
        buffer += bytes.readableBytesView
        var events: [Event] = []
        while try step(&events) {}
        return events
    }

    /// - Returns: whether more can be read from what is there.
    private mutating func step(_ events: inout [Event]) throws(FormatError) -> Bool {
        switch state {
        case .preamble:
            guard let at = find(delimiter) else {
                buffer.removeFirst(max(0, buffer.count - delimiter.count))
                return false
            }
            return try afterDelimiter(at, &events)
        case .header:
            guard let end = find([13, 10, 13, 10]) else {
                guard buffer.count <= Self.maximumHeaderBytes else { throw .malformed }
                return false
            }
            guard end <= Self.maximumHeaderBytes, let text = String(validating: buffer[..<end], as: UTF8.self) else { throw .malformed }
            // Its last two bytes stay: an empty body's boundary begins with them.
            buffer.removeFirst(end + 2)
            events.append(.part(filename: Self.filename(text)))
            leading = 2
            state = .body
            return true
        case .body:
            guard let at = find(delimiter) else {
                let safe = buffer.count - delimiter.count
                if safe > 0 { give(safe, &events) }
                return false
            }
            give(at, &events)
            events.append(.partEnd)
            return try afterDelimiter(0, &events)
        case .epilogue:
            buffer = []
            return false
        }
    }

    /// Bytes of the blank line that ended the header and still stand at the front of the body.
    private var leading = 0

    private mutating func give(_ count: Int, _ events: inout [Event]) {
        let skipped = min(leading, count)
        leading -= skipped
        if count > skipped { events.append(.bytes(ByteBuffer(bytes: buffer[skipped..<count]))) }
        buffer.removeFirst(count)
    }

    private mutating func afterDelimiter(_ at: Int, _ events: inout [Event]) throws(FormatError) -> Bool {
        let next = at + delimiter.count
        guard buffer.count >= next + 2 else {
            // Wait for what says whether it is the last; the delimiter stays where it was found.
            buffer.removeFirst(at)
            if case .body = state { state = .preamble }
            return false
        }
        switch (buffer[next], buffer[next + 1]) {
        case (UInt8(ascii: "-"), UInt8(ascii: "-")): state = .epilogue
        case (13, 10):
            buffer.removeFirst(next + 2)
            state = .header
        default: throw .malformed
        }
        return true
    }

    private func find(_ pattern: [UInt8]) -> Int? {
        let last = buffer.count - pattern.count
        var at = 0
        while at <= last, let hit = buffer[at...last].firstIndex(of: pattern[0]) {
            if buffer[hit..<hit + pattern.count].elementsEqual(pattern) { return hit }
            at = hit + 1
        }
        return nil
    }

    /// The last part of the path that a browser may have sent (RFC 7578, section 4.2).
    private static func filename(_ header: String) -> String? {
        for line in header.split(whereSeparator: { $0.isNewline }) where line.lowercased().hasPrefix("content-disposition:") {
            guard let start = line.range(of: "filename=\"") else { return nil }
            let rest = line[start.upperBound...]
            guard let end = rest.lastIndex(of: "\"") else { return nil }
            // Browsers write a quote as %22 (HTML standard, multipart/form-data encoding).
            let name = rest[..<end].replacing("%22", with: "\"").replacing("%0D", with: "\r").replacing("%0A", with: "\n")
            return name.split(whereSeparator: { $0 == "/" || $0 == "\\" }).last.map(String.init) ?? ""
        }
        return nil
    }
}
