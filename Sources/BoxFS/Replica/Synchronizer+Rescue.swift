import ChunkCache
import Foundation
import Glibc
import Shared

// Changes that the server does not take any more, because the right to make them is gone: their bytes are kept beside the tree.
extension Synchronizer {
    /// Leaves the shared folders to which no right is left. Order: 1. unsent content is copied out; 2. the folder's rows go, in one
    /// transaction; 3. cached chunks go. A crash before 2 leaves the folder marked, and the next mount does it again.
    func leaveLostFolders() async {
        for namespace in tree.lock.withLock({ tree.namespaces.values.filter(\.isLost) }) {
            do {
                let files = try tree.lock.withLock { () throws(FileSystemError) in try tree.unsentFiles(of: namespace) }
                let kept = await keep(files, of: namespace.id, in: namespace.name ?? "shared folder")
                let events = try tree.lock.withLock { () throws(FileSystemError) in try tree.drop(namespace) }
                notify(events)
                // Chunks of older versions are named nowhere here: whatever no file that stays names goes.
                tree.cache.dropClean(except: try tree.namedChunks())
                if namespace.comesBackIn != nil { hydrateSignal.raise() }
                let name = namespace.name ?? ""
                let reason = namespace.isGivenAgain ? "You were not in the shared folder \(name) for a while"
                    : namespace.comesBackIn == nil ? "You are no longer in the shared folder \(name)" : "The shared folder \(name) may only be read now"
                if let kept { note("\(reason): \(kept)") }
                // Its records went without being sent.
                acknowledge(upTo: try tree.lock.withLock { () throws(FileSystemError) in try tree.acknowledgedLog() })
            } catch { note("A shared folder that was left could not be removed here (\(error)); the next mount tries again.") }
        }
    }

    /// Keeps the content of nodes whose new versions the server refused.
    func rescue(_ nodes: [NodeID]) async {
        let (files, namespace) = tree.lock.withLock {
            let inodes = nodes.compactMap { (try? tree.inode(of: $0)) ?? nil }
            let files = inodes.compactMap { tree.unsentFile($0.number, below: .root) }
            return (files, inodes.first.flatMap { tree.namespaces[$0.namespace] } ?? tree.namespaces[Namespace.home]!)
        }
        if let kept = await keep(files, of: namespace.id, in: "refused") { note("The server refused changes of content: \(kept)") }
    }

    /// - Returns: what to tell, nil when there was nothing to keep.
    private func keep(_ files: [Tree.UnsentFile], of namespace: NamespaceID, in name: String) async -> String? {
        defer {
            tree.lock.withLock {
                for file in files {
                    file.inode.uses -= 1
                    tree.shrink(file.inode)
                }
            }
        }
        guard !files.isEmpty else { return nil }
        let time = ISO8601DateFormatter().string(from: Date()).replacing(":", with: ".")
        var folder = "\(rescueFolder)/\(name) \(time)", number = 1
        while access(folder, F_OK) == 0 {
            number += 1
            folder = "\(rescueFolder)/\(name) \(time) \(number)"
        }
        var incomplete: [String] = []
        for file in files {
            let path = "\(folder)/\(file.path)"
            do { if try await !copy(file.inode, to: path, namespace) { incomplete.append(file.path) } } catch {
                incomplete.append(file.path)
                note("\(file.path) could not be kept in \(folder): \(error).")
            }
        }
        let count = files.count == 1 ? "one file with changes that were not sent is" : "\(files.count) files with changes that were not sent are"
        let gaps = incomplete.isEmpty ? "" : " Parts that were only on the server are missing in \(incomplete.prefix(5).joined(separator: ", "))."
        return "\(count) kept in \(folder).\(gaps)"
    }

    /// - Returns: false if some of it could not be had.
    private func copy(_ inode: Inode, to path: String, _ namespace: NamespaceID) async throws -> Bool {
        let content = try tree.lock.withLock { () throws(FileSystemError) in try tree.content(of: inode) }
        try FileManager.default.createDirectory(
            atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        let descriptor = Glibc.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileSystemError.io }
        defer { close(descriptor) }
        let size = content.byteCount
        guard ftruncate(descriptor, off_t(size)) == 0 else { throw FileSystemError.noSpace }
        var at: UInt64 = 0, isWhole = true, asked: Set<ChunkHash> = []
        while at < size {
            do throws(FileSystemError) {
                let pieces = try content.read(offset: Int64(at), count: 1 << 20, inode: inode.number)
                guard !pieces.isEmpty else { break }
                for piece in pieces { at += UInt64(try write(piece, to: descriptor, at: at)) }
            } catch {
                guard case .missing(.chunk(let hash, let length, _)) = error else { throw error }
                let reference = ChunkReference(hash: hash, length: length)
                if asked.insert(hash).inserted, await fetch(reference, of: namespace) { continue }
                isWhole = false
                at = min(size, (at / UInt64(FileContent.slotByteCount) + 1) * UInt64(FileContent.slotByteCount))
            }
        }
        return fsync(descriptor) == 0 && isWhole
    }

    private func write(_ piece: ReadPiece, to descriptor: Int32, at offset: UInt64) throws(FileSystemError) -> Int {
        switch piece {
        case .zeros(let count): return count    // a hole already
        case .file(let source, let from, let count):
            try copyBytes(from: source.rawValue, at: Int(from), to: descriptor, at: Int(offset), count: count)
            return count
        }
    }

    private func fetch(_ reference: ChunkReference, of namespace: NamespaceID) async -> Bool {
        guard state.withLock(\.isConnected) else { return false }
        return await withCheckedContinuation { continuation in
            _ = chunks.fetch(reference, of: namespace) { continuation.resume(returning: $0 == nil) }
        }
    }
}
