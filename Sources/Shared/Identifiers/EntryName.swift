/// Rules for the name of a directory entry: valid UTF-8, 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
public enum EntryName {
    /// NAME_MAX of limits.h, in bytes.
    public static let maximumByteCount = 255

    public enum Problem: Error, Equatable, Sendable {
        case empty, tooLong, notUTF8, forbiddenCharacter, reserved
    }

    /// - Returns: nil if `name` may name an entry.
    public static func problem(with name: String) -> Problem? {
        let utf8 = name.utf8
        if utf8.isEmpty { return .empty }
        if utf8.count > maximumByteCount { return .tooLong }
        if utf8.contains(where: { $0 == 0 || $0 == UInt8(ascii: "/") }) { return .forbiddenCharacter }
        return name == "." || name == ".." ? .reserved : nil
    }

    /// The name in `bytes` if it is valid UTF-8 and follows the rules. Never repairs: repaired names would collide.
    public static func validated(_ bytes: UnsafeBufferPointer<UInt8>) throws(Problem) -> String {
        guard let name = String(validating: bytes, as: UTF8.self) else { throw .notUTF8 }
        if let problem = problem(with: name) { throw problem }
        return name
    }
}
