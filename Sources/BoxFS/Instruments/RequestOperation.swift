/// What the kernel asks for, named after FUSE's operations.
enum RequestOperation: UInt8, CaseIterable, Codable, Sendable {
    case lookup, forget, getattr, setattr, access, readlink
    case mknod, mkdir, symlink, link, unlink, rmdir, rename
    case create, open, read, write, flush, release, fsync, fallocate, lseek, copyFileRange, ioctl
    case opendir, readdir, readdirplus, releasedir, fsyncdir
    case statfs, setxattr, getxattr, listxattr, removexattr

    var name: String { self == .copyFileRange ? "copy_file_range" : "\(self)" }

    init?(name: String) {
        guard let found = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = found
    }
}

/// One request's operation and arguments, as the kernel gave them.
struct RequestCall: Sendable {
    var operation: RequestOperation
    /// The inode that it is about; with `name`, the folder. 0: the whole file system.
    var inode: UInt64 = 0
    var name: String?
    /// rename, link: where to.
    var newParent: UInt64 = 0
    var newName: String?
    var offset: Int64?
    var length: Int?

    init(
        _ operation: RequestOperation, _ inode: some BinaryInteger, _ name: String? = nil, offset: Int64? = nil, length: Int? = nil
    ) {
        self.operation = operation
        self.inode = UInt64(inode)
        self.name = name
        self.offset = offset
        self.length = length
    }

    /// With the place where `target`'s name is to stand.
    func to(_ target: RequestCall) -> RequestCall {
        var call = self
        (call.newParent, call.newName) = (target.inode, target.name)
        return call
    }
}
