import Foundation
import Glibc
import Testing
import TestSupport

/// What a process did to a folder, as Tests/Preload/record.c wrote it down, and what a disk may hold of it after a power cut.
///
/// The rules are those of a journaling file system (ext4, XFS): what was synced is there. Names are made, changed and removed in the order
/// of the calls: some of the last ones may be missing, and a file's sync brings its name and all that was done to names before. Of data
/// that were not synced any page may be there or not, a file may be shorter, and bytes that never arrived are zeros.
final class RecordedDisk {
    private enum Kind: UInt8 { case create = 1, write, size, sync, syncFolder, rename, link, unlink, mkdir, rmdir }
    private struct Record {
        let kind: Kind, path: String, other: String, inode: UInt64, offset: Int, data: Range<Int>, end: Int
    }
    private final class File {
        var durable: [UInt8] = []
        var pending: [(offset: Int, data: Range<Int>?)] = []       // nil: the size becomes `offset`
        var lastName = 0
    }
    private enum NameChange { case file(String, File), rename(String, String), remove(String), folder(String) }

    let folder: String
    private let logPath: String
    private let library: String
    private let base: [(path: String, inode: UInt64, bytes: [UInt8]?)]

    /// - Parameter folder: what the process will write to; what it holds now counts as synced.
    init(_ root: String, folder: String) throws {
        self.folder = folder
        logPath = root + "/record.log"
        library = root + "/record.so"
        let source = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../Preload/record.c").standardized.path
        let compiled = try run("gcc", ["-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"])
        try #require(compiled.status == 0, "\(compiled.output)")
        base = try ((try? FileManager.default.subpathsOfDirectory(atPath: folder)) ?? []).sorted().map { path in
            var status = stat()
            try #require(lstat("\(folder)/\(path)", &status) == 0)
            let isFile = status.st_mode & S_IFMT == S_IFREG
            return (path, UInt64(status.st_ino), isFile ? Array(try Data(contentsOf: URL(filePath: "\(folder)/\(path)"))) : nil)
        }
    }

    var environment: [String: String] { ["LD_PRELOAD": library, "RECORD_ROOT": folder, "RECORD_LOG": logPath] }

    /// How far the log has come: what a caller was told is before it.
    var position: Int {
        var status = stat()
        return stat(logPath, &status) == 0 ? Int(status.st_size) : 0
    }

    // MARK: Rebuilding

    private var bytes: [UInt8] = []
    private var records: [Record] = []

    /// Reads the log, once the process is gone.
    func load() throws {
        bytes = Array(try Data(contentsOf: URL(filePath: logPath)))
        var at = 0
        func integer(_ count: Int) -> Int {
            defer { at += count }
            return (0..<count).reduce(0) { $0 | Int(bytes[at + $1]) << (8 * $1) }
        }
        func text(_ count: Int) -> String {
            defer { at += count }
            return String(decoding: bytes[at..<at + count], as: UTF8.self)
        }
        while at + 29 <= bytes.count {
            let kind = try #require(Kind(rawValue: bytes[at]))
            at += 1
            let lengths = [integer(4), integer(4), integer(4)], inode = UInt64(integer(8)), offset = integer(8)
            guard at + lengths.reduce(0, +) <= bytes.count else { break }       // the process was killed in the middle
            let path = text(lengths[0]), other = text(lengths[1])
            records.append(Record(kind: kind, path: path, other: other, inode: inode, offset: offset, data: at..<at + lengths[2], end: at + lengths[2]))
            at += lengths[2]
        }
    }

    /// A point in the log where the power may be cut, after each kind of call equally often.
    func cut(in range: Range<Int>, _ random: inout SeededGenerator) -> Int {
        let kinds = Dictionary(grouping: records.filter { range.contains($0.end) }) { $0.kind.rawValue }
        let kind = kinds.keys.sorted().randomElement(using: &random)
        return kind.flatMap { kinds[$0]?.randomElement(using: &random) }?.end ?? range.lowerBound
    }

    /// Writes what the disk may hold when the power is cut at a point of the log.
    func rebuild(cut: Int, in target: String, _ random: inout SeededGenerator) throws {
        var files: [UInt64: File] = [:], changes: [NameChange] = [], committed = 0
        for (path, inode, bytes) in base {
            guard let bytes else {
                changes.append(.folder(path))
                continue
            }
            let file = files[inode] ?? File()
            file.durable = bytes
            files[inode] = file
            changes.append(.file(path, file))
        }
        committed = changes.count
        for record in records where record.end <= cut {
            switch record.kind {
            case .create:
                let file = File()
                files[record.inode] = file
                changes.append(.file(record.path, file))
                file.lastName = changes.count
            case .write: files[record.inode]?.pending.append((record.offset, record.data))
            case .size: files[record.inode]?.pending.append((record.offset, nil))
            case .sync:
                guard let file = files[record.inode] else { continue }
                for change in file.pending { apply(change, to: &file.durable) }
                file.pending = []
                committed = max(committed, file.lastName)
            case .syncFolder:
                let last = changes.lastIndex { change in
                    let paths = switch change {
                    case .file(let path, _), .remove(let path), .folder(let path): [path]
                    case .rename(let from, let to): [from, to]
                    }
                    return paths.contains { ($0 as NSString).deletingLastPathComponent == record.path }
                }
                committed = max(committed, last.map { $0 + 1 } ?? 0)
            case .rename:
                changes.append(.rename(record.path, record.other))
                files[record.inode]?.lastName = changes.count
            case .link:
                guard let file = files[record.inode] else { continue }
                changes.append(.file(record.other, file))
                file.lastName = changes.count
            case .unlink, .rmdir: changes.append(.remove(record.path))
            case .mkdir: changes.append(.folder(record.path))
            }
        }
        // Often the extremes: they are where promises break.
        let kept = [committed, changes.count, Int.random(in: committed...changes.count, using: &random)].randomElement(using: &random)!
        var names: [String: File] = [:], folders: [String] = []
        for change in changes[..<kept] {
            switch change {
            case .file(let path, let file): names[path] = file
            case .remove(let path):
                names[path] = nil
                folders.removeAll { $0 == path }
            case .rename(let from, let to): if let file = names.removeValue(forKey: from) { names[to] = file }
            case .folder(let path): folders.append(path)
            }
        }
        try FileManager.default.createDirectory(atPath: target, withIntermediateDirectories: true)
        for path in folders { try FileManager.default.createDirectory(atPath: "\(target)/\(path)", withIntermediateDirectories: true) }
        for (path, file) in names.sorted(by: { $0.key < $1.key }) where !path.hasSuffix("-shm") {
            var content = file.durable
            switch random.next() % 3 {
            case 0: break
            case 1: for change in file.pending { apply(change, to: &content) }
            default: for change in file.pending { applyPartly(change, to: &content, &random) }
            }
            try Data(content).write(to: URL(filePath: "\(target)/\(path)"))
        }
    }

    private func apply(_ change: (offset: Int, data: Range<Int>?), to content: inout [UInt8]) {
        guard let data = change.data else {
            content = Array(content.prefix(change.offset)) + [UInt8](repeating: 0, count: max(0, change.offset - content.count))
            return
        }
        if content.count < change.offset + data.count {
            content += [UInt8](repeating: 0, count: change.offset + data.count - content.count)
        }
        content.replaceSubrange(change.offset..<change.offset + data.count, with: bytes[data])
    }

    /// Page by page, as the kernel writes back.
    private func applyPartly(_ change: (offset: Int, data: Range<Int>?), to content: inout [UInt8], _ random: inout SeededGenerator) {
        guard let data = change.data else {
            if random.next().isMultiple(of: 2) { apply(change, to: &content) }
            return
        }
        var at = change.offset
        while at < change.offset + data.count {
            let next = min((at / 4096 + 1) * 4096, change.offset + data.count)
            let from = data.lowerBound + at - change.offset
            if random.next().isMultiple(of: 2) { apply((at, from..<from + next - at), to: &content) }
            at = next
        }
    }
}
