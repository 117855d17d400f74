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
            let pages = try packedPages(database, number)
            guard let slots = SlotTable(try pages.flatMap { try Manifest.unpack($0) }) else { throw FileSystemError.notSupported }
            let content = FileContent(size: size, slots: slots, cache: cache, store: store)
            content.savedPages = pages.map { Array($0).hashValue }
            var logs: [Int64: SegmentRow.Log] = [:]
            let rows = try SegmentRow.fetchAll(database, inode: number)
            // Without a manifest only the rows tell of borders.
            for row in rows where !content.slots.cut(at: row.start) { throw FileSystemError.io }
            for row in rows {
                let index = content.slots.index(at: row.start)
                content.slots.grow(to: index + 1)
                content.slots[index] = .segment(row.segment(store, extent: SlotTable.extent(from: row.start, size: size), &logs))
                content.savedSegments[row.start] = row.saved
            }
            content.slots.grow(to: content.slots.count(size: size))
            return content
        }
    }

    private static func packedPages(_ database: Database, _ inode: Int64) throws -> [Data] {
        try Data.fetchAll(database.cachedStatement(sql: "SELECT packed FROM manifests WHERE inode = ? ORDER BY page"), arguments: [inode])
    }

    /// The chunks that the rows name.
    static func sealedChunks(_ database: Database, _ inode: Int64) throws -> [ChunkReference] {
        try packedPages(database, inode).flatMap { try Manifest.unpack($0) }
    }

    /// Writes what differs from the rows. Under `Tree.lock`.
    func save(_ inode: Inode, _ rows: RowChanges) throws {
        let number = Int64(inode.number.rawValue)
        try lock.withLock {
            // A call under way may have changed the content and not the inode yet: of both there is one row after the process's death.
            inode.size = size
            // No rows: all holes, as far as there is no segment. So a new file's content is one row until it is sealed.
            let isSealed = slots.contains { $0.chunk != nil }
            let manifest = isSealed ? Self.manifest(size: size, slots: slots) { _ in [] } : Manifest()
            var pages: [Int] = []
            for (page, start) in stride(from: 0, to: manifest.chunks.count, by: Manifest.pageCount).enumerated() {
                let packed = Manifest.pack(manifest.chunks[start..<min(start + Manifest.pageCount, manifest.chunks.count)])
                pages.append(packed.hashValue)
                guard page >= savedPages.count || savedPages[page] != packed.hashValue else { continue }
                try rows.execute(sql: """
                    INSERT INTO manifests (inode, page, packed) VALUES (?, ?, ?)
                    ON CONFLICT (inode, page) DO UPDATE SET packed = excluded.packed
                    """, arguments: [number, page, Data(packed)])
            }
            if savedPages.count > pages.count {
                try rows.execute(sql: "DELETE FROM manifests WHERE inode = ? AND page >= ?", arguments: [number, pages.count])
            }
            var segments: [Int: SavedSegment] = [:]
            for (index, slot) in slots.enumerated() {
                guard case .segment(let segment) = slot else { continue }
                let row = SegmentRow(slots.start(index), segment)
                segments[row.start] = row.saved
                if savedSegments[row.start] != row.saved { try row.save(rows, inode: number) }
            }
            for start in savedSegments.keys where segments[start] == nil {
                try rows.execute(sql: "DELETE FROM segments WHERE inode = ? AND start = ?", arguments: [number, start])
            }
            savedPages = pages
            savedSegments = segments
            savedRows = Rows(slotChanges: slotChanges, size: size, lengths: segments.mapValues(\.length), revisions: segments.mapValues(\.revision))
            removable += abandoned
            abandoned = []
        }
    }
}
