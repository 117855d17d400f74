import ChunkCache
import Foundation
import Glibc
import Shared
import Testing
@testable import BoxFS
@testable import Server

/// The trees that a single mount went through: its server only ever holds one of them, and none before the one that it held last.
struct PassedTrees {
    /// What each path may be: more than one thing while a program has the file open, as what it writes is sent at any time until the close.
    private var trees: [[String: Set<String>]] = [[:]]
    private var steps = [-1]
    private var seen = 0
    private var last: [String: Set<String>] = [:]
    /// By inode, what of it may be sent; an empty file from its creation on.
    private var known: [InodeNumber: Set<String>] = [:]

    mutating func add(_ tree: [String: SimulatedMount.Shown], _ step: Int) {
        // Numbers that a crash took back are given again.
        let here = Set(tree.values.map(\.inode))
        known = known.filter { here.contains($0.key) }
        for shown in tree.values { known[shown.inode] = (shown.isUnlogged ? known[shown.inode] ?? [SimulatedMount.plainText(.regular, nil, [])] : []).union([shown.text]) }
        add(tree.mapValues { known[$0.inode]! }, step)
        last = tree.mapValues { [$0.text] }
    }

    /// A tree of which nothing is open but for a moment.
    mutating func add(_ tree: [String: String], _ step: Int) { add(tree.mapValues { [$0] }, step) }

    private mutating func add(_ tree: [String: Set<String>], _ step: Int) {
        guard tree != trees.last else { return }
        trees.append(tree)
        steps.append(step)
    }

    mutating func mayBeSeen(_ tree: [String: String]) -> Bool {
        guard let place = trees[seen...].firstIndex(where: { Self.differences($0, tree).isEmpty }) else { return false }
        seen = place
        return true
    }

    /// What differs from the last tree: nobody else changes anything here.
    func unchanged(_ tree: [String: SimulatedMount.Shown]) -> String? {
        let differences = Self.differences(last, tree.mapValues(\.text)).map { "\($0) is \(tree[$0]?.text ?? "nothing") instead of \(last[$0]?.joined() ?? "nothing")" }
        return differences.isEmpty ? nil : differences.joined(separator: ", ")
    }

    private static func differences(_ tree: [String: Set<String>], _ seen: [String: String]) -> [String] {
        Set(tree.keys).union(seen.keys).filter { path in !(seen[path].map { tree[path]?.contains($0) ?? false } ?? (tree[path] == nil)) }.sorted()
    }

    /// For people.
    func nearest(to tree: [String: String]) -> String {
        let nearest = trees.indices.reversed().min { Self.differences(trees[$0], tree).count < Self.differences(trees[$1], tree).count }!
        let differences = Self.differences(trees[nearest], tree).map { path in
            let places = trees.indices.filter { index in tree[path].map { trees[index][path]?.contains($0) ?? false } ?? (trees[index][path] == nil) }
            let expected = trees[nearest][path]?.sorted().joined(separator: " or ") ?? "nothing"
            return "\(path) is \(tree[path] ?? "nothing") instead of \(expected), and was so after the steps \(places.suffix(20).map { "\(steps[$0])" }.joined(separator: " "))"
        }
        return "nearest to that after step \(steps[nearest]), but \(differences.joined(separator: "; ")); seen before: \(steps[seen]), the last: \(steps.last!)"
    }
}

// What programs see, told as what the server has is.
extension SimulatedMount {
    struct Shown { let inode: InodeNumber, text: String, isUnlogged: Bool }

    /// Path to what programs read there.
    func plainTree() throws -> [String: Shown] {
        try told { inode throws(FileSystemError) in
            let text = Self.plainText(FileType(mode: inode.mode), inode.target, try bytes(of: inode))
            return Shown(inode: inode.number, text: text, isUnlogged: inode.hasUnloggedContent)
        }
    }

    static func plainText(_ type: FileType?, _ target: String?, _ bytes: [UInt8]) -> String {
        type == .directory ? "/" : target.map { "-> \($0)" } ?? "\("\(SHA256.hash(bytes))".prefix(8)) \(brief(bytes))"
    }

    /// Below `Tree.lock`, and without the kernel's way of reading: so that looking changes nothing.
    private func bytes(of inode: Inode) throws(FileSystemError) -> [UInt8] {
        guard inode.isRegular else { return [] }
        let file = try tree.content(of: inode)
        return try file.lock.withLock { () throws(FileSystemError) in
            var bytes = [UInt8](repeating: 0, count: Int(file.size))
            for (index, slot) in file.slots.enumerated() {
                let start = file.slots.start(index), extent = file.slots.extent(index, size: file.size)
                switch slot {
                case .hole: break
                case .segment(let segment):
                    var part = [UInt8](repeating: 0, count: min(extent, segment.length))
                    try part.withMutableBytes { part throws(FileSystemError) in try segment.read(into: part, at: 0) }
                    bytes.replaceSubrange(start..<start + part.count, with: part)
                case .chunk(let chunk):
                    let count = min(Int(chunk.length), extent)
                    guard let open = tree.cache.open(chunk) else { throw .io }
                    var part = [UInt8](repeating: 0, count: count)
                    guard pread(open.fileDescriptor, &part, count, off_t(open.offset)) == count else { throw .io }
                    bytes.replaceSubrange(start..<start + count, with: part)
                }
            }
            return bytes
        }
    }
}

extension TestDevice {
    /// The server's tree as `SimulatedMount.plainTree` tells the mount's.
    func plainTree() async throws -> [String: String] {
        var tree: [String: String] = [:], folders = [(root, "")]
        while let (directory, path) = folders.popLast() {
            let page = try await drive.children(session, namespace, directory, after: nil, limit: 1000)
            for entry in page.entries {
                let node = try #require(page.nodes.first { $0.id == entry.node }), place = path + "/" + entry.name
                var bytes: [UInt8] = []
                for chunk in try node.content?.inline.map({ try Manifest.unpack($0) }) ?? [] {
                    if chunk.isHole { bytes += [UInt8](repeating: 0, count: Int(chunk.length)) } else {
                        let location = try #require(try await drive.chunkLocations(session, namespace, [chunk.hash])[chunk.hash])
                        bytes += try await drive.chunks.read(location).readableBytesView
                    }
                }
                tree[place] = SimulatedMount.plainText(FileType(mode: node.mode), node.target, bytes)
                if FileType(mode: node.mode) == .directory { folders.append((node.id, place)) }
            }
        }
        return tree
    }
}
