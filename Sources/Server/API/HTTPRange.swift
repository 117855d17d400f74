/// The byte range that a `Range` header asks for (RFC 9110, section 14): one range of bytes; anything else is as if it were not there.
enum HTTPRange: Hashable {
    case whole
    case part(Range<UInt64>)
    /// 416: none of the bytes exists.
    case unsatisfiable

    /// - Parameter byteCount: of the whole.
    init(_ header: String?, of byteCount: UInt64) {
        self = .whole
        guard let header, header.lowercased().hasPrefix("bytes=") else { return }
        let parts = header.dropFirst(6).split(separator: "-", omittingEmptySubsequences: false).map { $0.filter { $0 != " " && $0 != "\t" } }
        guard parts.count == 2, parts.allSatisfy({ $0.utf8.allSatisfy { (0x30...0x39).contains($0) } }) else { return }
        // A number of more digits than fit is beyond every end.
        func number(_ text: String) -> UInt64? { text.isEmpty ? nil : UInt64(text) ?? .max }
        switch (number(parts[0]), number(parts[1])) {
        case (nil, nil): return
        case (nil, let count?):
            self = count == 0 || byteCount == 0 ? .unsatisfiable : .part(byteCount - min(count, byteCount)..<byteCount)
        case (let first?, let last):
            if let last, last < first { return }
            self = first >= byteCount ? .unsatisfiable : .part(first..<min(last ?? .max, byteCount - 1) + 1)
        }
    }
}
