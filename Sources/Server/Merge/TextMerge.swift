import CGit2

/// Three-way merges of texts, by libgit2's file merge.
///
/// What a text is, is seen from the bytes. UTF-16 with a byte order mark is merged as UTF-8 and turned back; every other encoding is one
/// whose line ends are ASCII's (UTF-8, ISO 8859, Windows code pages, Shift-JIS, GB 18030), and is merged as bytes. All three must be alike.
enum TextMerge {
    /// A longer text is not merged, bytes.
    static let maximumByteCount = 1 << 20

    enum Encoding: Equatable { case ascii, utf8, utf8Mark, utf16Little, utf16Big, eightBit }

    /// - Returns: both edits of `base` in one; nil if they touch the same lines, or if one of the three is no text.
    static func merge(base: [UInt8], ours: [UInt8], theirs: [UInt8]) -> [UInt8]? {
        guard max(base.count, ours.count, theirs.count) <= maximumByteCount, let encoding = common([base, ours, theirs]) else { return nil }
        guard encoding == .utf16Little || encoding == .utf16Big else { return mergeBytes(base, ours, theirs) }
        guard let one = utf8(base, encoding), let two = utf8(ours, encoding), let three = utf8(theirs, encoding) else { return nil }
        return mergeBytes(one, two, three).map { utf16($0, encoding) }
    }

    /// ASCII is part of UTF-8 and of the eight-bit encodings; anything else must be the same in all. An empty text fits everything.
    private static func common(_ texts: [[UInt8]]) -> Encoding? {
        var found = Encoding.ascii
        for text in texts where !text.isEmpty {
            guard let encoding = encoding(of: text) else { return nil }
            if encoding == found || encoding == .ascii && (found == .utf8 || found == .eightBit) { continue }
            guard found == .ascii, encoding == .utf8 || encoding == .eightBit || text == texts.first(where: { !$0.isEmpty }) else { return nil }
            found = encoding
        }
        return found
    }

    /// nil for what is no text: NUL or other control characters beside white space, backspace-free terminals' escape, and form feed.
    static func encoding(of text: [UInt8]) -> Encoding? {
        if text.starts(with: [0xFF, 0xFE, 0, 0]) || text.starts(with: [0, 0, 0xFE, 0xFF]) { return nil }     // UTF-32
        for (mark, encoding) in [([UInt8(0xFF), 0xFE], Encoding.utf16Little), ([0xFE, 0xFF], .utf16Big)] where text.starts(with: mark) {
            guard let bytes = utf8(text, encoding), !bytes.contains(where: isControl) else { return nil }
            return encoding
        }
        if text.contains(where: isControl) { return nil }
        if text.allSatisfy({ $0 < 0x80 }) { return .ascii }
        if String(validating: text, as: UTF8.self) != nil { return text.starts(with: [0xEF, 0xBB, 0xBF]) ? .utf8Mark : .utf8 }
        return .eightBit
    }

    private static func isControl(_ byte: UInt8) -> Bool {
        switch byte {
        case 9, 10, 12, 13, 27: false       // tab, line feed, form feed, carriage return, escape
        case 0..<32, 127: true
        default: false
        }
    }

    // MARK: UTF-16

    /// nil unless the bytes are whole, valid UTF-16 with its mark.
    private static func utf8(_ text: [UInt8], _ encoding: Encoding) -> [UInt8]? {
        guard text.count.isMultiple(of: 2) else { return nil }
        let units = stride(from: min(2, text.count), to: text.count, by: 2).map { at in
            encoding == .utf16Little ? UInt16(text[at]) | UInt16(text[at + 1]) << 8 : UInt16(text[at]) << 8 | UInt16(text[at + 1])
        }
        return String(validating: units, as: UTF16.self).map { Array($0.utf8) }
    }

    private static func utf16(_ text: [UInt8], _ encoding: Encoding) -> [UInt8] {
        ([0xFEFF] + Array(String(decoding: text, as: UTF8.self).utf16)).flatMap { unit in
            encoding == .utf16Little ? [UInt8(truncatingIfNeeded: unit), UInt8(unit >> 8)] : [UInt8(unit >> 8), UInt8(truncatingIfNeeded: unit)]
        }
    }

    // MARK: libgit2

    /// libgit2 wants this once in a process before anything else; it is never shut down.
    private static let isReady = git_libgit2_init() > 0

    private static func mergeBytes(_ base: [UInt8], _ ours: [UInt8], _ theirs: [UInt8]) -> [UInt8]? {
        guard isReady else { return nil }
        return base.withUnsafeBytes { base in
            ours.withUnsafeBytes { ours in
                theirs.withUnsafeBytes { theirs in
                    var one = input(base), two = input(ours), three = input(theirs)
                    var result = git_merge_file_result()
                    guard git_merge_file(&result, &one, &two, &three, nil) == 0 else { return nil }
                    defer { git_merge_file_result_free(&result) }
                    guard result.automergeable == 1 else { return nil }
                    return Array(UnsafeRawBufferPointer(start: result.ptr, count: result.len))
                }
            }
        }
    }

    /// Lends the bytes to libgit2 for one call.
    private static func input(_ bytes: UnsafeRawBufferPointer) -> git_merge_file_input {
        var input = git_merge_file_input()
        git_merge_file_input_init(&input, UInt32(GIT_MERGE_FILE_INPUT_VERSION))
        input.ptr = bytes.assumingMemoryBound(to: CChar.self).baseAddress
        input.size = bytes.count
        return input
    }
}
