import Shared

/// What the kernel may ask of a mounted file system; each call is named after its system call.
///
/// No call waits for the network or for another call: it answers from memory or from the local disk, or throws
/// `.missing`, having changed nothing; then the caller gives that to `fetch` and calls again. Calls may come from any
/// number of threads. lookup, create, mknod, mkdir, symlink, link and each entry taken from a readdirplus raise the inode's
/// lookup count by one before they return (fuse_lowlevel.h, `forget`).
protocol FileSystemOperations: AnyObject, Sendable {
    func lookup(_ parent: InodeNumber, _ name: String) throws(FileSystemError) -> Attributes
    /// Lowers the lookup count.
    func forget(_ inode: InodeNumber, count: UInt64)
    /// Whether the lookup count is not zero.
    func isKnownToKernel(_ inode: InodeNumber) -> Bool
    func getattr(_ inode: InodeNumber) throws(FileSystemError) -> Attributes
    func setattr(_ inode: InodeNumber, _ changes: AttributeChanges, handle: HandleID?, caller: Caller) throws(FileSystemError) -> Attributes
    func readlink(_ inode: InodeNumber) throws(FileSystemError) -> String

    func create(_ parent: InodeNumber, _ name: String, mode: UInt32, flags: Int32, caller: Caller) throws(FileSystemError) -> (Attributes, OpenFile)
    /// Regular files, FIFOs, sockets and devices; `mode` holds the type.
    func mknod(_ parent: InodeNumber, _ name: String, mode: UInt32, device: UInt64, caller: Caller) throws(FileSystemError) -> Attributes
    func mkdir(_ parent: InodeNumber, _ name: String, mode: UInt32, caller: Caller) throws(FileSystemError) -> Attributes
    func symlink(_ parent: InodeNumber, _ name: String, target: String, caller: Caller) throws(FileSystemError) -> Attributes
    func link(_ inode: InodeNumber, _ newParent: InodeNumber, _ newName: String) throws(FileSystemError) -> Attributes
    func unlink(_ parent: InodeNumber, _ name: String, caller: Caller) throws(FileSystemError)
    func rmdir(_ parent: InodeNumber, _ name: String, caller: Caller) throws(FileSystemError)
    /// - Parameter flags: RENAME_NOREPLACE (1) or RENAME_EXCHANGE (2) of renameat2(2), or 0.
    func rename(_ parent: InodeNumber, _ name: String, _ newParent: InodeNumber, _ newName: String, flags: UInt32, caller: Caller) throws(FileSystemError)

    /// - Parameter flags: of open(2); O_TRUNC is honoured here (FUSE_CAP_ATOMIC_O_TRUNC).
    func open(_ inode: InodeNumber, flags: Int32, caller: Caller) throws(FileSystemError) -> OpenFile
    /// At most `count` bytes from `offset`; fewer only at the end of the file.
    func read(_ handle: HandleID, offset: Int64, count: Int) throws(FileSystemError) -> [ReadPiece]
    /// Takes all of `bytes`. With O_APPEND the kernel has put the offset to the end it knows.
    func write(_ handle: HandleID, offset: Int64, _ bytes: UnsafeRawBufferPointer) throws(FileSystemError)
    /// Each close(2) of a descriptor: from here on, killing the process loses nothing.
    func flush(_ handle: HandleID) throws(FileSystemError)
    /// The last close.
    func release(_ handle: HandleID)
    /// Open files and directories.
    var openHandleCount: Int { get }
    /// From here on, a power cut loses nothing.
    func fsync(_ handle: HandleID, dataOnly: Bool) throws(FileSystemError)
    /// Puts into the log what open files hold, so that all that was written before is now to be sent.
    /// - Returns: the newest record.
    func logAll() throws(FileSystemError) -> Int64
    /// All up to this record is on the server.
    func requireUploaded(upTo log: Int64) throws(FileSystemError)
    /// - Parameter mode: of fallocate(2).
    func fallocate(_ handle: HandleID, mode: Int32, offset: Int64, length: Int64) throws(FileSystemError)
    /// - Parameter whence: SEEK_DATA or SEEK_HOLE.
    func lseek(_ handle: HandleID, offset: Int64, whence: Int32) throws(FileSystemError) -> Int64
    /// - Returns: bytes copied, which may be fewer than asked for.
    func copyFileRange(_ source: HandleID, sourceOffset: Int64, _ target: HandleID, targetOffset: Int64, count: Int) throws(FileSystemError) -> Int

    func opendir(_ inode: InodeNumber) throws(FileSystemError) -> HandleID
    /// Gives entries to `take` until it says false: the entry that was refused was not taken. `.` and `..` come first.
    /// - Parameter plus: the listing raises the lookup count of each taken entry but `.` and `..`.
    func readdir(_ handle: HandleID, offset: Int64, plus: Bool, _ take: (DirectoryEntry) -> Bool) throws(FileSystemError)
    func releasedir(_ handle: HandleID)
    func fsyncdir(_ handle: HandleID) throws(FileSystemError)

    func statfs() throws(FileSystemError) -> FileSystemStatistics
    /// - Parameter flags: XATTR_CREATE (1), XATTR_REPLACE (2) or 0.
    func setxattr(_ inode: InodeNumber, _ name: String, _ value: [UInt8], flags: Int32) throws(FileSystemError)
    func getxattr(_ inode: InodeNumber, _ name: String) throws(FileSystemError) -> [UInt8]
    func listxattr(_ inode: InodeNumber) throws(FileSystemError) -> [String]
    func removexattr(_ inode: InodeNumber, _ name: String) throws(FileSystemError)

    /// From the mount's root, without a leading slash; nil for what has no name. For people who watch.
    func path(of inode: InodeNumber) -> String?

    /// Has what an operation missed brought here. `done` is called exactly once, from any thread: with nil when the
    /// operation may be run again, with an error at the deadline or when it cannot be had. Cancelling the returned token
    /// makes `done` come at once with `.interrupted`.
    /// - Parameter start: when the call came (`Clock`). Its deadline counts from there, however many things it misses one after the other.
    func fetch(_ missing: Missing, since start: UInt64, done: @escaping @Sendable (FileSystemError?) -> Void) -> any FetchToken
}

/// One waiting operation; see `FileSystemOperations.fetch`.
protocol FetchToken: AnyObject, Sendable {
    func cancel()
}

/// What the file system tells the kernel when the server told of a change. Sent from a queue of its own: never from
/// within a request, with no lock held (libfuse doc/README.notifications would deadlock otherwise).
protocol KernelNotifications: AnyObject, Sendable {
    /// Drops the kernel's attributes of `inode`, and its pages when `data` is true.
    func invalidate(_ inode: InodeNumber, data: Bool)
    /// Drops a directory entry, negative ones too.
    func invalidate(entry name: String, in parent: InodeNumber)
    /// An entry is gone: as `invalidate`, and watchers see a deletion.
    func delete(entry name: String, of child: InodeNumber, in parent: InodeNumber)
    /// Called when the kernel has heard all of the above.
    func afterwards(_ done: @escaping @Sendable () -> Void)
    /// Lets programs that watch folders see changes that were told by the calls above, after those.
    func replay(_ changes: [RemoteChange])
}
