import Shared

/// What a mount knows of one file, and what its last requests waited for: the answer to `boxfs why`.
struct FileExplanation: Codable, Hashable, Sendable {
    var path: String
    var inode: UInt64
    var isDirectory: Bool
    var size: UInt64
    /// As `user.boxfs.state`: `memory`, `local`, `uploading` or `server`.
    var state: String
    /// The server's version that the content here is based on.
    var version: String?
    /// Another device's change that waits until the server has answered ours.
    var hasWaitingChange: Bool
    /// A file's chunks in the cache, those that are on the server only, and what was written since.
    var here = Amount(), onServer = Amount(), written = Amount()
    /// The list of a long file's chunks is on the server only.
    var isManifestAbsent = false
    /// A folder's entries are all here.
    var isListed: Bool?
    /// The last of each that the mount remembers.
    var open, read, write: RequestRecord?

    struct Amount: Codable, Hashable, Sendable {
        var count = 0
        var bytes: UInt64 = 0

        mutating func add(_ length: Int) {
            count += 1
            bytes += UInt64(length)
        }
    }
}
