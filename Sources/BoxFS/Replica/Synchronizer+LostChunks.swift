import Foundation
import GRDB
import Shared

/// A chunk that the server needs and this machine does not have: a power cut took what was closed and never synced, or the disk damaged it.
struct LostChunk: Error { let reference: ChunkReference }

extension Synchronizer {
    /// Goes on without a lost chunk: its bytes become zeros, and the commit that needs it is cut anew from the log. (The server asked
    /// for the chunk, so it has never applied that commit.)
    func giveUp(_ lost: ChunkReference, _ outgoing: Outgoing, _ namespace: Namespace) throws {
        let (paths, events) = try tree.lock.withLock { () throws(FileSystemError) -> ([String], [KernelEvent]) in
            var paths: [String] = [], events: [KernelEvent] = []
            let changed = try tree.database.read {
                try Int64.fetchAll(
                    $0, sql: "SELECT DISTINCT inode FROM log WHERE namespace = ? AND kind = ?", arguments: [namespace.number, LogKind.content.rawValue])
            }
            for number in changed {
                guard let inode = try? tree.inode(InodeNumber(rawValue: UInt64(number))), inode.links > 0 else { continue }
                let content = try tree.content(of: inode)
                if content.zero(lost.hash) {
                    paths.append(try tree.path(of: inode.number) ?? "a file")
                    events.append(.inode(inode.number, data: true))
                    inode.pagesValid = false
                    tree.markContentDirty(inode)
                }
                content.restateClaims()
            }
            try tree.change { try $0.execute(sql: "DELETE FROM outbox WHERE namespace = ?", arguments: [namespace.number]) }
            try tree.commit()
            return (paths, events)
        }
        tree.cache.markSent(outgoing.claims.map(\.hash))
        notify(events)
        for path in paths { note("\(lost.length) bytes of \(path) are lost, by a power cut before they were synced or by the disk: they are zeros now.") }
        pushSignal.raise()
    }
}
