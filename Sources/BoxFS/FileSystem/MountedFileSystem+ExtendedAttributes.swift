import Foundation
import Shared

extension MountedFileSystem {
    /// Limits of one attribute and of all of a node, in bytes; xattr(7) has 64 KiB for one.
    static let maximumXattrBytes = 64 << 10
    static let maximumXattrsBytes = 128 << 10

    private static let namespaces = ["user.", "trusted.", "security."]
    private static let stateAttributes = ["user.boxfs.state", "user.boxfs.version", "user.boxfs.chunks"]

    func setxattr(_ number: InodeNumber, _ name: String, _ value: [UInt8], flags: Int32) throws(FileSystemError) {
        let createOnly: Int32 = 1, replaceOnly: Int32 = 2
        try checkWritable(name)
        guard value.count <= Self.maximumXattrBytes else { throw .argumentTooLong }
        try tree.lock.withLock { () throws(FileSystemError) in
            let inode = try tree.inode(number)
            if flags == createOnly, inode.xattrs[name] != nil { throw .exists }
            if flags == replaceOnly, inode.xattrs[name] == nil { throw .noAttribute }
            let others = inode.xattrs.reduce(0) { $0 + ($1.key == name ? 0 : $1.key.utf8.count + $1.value.count) }
            guard others + name.utf8.count + value.count <= Self.maximumXattrsBytes else { throw .noSpace }
            try tree.requireRoom()
            try logXattr(inode, name)
            inode.xattrs[name] = Data(value)
        }
    }

    func removexattr(_ number: InodeNumber, _ name: String) throws(FileSystemError) {
        try checkWritable(name)
        try tree.lock.withLock { () throws(FileSystemError) in
            let inode = try tree.inode(number)
            guard inode.xattrs[name] != nil else { throw .noAttribute }
            try logXattr(inode, name)
            inode.xattrs[name] = nil
        }
    }

    func logXattr(_ inode: Inode, _ name: String) throws(FileSystemError) {
        try tree.requireWritable(inode)
        let now = Timestamp.now()
        try tree.log(LogRecord(namespace: inode.namespace, kind: .xattr, inode: inode.number, node: inode.id, attribute: name, time: now), of: inode)
        inode.changed = now
        tree.markDirty(inode)
    }

    private func checkWritable(_ name: String) throws(FileSystemError) {
        try checkNamespace(name)
        if name.hasPrefix("user.boxfs.") { throw .notPermitted }
        guard name.utf8.count <= 255 else { throw .resultTooLarge }
    }

    /// xattr(7): a name stands in a namespace. `system.` holds ACLs, which BoxFS does not have.
    private func checkNamespace(_ name: String) throws(FileSystemError) {
        guard let space = Self.namespaces.first(where: name.hasPrefix) else { throw .notSupported }
        guard name.utf8.count > space.utf8.count else { throw .invalid }
    }

    func getxattr(_ number: InodeNumber, _ name: String) throws(FileSystemError) -> [UInt8] {
        try checkNamespace(name)
        if number.isOfVersions { throw .noAttribute }
        let isState = Self.stateAttributes.contains(name)
        let isUploaded = isState && fetcher.isUploaded(number)
        return try tree.lock.withLock { () throws(FileSystemError) in
            tree.trim()
            let inode = try tree.inode(number)
            if isState { return Array(try state(inode, name, isUploaded).utf8) }
            guard let value = inode.xattrs[name] else { throw .noAttribute }
            return Array(value)
        }
    }

    func listxattr(_ number: InodeNumber) throws(FileSystemError) -> [String] {
        if number.isOfVersions { return [] }
        return try tree.lock.withLock { () throws(FileSystemError) in
            tree.trim()
            return try tree.inode(number).xattrs.keys.sorted()
        }
    }

    /// Where a node's changes are, and what its content is made of.
    private func state(_ inode: Inode, _ name: String, _ isUploaded: Bool) throws(FileSystemError) -> String {
        switch name {
        case "user.boxfs.state":
            // The order matters: a row that came from the server may wait for the commit as well.
            if inode.hasUnloggedWrites { return "memory" }
            if isUploaded { return "server" }
            if tree.hasUncommitted, inode.isDirty { return "memory" }
            return inode.contentLogged > 0 && inode.contentLogged <= tree.lastCut ? "uploading" : "local"
        case "user.boxfs.version":
            guard let version = inode.version else { throw .noAttribute }
            return version.description
        default:
            guard inode.isRegular else { throw .noAttribute }
            let content = try tree.content(of: inode)
            return String(content.lock.withLock { content.slots.count { $0.chunk != nil } })
        }
    }
}
