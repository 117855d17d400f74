import ChunkCache
import Foundation
import GRDB
import Shared

// How a file's content lies in the tables `manifests` and `segments`.
extension FileContent {
    /// - Throws: `.missing(.manifest)` while only the names of its pages are here.
    static func load(_ inode: Inode, _ tree: Tree, cache: ChunkCache, store: SegmentStore) throws(FileSystemError) -> FileContent {
        if inode.pages != nil { throw .missing(.manifest(inode.number)) }
        let number = Int64(inode.number.rawValue)
        let size = inode.size
        return try tree.database.read { database in
            let pages = try Data.fetchAll(
                database.cachedStatement(sql: "SELECT packed FROM manifests WHERE inode = ? ORDER BY page"), arguments: [number])
            var chunks: [ChunkReference] = []
            for page in pages { chunks += try Manifest.unpack(page) }
            guard let slots = slots(of: chunks) else { throw FileSystemError.notSupported }
            let content = FileContent(size: size, slots: slots, cache: cache, store: store)
            content.savedPages = pages.map { Array($0).hashValue }
            let rows = try Row.fetchAll(
                database.cachedStatement(sql: "SELECT slot, file, length FROM segments WHERE inode = ?"), arguments: [number])
            for row in rows {
                let slot = Int(row[0] as Int64), file = row[1] as Int64
                // A commit may have caught a write half-way: what it added beyond the size was never answered.
                let length = min(Int(row[2] as Int64), extent(slot, size: size))
                while content.slots.count <= slot { content.slots.append(.hole) }
                let segment = Segment(file: file, length: length, store: store)
                segment.reserved = length   // counted since it was written, or since `Tree.recover`
                segment.isFrozen = true     // it may have been linked into the cache before this process began
                content.slots[slot] = .segment(segment)
                content.savedSegments[slot] = SavedSegment(file: file, length: Int(row[2] as Int64))
            }
            while content.slots.count < slotCount(size: size) { content.slots.append(.hole) }
            return content
        }
    }

    /// Writes what differs from the rows. Under `Tree.lock`.
    func save(_ inode: Inode, _ database: Database) throws {
        let number = Int64(inode.number.rawValue)
        try lock.withLock {
            // No rows: all holes, as far as there is no segment. So a new file's content is one row until it is sealed.
            let isSealed = slots.contains { if case .chunks = $0 { true } else { false } }
            let manifest = isSealed ? Self.manifest(size: size, slots: slots) { _, _ in nil } : Manifest(chunks: [])
            var pages: [Int] = []
            for (page, start) in stride(from: 0, to: manifest.chunks.count, by: Manifest.pageCount).enumerated() {
                let packed = Manifest.pack(manifest.chunks[start..<min(start + Manifest.pageCount, manifest.chunks.count)])
                pages.append(packed.hashValue)
                guard page >= savedPages.count || savedPages[page] != packed.hashValue else { continue }
                try database.cachedStatement(sql: """
                    INSERT INTO manifests (inode, page, packed) VALUES (?, ?, ?)
                    ON CONFLICT (inode, page) DO UPDATE SET packed = excluded.packed
                    """).execute(arguments: [number, page, Data(packed)])
            }
            if savedPages.count > pages.count {
                try database.cachedStatement(sql: "DELETE FROM manifests WHERE inode = ? AND page >= ?").execute(arguments: [number, pages.count])
            }
            var segments: [Int: SavedSegment] = [:]
            for (index, slot) in slots.enumerated() {
                guard case .segment(let segment) = slot else { continue }
                let now = SavedSegment(file: segment.file, length: segment.length)
                segments[index] = now
                guard savedSegments[index] != now else { continue }
                try database.cachedStatement(sql: """
                    INSERT INTO segments (inode, slot, file, length) VALUES (?, ?, ?, ?)
                    ON CONFLICT (inode, slot) DO UPDATE SET file = excluded.file, length = excluded.length
                    """).execute(arguments: [number, index, now.file, now.length])
            }
            for index in savedSegments.keys where segments[index] == nil {
                try database.cachedStatement(sql: "DELETE FROM segments WHERE inode = ? AND slot = ?").execute(arguments: [number, index])
            }
            savedPages = pages
            savedSegments = segments
        }
    }
}
