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
    private func path(_ object: String) -> String { "\(folder(object))/\(object)" }

    private func run<T: Sendable>(_ body: @escaping @Sendable () throws(ChunkStoreError) -> T) async throws(ChunkStoreError) -> T {
        do { return try await threads.runIfActive(body) } catch { throw error as? ChunkStoreError ?? .io("\(error)") }
    }

    func put(_ chunks: [(reference: ChunkReference, bytes: ByteBuffer)]) async throws(ChunkStoreError) -> [ChunkLocation] {
        let object = Identifier<ObjectTag>.make().description
        let bodies = chunks
        return try await run { () throws(ChunkStoreError) in
            let path = self.path(object)
            let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else { throw Self.failure("creating an object") }
            defer { close(descriptor) }
            var locations: [ChunkLocation] = []
            var offset: UInt64 = 0
            do throws(ChunkStoreError) {
                for (reference, bytes) in bodies {
                    try Self.write(descriptor, bytes)
                    locations.append(ChunkLocation(object: object, offset: offset, length: reference.length))
                    offset += UInt64(reference.length)
                }
                guard fdatasync(descriptor) == 0 else { throw Self.failure("syncing an object") }
                try Self.syncFolder(self.folder(object))
            } catch {
                unlink(path)
                throw error
            }
            return locations
        }
    }

    private static func write(_ descriptor: Int32, _ bytes: ByteBuffer) throws(ChunkStoreError) {
        var failure: ChunkStoreError?
        bytes.withUnsafeReadableBytes { bytes in
            var done = 0
            while done < bytes.count {
                let written = Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
                if written < 0, errno == EINTR { continue }
                guard written > 0 else { return failure = Self.failure("writing an object") }
                done += written
            }
        }
        if let failure { throw failure }
    }

    private static func syncFolder(_ path: String) throws(ChunkStoreError) {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure("opening a folder") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw failure("syncing a folder") }
    }

    private static func failure(_ what: String) -> ChunkStoreError {
        let number = errno
        return number == ENOSPC || number == EDQUOT ? .noSpace : .io("\(what): \(String(cString: strerror(number)))")
    }

    func read(_ location: ChunkLocation) async throws(ChunkStoreError) -> ByteBuffer {
        try await run { () throws(ChunkStoreError) in
            let descriptor = open(self.path(location.object), O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { throw errno == ENOENT ? .notFound : Self.failure("opening an object") }
            defer { close(descriptor) }
            var buffer = ByteBufferAllocator().buffer(capacity: Int(location.length))
            let count = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: Int(location.length)) { bytes in
                var done = 0
                while done < Int(location.length) {
                    let part = pread(descriptor, bytes.baseAddress! + done, Int(location.length) - done, off_t(location.offset) + done)
                    if part < 0, errno == EINTR { continue }
                    guard part > 0 else { break }
                    done += part
                }
                return done
            }
            guard count == Int(location.length) else { throw .io("object \(location.object) is shorter than its rows say") }
            return buffer
        }
    }

    func remove(object: String) async throws(ChunkStoreError) {
        try await run { () throws(ChunkStoreError) in
            guard unlink(self.path(object)) == 0 || errno == ENOENT else { throw Self.failure("removing an object") }
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

enum ObjectTag {}
