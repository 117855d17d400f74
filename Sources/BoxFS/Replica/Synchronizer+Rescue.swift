import ChunkCache
import Foundation
import Glibc
import Shared

// Changes that the server does not take any more, because the right to make them is gone: their bytes are kept beside the tree.
extension Synchronizer {
    /// Leaves the shared folders to which no right is left. Order: 1. what was not sent is copied out; 2. the folder's rows go, in one
    /// transaction; 3. cached chunks go. A crash before 2 leaves the folder marked, and the next mount does it again.
    func leaveLostFolders() async {
        for namespace in tree.lock.withLock({ tree.namespaces.values.filter(\.isLost) }) {
            do {
                let unsent = try tree.lock.withLock { () throws(FileSystemError) in try tree.unsentChanges(of: namespace) }
                let kept = await keep(unsent, of: namespace.id, in: namespace.name ?? "shared folder")
                let events = try tree.lock.withLock { () throws(FileSystemError) in try tree.drop(namespace) }
                notify(events)
                // Chunks of older versions are named nowhere here: whatever no file that stays names goes.
                tree.cache.dropClean(except: try tree.namedChunks())
                if namespace.comesBack != nil { hydrateSignal.raise() }
                if let kept { note("\(namespace.reasonOfLeaving): \(kept)") }
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
        if let kept = await keep(UnsentChanges(files: files), of: namespace.id, in: "refused") { note("The server refused changes of content: \(kept)") }
    }

    /// - Returns: what to tell, nil when there was nothing to keep.
    private func keep(_ unsent: UnsentChanges, of namespace: NamespaceID, in name: String) async -> String? {
        defer {
            tree.lock.withLock {
                for file in unsent.files {
                    file.inode.uses -= 1
                    tree.shrink(file.inode)
                }
            }
        }
        guard !unsent.isEmpty else { return nil }
        let time = ISO8601DateFormatter().string(from: Date()).replacing(":", with: ".")
        let folder = Self.free("\(rescueFolder)/\(name) \(time)")
        var incomplete: [String] = []
        func attempt(_ path: String, _ body: () async throws -> Bool) async {
            do { if try await !body() { incomplete.append(path) } } catch {
                incomplete.append(path)
                note("\(path) could not be kept in \(folder): \(error).")
            }
        }
        for path in [""] + unsent.folders { await attempt(path) { try Self.makeFolder("\(folder)/\(path)") } }
        for file in unsent.files { await attempt(file.path) { try await copy(file.inode, to: "\(folder)/\(file.path)", namespace) } }
        for (path, target) in unsent.symlinks {
            await attempt(path) {
                _ = try Self.makeFolder(("\(folder)/\(path)" as NSString).deletingLastPathComponent)
                guard symlink(target, "\(folder)/\(path)") == 0 else { throw FileSystemError.io }
                return true
            }
        }
        var list: String?
        if !unsent.others.isEmpty {
            let path = Self.free("\(folder)/\(UnsentChanges.listName)")
            await attempt(UnsentChanges.listName) {
                try Data((unsent.others.joined(separator: "\n") + "\n").utf8).write(to: URL(filePath: path))
                list = path
                return true
            }
        }
        let gaps = incomplete.isEmpty ? "" : " Parts that were only on the server are missing in \(incomplete.prefix(5).joined(separator: ", "))."
        return unsent.summary(in: folder, list: list) + gaps
    }

    /// The path, or the first with a number behind it at which nothing is.
    private static func free(_ path: String) -> String {
        var free = path, number = 1
        while access(free, F_OK) == 0 {
            number += 1
            free = "\(path) \(number)"
        }
        return free
    }

    private static func makeFolder(_ path: String) throws -> Bool {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        return true
    }

    /// - Returns: false if some of it could not be had.
    private func copy(_ inode: Inode, to path: String, _ namespace: NamespaceID) async throws -> Bool {
        let content = try tree.lock.withLock { () throws(FileSystemError) in try tree.content(of: inode) }
        _ = try Self.makeFolder((path as NSString).deletingLastPathComponent)
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
                at = min(size, content.slotEnd(at: at))
            }
        }
        return fsync(descriptor) == 0 && isWhole
    }

    private func write(_ piece: ReadPiece, to descriptor: Int32, at offset: UInt64) throws(FileSystemError) -> Int {
        switch piece {
        case .zeros(let count): return count    // a hole already
        case .bytes(let bytes):
            try Array(bytes).withBytes { bytes throws(FileSystemError) in try writeFully(descriptor, bytes, at: Int(offset)) }
            return bytes.count
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
