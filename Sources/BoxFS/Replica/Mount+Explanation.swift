import Foundation
import GRDB
import Shared

// What a mount tells of one file: `boxfs why`.
extension Mount {
    func explain(_ path: String) throws(ControlError) -> FileExplanation {
        do throws(FileSystemError) {
            var explanation = try replica.explain(path)
            let last = instruments.recent.last(explanation.inode)
            func record(_ kept: RecentRequests.Kept?) -> RequestRecord? {
                kept.map { RequestRecord($0, inode: explanation.inode, caller: CallingProcess(thread: $0.thread)) }
            }
            (explanation.open, explanation.read, explanation.write) = (record(last?.open), record(last?.read), record(last?.write))
            return explanation
        } catch {
            switch error {
            case .notFound: throw .failed("There is no \(path) in this mount.")
            case .missing: throw .failed("What is in the folder of \(path) is not known here yet. Look into the folder (ls) while the server can be reached, then ask again.")
            default: throw .failed("What is known of \(path) cannot be read (\(error)).")
            }
        }
    }
}

extension Replica {
    /// Without what was asked of it, which only the kernel's side knows.
    func explain(_ path: String) throws(FileSystemError) -> FileExplanation {
        let number = try tree.lock.withLock { () throws(FileSystemError) in try tree.resolve(path) }
        let state = String(decoding: try fileSystem.getxattr(number, "user.boxfs.state"), as: UTF8.self)
        return try tree.lock.withLock { () throws(FileSystemError) in
            let inode = try tree.inode(number)
            defer { tree.releaseIfUnused(inode) }
            var explanation = FileExplanation(
                path: path, inode: number.rawValue, isDirectory: inode.isDirectory, size: inode.size, state: state,
                version: inode.version?.description, hasWaitingChange: try tree.isDeferred(inode))
            if inode.isDirectory { explanation.isListed = inode.hydration == .complete }
            guard inode.isRegular else { return explanation }
            guard inode.pages == nil else {
                explanation.isManifestAbsent = true
                explanation.onServer.bytes = inode.size
                return explanation
            }
            let content = try tree.content(of: inode)
            for slot in content.lock.withLock({ content.slots }) {
                switch slot {
                case .hole: break
                case .segment(let segment): explanation.written.add(segment.length)
                case .chunk(let chunk):
                    if cache.contains(chunk.hash) { explanation.here.add(Int(chunk.length)) } else { explanation.onServer.add(Int(chunk.length)) }
                }
            }
            return explanation
        }
    }
}

extension Tree {
    /// The inode at a path from the root, by names that are known here. Under the lock.
    /// - Throws: `.missing(.directory)` when a folder on the way was never listed.
    func resolve(_ path: String) throws(FileSystemError) -> InodeNumber {
        var at = InodeNumber.root
        for name in path.split(separator: "/") {
            let folder = try directory(at)
            guard let next = try entry(at, String(name)) else {
                if folder.hydration != .complete { throw .missing(.directory(at)) }
                throw .notFound
            }
            at = next
        }
        return at
    }

    /// Whether a row of the feed about the node waits for the answer to our own change. Under the lock.
    func isDeferred(_ inode: Inode) throws(FileSystemError) -> Bool {
        try database.read { try Int64.fetchOne($0, sql: "SELECT 1 FROM deferred WHERE kind = 1 AND key = ?", arguments: [inode.id.data]) } != nil
    }
}
