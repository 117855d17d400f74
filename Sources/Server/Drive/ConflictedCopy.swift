import Foundation
import Shared

/// How a conflicted copy is called.
enum ConflictedCopy {
    /// `NAME (conflicted copy, DEVICE, YYYY-MM-DD).EXT`, with a number from the second on, within 255 bytes.
    static func name(of name: String, device: String, time: Timestamp, number: Int) -> String {
        let host = String(device.map { $0 == "/" || $0 == "\0" ? "-" : $0 }.prefix(40))
        return self.name(of: name, mark: " (conflicted copy, \(host), \(day(time))\(number > 1 ? " \(number)" : ""))")
    }

    static func isCopy(_ copy: String, of name: String) -> Bool {
        let stem = name.lastIndex(of: ".").flatMap { $0 == name.startIndex ? nil : $0 }.map { name[..<$0] } ?? name[...]
        return copy.hasPrefix(withoutMark(String(stem)) + " (conflicted copy, ")
    }

    /// The name with a mark before its ending, within 255 bytes.
    static func name(of name: String, mark: String) -> String {
        let dot = name.lastIndex(of: ".").flatMap { $0 == name.startIndex ? nil : $0 } ?? name.endIndex
        var stem = String(name[..<dot])
        let ending = String(name[dot...].utf8.count > 32 ? "" : name[dot...])
        if ending.isEmpty { stem = name }
        stem = withoutMark(stem)
        while stem.utf8.count + mark.utf8.count + ending.utf8.count > EntryName.maximumByteCount, !stem.isEmpty { stem.removeLast() }
        return stem + mark + ending
    }

    /// A copy of a copy is named after the file, not after the copy.
    private static func withoutMark(_ stem: String) -> String {
        guard stem.hasSuffix(")"), let mark = stem.range(of: " (conflicted copy, ", options: .backwards), mark.lowerBound > stem.startIndex,
              !stem[mark.upperBound...].dropLast().contains(")") else { return stem }
        return String(stem[..<mark.lowerBound])
    }

    /// ISO 8601 in UTC.
    private static func day(_ time: Timestamp) -> String {
        var seconds = time.timespec.tv_sec
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))"
    }
}
