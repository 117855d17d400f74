import Foundation
import Glibc
import NIOCore
import NIOPosix
import Shared

/// Objects as files, `objects/ab/NAME`, where `ab` are the last two digits of the name (the first are its time).
///
/// Crash order of `put`: 1. write the file; 2. fsync it; 3. fsync the folder. Only then the rows are written: a crash before leaves a
/// file, whole or not, that no row names, and gc removes it. (A rename between 1 and 3 would only add a second journal commit.)
final class DirectoryChunkStore: ChunkStore {
    private let root: String
    private let threads: NIOThreadPool

    init(root: String, threads: NIOThreadPool) throws {
        self.root = root
        self.threads = threads
        for first in 0..<256 {
            try FileManager.default.createDirectory(
                atPath: "\(root)/\(Hexadecimal.encode([UInt8(first)]))", withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        }
    }

    private func folder(_ object: String) -> String { "\(root)/\(object.suffix(2))" }
    func path(_ object: String) -> String { "\(folder(object))/\(object)" }

    func run<T: Sendable>(_ body: @escaping @Sendable () throws(ChunkStoreError) -> T) async throws(ChunkStoreError) -> T {
        do { return try await threads.runIfActive(body) } catch { throw error as? ChunkStoreError ?? .io("\(error)") }
    }

    func put(_ chunks: [(reference: ChunkReference, bytes: ByteBuffer)]) async throws(ChunkStoreError) -> [ChunkLocation] {
        let object = Identifier<ObjectTag>.make().description
        return try await run { () throws(ChunkStoreError) in
            var locations: [ChunkLocation] = []
            try self.create(object) { descriptor in
                var offset: UInt64 = 0
                for (reference, bytes) in chunks {
                    guard bytes.withUnsafeReadableBytes({ Self.write(descriptor, $0) }) else { return false }
                    locations.append(ChunkLocation(object: object, offset: offset, length: reference.length))
                    offset += UInt64(reference.length)
                }
                return true
            }
            return locations
        }
    }

    /// Makes an object. Durable when it returns; after an error nothing is left.
    /// - Parameter write: returns false, with errno, if not all could be written.
    private func create(_ object: String, _ write: (Int32) -> Bool) throws(ChunkStoreError) {
        let path = path(object)
        let descriptor = Glibc.open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .system("creating an object") }
        defer { close(descriptor) }
        do throws(ChunkStoreError) {
            guard write(descriptor) else { throw .system("writing an object") }
            guard fdatasync(descriptor) == 0 else { throw .system("syncing an object") }
            try Self.syncFolder(folder(object))
        } catch {
            unlink(path)
            throw error
        }
    }

    func put<Body: AsyncSequence>(
        _ reference: ChunkReference, arriving body: Body, keeps: Bool
    ) async throws -> Arrived where Body.Element == ByteBuffer {
        let name = Identifier<ObjectTag>.make().description, object = HashedObject(keeps ? path(name) : nil)
        defer { object.discard() }      // a thread of the pool may let go of it later
        var count = 0
        for try await piece in body {
            count += piece.readableBytes
            guard count <= Manifest.maximumChunkByteCount else { throw ChunkStoreError.tooLong }
            var piece = piece
            while object.take(&piece) { try await run { () throws(ChunkStoreError) in try object.write() } }
        }
        guard count > 0 else { throw ChunkStoreError.wrongLength }
        let byteCount = count
        return try await run { () throws(ChunkStoreError) in
            let (found, isKept) = try object.finish(byteCount == reference.length ? reference.hash : nil) { () throws(ChunkStoreError) in
                try Self.syncFolder(self.folder(name))
            }
            guard isKept || found != reference.hash || byteCount == reference.length else { throw .wrongLength }
            return (found, isKept ? ChunkLocation(object: name, offset: 0, length: reference.length) : nil)
        }
    }

    func make(
        _ length: Int, from base: ChunkLocation, _ delta: ByteBuffer, _ pieces: [ChunkDelta.Piece]
    ) async throws(ChunkStoreError) -> Made {
        let name = Identifier<ObjectTag>.make().description
        return try await run { () throws(ChunkStoreError) in
            let source = try self.open(base)
            defer { close(source) }
            Self.expect(base, source)
            return try DirectFile.withParts(of: length) { parts throws(ChunkStoreError) in
                // The client that sent the delta writes the chunk before it hashes it (`Sealer`). On one machine they take turns at the disk.
                var hasher = SHA256(), start = 0
                for part in parts {
                    let held = max(0, min(part.count, Int(base.length) - start))
                    guard readAll(source, .init(rebasing: part[..<held]), at: Int(base.offset) + start) else { throw .tooShort(base) }
                    UnsafeMutableRawBufferPointer(rebasing: part[held...]).initializeMemory(as: UInt8.self, repeating: 0)
                    delta.withUnsafeReadableBytes { ChunkDelta.lay(pieces, of: $0, over: part, at: start) }
                    hasher.update(UnsafeRawBufferPointer(part))
                    start += part.count
                }
                try self.create(name) { descriptor in
                    var file = DirectFile(descriptor)
                    for part in parts { guard file.append(UnsafeRawBufferPointer(part)) else { return false } }
                    return true
                }
                return (hasher.finish(), ChunkLocation(object: name, offset: 0, length: UInt32(length)))
            }
        }
    }

    private static func write(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) -> Bool {
        var done = 0
        while done < bytes.count {
            let written = Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
            if written < 0, errno == EINTR { continue }
            guard written > 0 else { return false }
            done += written
        }
        return true
    }

    private static func syncFolder(_ path: String) throws(ChunkStoreError) {
        let descriptor = Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .system("opening a folder") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw .system("syncing a folder") }
    }

    func remove(object: String) async throws(ChunkStoreError) {
        try await run { () throws(ChunkStoreError) in
            guard unlink(self.path(object)) == 0 || errno == ENOENT else { throw .system("removing an object") }
        }
    }

    /// Half-written objects of an earlier process count too: gc removes them like any that no row names.
    func objects() async throws(ChunkStoreError) -> [StoredObject] {
        try await run { () throws(ChunkStoreError) in
            var found: [StoredObject] = []
            for first in 0..<256 {
                let folder = "\(self.root)/\(Hexadecimal.encode([UInt8(first)]))"
                guard let names = try? FileManager.default.contentsOfDirectory(atPath: folder) else { throw .io("\(folder) cannot be read") }
                for name in names {
                    var status = stat()
                    guard stat("\(folder)/\(name)", &status) == 0 else { continue }
                    found.append(StoredObject(name: name, byteCount: UInt64(status.st_size), modified: Timestamp(status.st_mtim)))
                }
            }
            return found
        }
    }
}

extension ChunkStoreError {
    /// What errno says.
    static func system(_ what: String) -> Self {
        let number = errno
        return number == ENOSPC || number == EDQUOT ? .noSpace : .io("\(what): \(String(cString: strerror(number)))")
    }

    static func tooShort(_ location: ChunkLocation) -> Self { .io("object \(location.object) is shorter than its rows say") }
}

enum ObjectTag {}
