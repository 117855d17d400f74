/// Lower-case hexadecimal without separators (RFC 4648, section 8, in lower case).
public enum Hexadecimal {
    public static func encode(_ bytes: some Collection<UInt8>) -> String {
        bytes.withMemory { bytes in
            String(unsafeUninitializedCapacity: bytes.count * 2) { digits in
                for (at, byte) in bytes.enumerated() { (digits[2 * at], digits[2 * at + 1]) = encode(byte) }
                return bytes.count * 2
            }
        }
    }

    /// - Returns: nil when a character is no hexadecimal digit or their number is odd.
    public static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        text.withMemory { text in
            guard text.count.isMultiple(of: 2) else { return nil }
            var isRight = false
            let bytes = [UInt8](unsafeUninitializedCapacity: text.count / 2) { bytes, count in
                count = text.count / 2
                isRight = decode(text, into: UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(bytes)[..<count]))
            }
            return isRight ? bytes : nil
        }
    }

    /// Both digits of a byte.
    static func encode(_ byte: UInt8) -> (UInt8, UInt8) {
        let digits: StaticString = "0123456789abcdef"
        return (digits.utf8Start[Int(byte >> 4)], digits.utf8Start[Int(byte & 15)])
    }

    /// - Parameter bytes: half as many as `text` has digits, in either case.
    /// - Returns: false when a character is no hexadecimal digit.
    static func decode(_ text: UnsafeRawBufferPointer, into bytes: UnsafeMutableRawBufferPointer) -> Bool {
        for at in 0..<bytes.count {
            guard let high = value(of: text[2 * at]), let low = value(of: text[2 * at + 1]) else { return false }
            bytes[at] = high << 4 | low
        }
        return true
    }

    static func value(of character: UInt8) -> UInt8? {
        switch character {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}

extension Collection<UInt8> {
    /// Calls `body` with the bytes where they lie, or with a copy. What goes byte by byte is done there: code that is generic over collections is
    /// compiled once for all of them, and slow.
    func withMemory<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        withContiguousStorageIfAvailable { body(UnsafeRawBufferPointer($0)) } ?? Array(self).withUnsafeBytes(body)
    }
}
