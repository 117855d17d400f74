import Foundation
import Glibc
import Shared

/// What a file looked like when its bytes were verified: a program that writes to it changes at least one of these.
struct FileMark: Equatable, Sendable {
    var size: Int64
    var modified: Int64
    var inode: UInt64

    init(size: Int64, modified: Int64, inode: UInt64) { (self.size, self.modified, self.inode) = (size, modified, inode) }

    init?(_ descriptor: Int32) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return nil }
        self.init(status)
    }

    init?(path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        self.init(status)
    }

    private init(_ status: stat) {
        self.init(size: Int64(status.st_size), modified: Timestamp(status.st_mtim).nanoseconds, inode: UInt64(status.st_ino))
    }
}

enum ChunkFiles {
    static func path(_ directory: String, _ hash: ChunkHash) -> String {
        let name = hash.description
        return "\(directory)/chunks/\(name.prefix(2))/\(name)"
    }

    /// All chunk files with their sizes. Half-written ones of an earlier process are removed.
    static func list(_ directory: String) throws -> [(ChunkHash, Int)] {
        var found: [(ChunkHash, Int)] = []
        let root = directory + "/chunks"
        for folder in try FileManager.default.contentsOfDirectory(atPath: root) {
            if folder.hasSuffix(".part") {
                unlink("\(root)/\(folder)")
                continue
            }
            for name in try FileManager.default.contentsOfDirectory(atPath: "\(root)/\(folder)") {
                var status = stat()
                guard let hash = ChunkHash(name), stat("\(root)/\(folder)/\(name)", &status) == 0 else { continue }
                guard (1...Manifest.maximumChunkByteCount).contains(Int(status.st_size)) else { continue }
                found.append((hash, Int(status.st_size)))
            }
        }
        return found
    }
}
