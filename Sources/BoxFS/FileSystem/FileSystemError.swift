import Shared

/// What a file system operation may answer instead of a result. `Kernel/Errno+FileSystemError.swift` turns it into errno.
enum FileSystemError: Error, Equatable {
    case notFound               // ENOENT
    case exists                 // EEXIST
    case notDirectory           // ENOTDIR
    case isDirectory            // EISDIR
    case notEmpty               // ENOTEMPTY
    case invalid                // EINVAL
    case nameTooLong            // ENAMETOOLONG
    case notUTF8                // EILSEQ
    case notPermitted           // EPERM
    case accessDenied           // EACCES
    case readOnly               // EROFS
    case noSpace                // ENOSPC
    case quotaExceeded          // EDQUOT
    case fileTooBig             // EFBIG
    case tooManyLinks           // EMLINK
    case crossDevice            // EXDEV
    case notSupported           // EOPNOTSUPP
    case noAttribute            // ENODATA
    case resultTooLarge         // ERANGE
    case argumentTooLong        // E2BIG
    case noSuchOffset           // ENXIO: lseek past the last data
    case badHandle              // EBADF
    case stale                  // ESTALE
    case interrupted            // EINTR
    case busy                   // EBUSY
    /// What is needed is not here and the server did not deliver it in time; or the local disk failed.
    case io                     // EIO
    /// Not an answer: the operation needs this first. The caller has it fetched and runs the operation again; every
    /// operation is written so that it changed nothing before it throws this.
    case missing(Missing)
}

/// What an operation has to wait for.
enum Missing: Hashable, Sendable {
    /// The entries of a directory.
    case directory(InodeNumber)
    /// A chunk, wanted for `inode` (whose readers get prefetch).
    case chunk(ChunkHash, length: UInt32, inode: InodeNumber)
    /// Manifest pages of a file.
    case manifest(InodeNumber)
    /// The list of a file's versions; `of`: the inode, or for a removed file a folder of the same namespace.
    case versions(NodeID, of: InodeNumber)
    /// What was removed from a folder; `of` likewise.
    case removed(from: NodeID, of: InodeNumber)
    /// What a version of this file holds.
    case version(VersionID, of: InodeNumber)
    /// Unsent data fill the cache: room must be made by uploading.
    case cacheRoom
    /// Unsent data are about to fill the cache: who writes is slowed to the speed of the link.
    case pace(milliseconds: Int)
    /// All records of the log up to this one are to be on the server.
    case uploaded(upTo: Int64)
}
