import Foundation
import Glibc

/// A private folder that goes away with its owner.
final class TestFolder: Sendable {
    let path: String

    init() {
        var template = Array("/tmp/boxfs-test-XXXXXX\0".utf8CString.dropLast())
        guard let made = mkdtemp(&template) else { preconditionFailure("mkdtemp: \(String(cString: strerror(errno)))") }
        path = String(cString: made)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    static func / (folder: TestFolder, name: String) -> String { folder.path + "/" + name }

    static func mode(_ path: String) -> UInt32 {
        var status = stat()
        return stat(path, &status) == 0 ? status.st_mode & 0o7777 : 0
    }
}
