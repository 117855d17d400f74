import Shared

/// The kernel's number of a node in this mount; 1 is the root. Never used again for another node while mounted.
struct InodeNumber: Hashable, Sendable, Comparable, Codable {
    let rawValue: UInt64
    static let root = InodeNumber(rawValue: 1)
    static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// An open file or directory of this mount; what FUSE calls `fh`.
struct HandleID: Hashable, Sendable {
    let rawValue: UInt64
}

/// What stat(2) tells.
struct Attributes: Equatable, Sendable {
    var inode: InodeNumber
    var mode: UInt32
    var links: UInt32
    var uid: UInt32
    var gid: UInt32
    var device: UInt64
    /// Bytes.
    var size: UInt64
    /// 512-byte blocks that hold data.
    var blocks: UInt64
    var accessed: Timestamp
    var modified: Timestamp
    var changed: Timestamp
}

/// Who asks.
struct Caller: Sendable {
    var uid: UInt32
    var gid: UInt32
    var pid: Int32
    /// Already applied by the kernel unless FUSE_DONT_MASK was asked for.
    var umask: UInt32
}

/// What setattr is to change: chmod(2), chown(2), truncate(2), utimensat(2) in one.
struct AttributeChanges: Sendable {
    enum Time: Sendable, Equatable { case now, at(Timestamp) }
    var mode: UInt32?
    var uid: UInt32?
    var gid: UInt32?
    var size: UInt64?
    var accessed: Time?
    var modified: Time?
    /// Clears set-user-ID and set-group-ID too: O_TRUNC by another than root, for which the kernel does not ask.
    var killPrivileges = false
}

/// One line of a directory listing.
struct DirectoryEntry: Sendable {
    var name: String
    var attributes: Attributes
    /// What the next readdir starts after.
    var nextOffset: Int64
}

/// What open and create tell the kernel.
struct OpenFile: Sendable {
    var handle: HandleID
    /// The kernel's cached pages are still right.
    var keepCache: Bool
}

/// statfs(2), in blocks of `blockSize` bytes.
struct FileSystemStatistics: Sendable {
    var blockSize: UInt64
    var blocks: UInt64
    var freeBlocks: UInt64
    var files: UInt64
    var freeFiles: UInt64
    var maximumNameLength: UInt64
}

/// Bytes that answer a read, in order. Files stay open while the value lives.
enum ReadPiece: Sendable {
    case file(OpenDescriptor, offset: Int64, count: Int)
    case bytes(ArraySlice<UInt8>)
    case zeros(count: Int)

    var count: Int {
        switch self {
        case .file(_, _, let count), .zeros(let count): count
        case .bytes(let bytes): bytes.count
        }
    }
}
