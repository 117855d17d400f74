import Glibc
import Shared

extension ChunkCache {
    public typealias Sealed = (reference: ChunkReference, bytes: [UInt8])

    /// Takes over the bytes of sealed segments, each with one claim, in packs. They are on the disk when it returns.
    ///
    /// - Parameter chunks: small ones; the same may come more than once.
    /// - Returns: bytes that count as chunks' from now on. They are the segments', which are counted still: `endSealing` takes them.
    public func adopt(_ chunks: [Sealed]) throws(ChunkCacheError) -> UInt64 {
        var claims: [ChunkHash: Int] = [:], unique: [Sealed] = []
        for chunk in chunks {
            if claims[chunk.reference.hash] == nil { unique.append(chunk) }
            claims[chunk.reference.hash, default: 0] += 1
        }
        let here = state.withLock { state in
            unique.filter { chunk in
                guard state.holds(chunk.reference) else { return false }
                return (0..<claims[chunk.reference.hash]!).allSatisfy { _ in state.claim(chunk.reference.hash) }
            }.map(\.reference.hash)
        }
        var done = here, counted: UInt64 = 0
        do throws(ChunkCacheError) {
            for hash in here { try sync(hash) }
            let known = Set(here)
            for group in Pack.groups(unique.filter { !known.contains($0.reference.hash) }) {
                counted += try put(group, claims)
                done += group.map(\.reference.hash)
            }
            return counted
        } catch {
            markSent(done.flatMap { repeatElement($0, count: claims[$0]!) })
            endSealing(bytes: counted)
            throw error
        }
    }

    private func put(_ chunks: [Sealed], _ claims: [ChunkHash: Int]) throws(ChunkCacheError) -> UInt64 {
        let number = nextPack.add(1, ordering: .relaxed).newValue
        let (bytes, members) = Pack.bytes(of: chunks), path = Pack.path(directory, number)
        let mark = try write(bytes, to: path)
        let replaced = state.withLock { state in
            state.doubleBytes += UInt64(bytes.count)
            let replaced = state.add(Pack.Contents(number: number, byteCount: UInt64(bytes.count), members: members, mark: mark))
            for member in members { for _ in 0..<claims[member.reference.hash]! { _ = state.claim(member.reference.hash) } }
            return replaced
        }
        remove(replaced)
        for member in members { index.note(member.reference.hash, mark) }
        return UInt64(bytes.count)
    }

    /// Crash order: 1. the file is written; 2. it is on the disk; 3. it has its name; 4. the name is on the disk.
    private func write(_ bytes: [UInt8], to path: String) throws(ChunkCacheError) -> FileMark {
        let part = path + ".part"
        let descriptor = Glibc.open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        let folder = Glibc.open(directory + "/packs", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        defer { for file in [descriptor, folder] where file >= 0 { close(file) } }
        var file = DirectFile(descriptor, isDirect: false)
        guard descriptor >= 0, folder >= 0, bytes.withUnsafeBytes({ file.append($0) }), fdatasync(descriptor) == 0, rename(part, path) == 0,
              fsync(folder) == 0, let mark = FileMark(descriptor) else {
            let error = errno
            unlink(part)
            unlink(path)
            throw error == ENOSPC || error == EDQUOT ? .full : .io("writing a pack of chunks: errno \(error)")
        }
        return mark
    }

    /// Has the packs of an earlier process.
    static func takePacks(_ directory: String, _ state: inout CacheState, _ marks: inout [ChunkHash: FileMark]) throws {
        for number in try Pack.list(directory) {
            let path = Pack.path(directory, number)
            guard let (members, mark) = Pack.read(path) else {
                unlink(path)
                continue
            }
            let isVerified = members.allSatisfy { marks[$0.reference.hash] == mark }
            for member in members { marks[member.reference.hash] = nil }
            for victim in state.add(Pack.Contents(number: number, byteCount: UInt64(mark.size), members: members, mark: isVerified ? mark : nil)) {
                switch victim {
                case .chunk(let hash): unlink(ChunkFiles.path(directory, hash))
                case .pack: unlink(path)
                }
            }
        }
    }
}

/// Where a chunk's bytes lie in a cache's folder.
public struct ChunkFile: Sendable {
    public let path: String
    public let offset: Int, length: Int

    /// The SHA-256 of its bytes; nil if they cannot be read.
    public func hash() -> ChunkHash? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        return SHA256.hash(descriptor, from: offset, count: length)
    }
}

extension ChunkCache {
    /// What a folder holds, for who cannot open it as a cache. Nobody has looked at the bytes.
    public static func files(in directory: String) throws -> [ChunkHash: ChunkFile] {
        var files: [ChunkHash: ChunkFile] = [:]
        for (hash, length) in try ChunkFiles.list(directory) { files[hash] = ChunkFile(path: ChunkFiles.path(directory, hash), offset: 0, length: length) }
        for number in try Pack.list(directory) {
            let path = Pack.path(directory, number)
            for member in Pack.read(path)?.members ?? [] {
                files[member.reference.hash] = ChunkFile(path: path, offset: member.offset, length: Int(member.reference.length))
            }
        }
        return files
    }
}
