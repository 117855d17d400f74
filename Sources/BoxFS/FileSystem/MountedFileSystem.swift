import ChunkCache
import Shared
import Synchronization

/// When fsync(2) may return.
enum Durability: String, Sendable, Codable, CaseIterable {
    /// The data are on this machine's disk.
    case local
    /// The data are on the server as well.
    case server
}

/// What the mount was told on its command line, as far as operations depend on it.
struct FileSystemOptions: Sendable {
    /// Owners, groups and special bits are kept and honoured; otherwise everything belongs to `uid` and `gid`.
    var posixOwners = false
    var uid: UInt32
    var gid: UInt32
    var durability = Durability.local
}

/// Brings what an operation missed; see `Missing`.
protocol MissingFetcher: AnyObject, Sendable {
    func fetch(_ missing: Missing, since start: UInt64, done: @escaping @Sendable (FileSystemError?) -> Void) -> any FetchToken
    /// Chunks that a sequential reader will want soon.
    func prefetch(_ chunks: [ChunkReference], for inode: InodeNumber)
    /// A change of a file began and did not happen: what came from elsewhere meanwhile need not wait for it.
    func changeGivenUp()
    /// Log records up to here are on the server.
    var acknowledgedLog: Int64 { get }
    /// Whether the server has all of the inode's changes.
    func isUploaded(_ inode: InodeNumber) -> Bool
    /// A file's versions, newest first, as they were some seconds ago at most; nil when they are not here (`Missing.versions`).
    func versions(of file: NodeID) -> [VersionInformation]?
    /// What was removed from a folder, newest first, some seconds ago at most; nil when that is not here (`Missing.removed`).
    func removed(from folder: NodeID) -> [TrashItem]?
    /// The chunks of a version, which are then no longer kept; nil when they are not here (`Missing.version`).
    func takeContent(of version: VersionID) -> [ChunkReference]?
    /// The kernel's copy of the inode's attributes is out of date, by a call that does not tell it so.
    func attributesChanged(_ inode: InodeNumber)
    /// Has the kernel look these names up again, once it has the answer to the call that moved them. Under `Tree.lock`.
    func moved(_ places: [(InodeNumber, String)])
    /// statfs(2)'s numbers: bytes that may be stored (nil: no limit) and bytes stored.
    var quota: (limit: UInt64?, used: UInt64) { get }
}

/// The mounted tree: what each system call means. Files of this name hold the calls by theme.
final class MountedFileSystem: FileSystemOperations {
    let tree: Tree
    let options: FileSystemOptions
    let fetcher: any MissingFetcher
    let versions = VersionsFolder()
    private let handles = Mutex<(next: UInt64, open: [HandleID: Handle])>((1, [:]))

    init(tree: Tree, options: FileSystemOptions, fetcher: any MissingFetcher) {
        self.tree = tree
        self.options = options
        self.fetcher = fetcher
    }

    // MARK: Handles

    func handle(_ id: HandleID) throws(FileSystemError) -> Handle {
        guard let handle = handles.withLock({ $0.open[id] }) else { throw .badHandle }
        return handle
    }

    /// Under `Tree.lock`.
    func register(_ inode: Inode, flags: Int32) -> HandleID {
        inode.uses += 1
        if flags & 3 != 0 { tree.openWriters += 1 }
        let handle = Handle(inode: inode, flags: flags)
        return handles.withLock { table in
            let id = HandleID(rawValue: table.next)
            table.next += 1
            table.open[id] = handle
            return id
        }
    }

    func unregister(_ id: HandleID) -> Handle? { handles.withLock { $0.open.removeValue(forKey: id) } }

    var openHandleCount: Int { handles.withLock { $0.open.count } + versions.openCount }

    func fetch(_ missing: Missing, since start: UInt64, done: @escaping @Sendable (FileSystemError?) -> Void) -> any FetchToken {
        fetcher.fetch(missing, since: start, done: done)
    }

    // MARK: What is told of an inode

    func path(of inode: InodeNumber) -> String? { tree.lock.withLock { (try? tree.path(of: inode)).flatMap { $0 } } }

    func attributes(_ inode: Inode) -> Attributes {
        var attributes = inode.attributes
        if !options.posixOwners {
            attributes.uid = options.uid
            attributes.gid = options.gid
        }
        return attributes
    }
}

/// An open file or directory.
final class Handle: @unchecked Sendable {
    let inode: Inode
    let flags: Int32
    /// A directory's listing as it was when it was last read from its start. Guarded by `lock`.
    var listing: [Listed] = []
    var listingVersion: UInt64 = 0
    /// Inodes that one statement brought for the listing under way.
    var loaded: [Inode] = []
    struct Listed { let name: String, inode: InodeNumber }
    let lock = Lock()
    let pace = Mutex(WritePace())
    /// Where a sequential reader would go on, and how many chunks are fetched ahead of it.
    let readAhead = Mutex<ReadAhead>(ReadAhead())

    init(inode: Inode, flags: Int32) {
        self.inode = inode
        self.flags = flags
    }

    var isWritable: Bool { flags & 3 != 0 }     // O_WRONLY or O_RDWR
}
