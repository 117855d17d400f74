import Foundation
import Shared

/// What is known of a directory's entries.
enum Hydration: Int64, Sendable { case unknown = 0, arriving = 1, complete = 2 }

/// A node that the kernel, a handle or the log holds on to. `Tree.lock` guards every field but `file`'s own.
final class Inode: @unchecked Sendable {
    let number: InodeNumber
    /// The number of its namespace.
    var namespace: Int64
    /// Changes once in a life: when the server merged a directory made here with one made elsewhere, or when a file that was unlinked here
    /// comes back as another inode.
    var id: NodeID
    var mode: UInt32
    var uid: UInt32
    var gid: UInt32
    var device: UInt64
    var links: UInt32
    /// A file's bytes; of a symlink, its target's.
    var size: UInt64
    var accessed: Timestamp
    var modified: Timestamp
    var changed: Timestamp
    var created: Timestamp
    /// The server's version that our content is based on.
    var version: VersionID?
    /// The manifest's pages while the manifest itself is not here.
    var pages: [ChunkHash]?
    var target: String?
    var xattrs: [String: Data]
    var hydration: Hydration
    /// The server's number of the row that was applied last.
    var sequence: Int64

    /// Open handles and operations under way.
    var uses = 0
    /// Calls that are changing the content just now: from before the first byte until the file is marked as changed.
    var changesUnderWay = 0
    /// A regular file's content, once it was needed.
    var file: FileContent?
    /// The row differs from memory: the next close that is kept or commit writes it.
    var isDirty = false
    /// It differs in more than what `touch` changes. False unless `isDirty`.
    var isDirtyBeyondTimes = false
    /// The last log record that says "the content changed"; 0 if none.
    var contentLogged: Int64 = 0
    /// It lost its last name by a change from elsewhere, not by a program here: what is written to it since brings it back.
    var wasRemovedElsewhere = false
    /// Counts changes of a directory's entries, so that a listing knows when to look twice.
    var directoryVersion: UInt64 = 0
    /// The content that the kernel's pages show; another one asks it to drop them at open.
    var pagesValid = true
    /// Since `Tree.trim` last came by.
    var wasUsed = true

    init(
        number: InodeNumber, id: NodeID, namespace: Int64 = Namespace.home, mode: UInt32, uid: UInt32, gid: UInt32, device: UInt64 = 0, time: Timestamp
    ) {
        self.number = number
        self.namespace = namespace
        self.id = id
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.device = device
        (links, size, sequence) = (1, 0, 0)
        (accessed, modified, changed, created) = (time, time, time, time)
        xattrs = [:]
        hydration = .complete
    }

    var type: FileType { FileType(mode: mode)! }
    var isDirectory: Bool { mode & 0o170000 == FileType.directory.rawValue }
    var isRegular: Bool { mode & 0o170000 == FileType.regular.rawValue }

    var attributes: Attributes {
        Attributes(
            inode: number, mode: mode, links: links, uid: uid, gid: gid, device: device, size: size,
            blocks: isRegular ? (size + 511) / 512 : 0, accessed: accessed, modified: modified, changed: changed)
    }

    /// Whether the content was changed, or is just being changed, and no record of the log says so yet.
    var hasUnloggedContent: Bool { changesUnderWay > 0 || hasUnloggedWrites }
    /// Whether the content was changed, and no record of the log says so yet.
    var hasUnloggedWrites: Bool { file?.hasUnlogged ?? false }

    func touch(_ time: Timestamp) {
        modified = time
        changed = time
    }
}
