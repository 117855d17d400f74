import Glibc
import NIOCore
import Shared

extension DirectoryChunkStore {
    func open(_ location: ChunkLocation) throws(ChunkStoreError) -> Int32 {
        let descriptor = Glibc.open(path(location.object), O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw errno == ENOENT ? .notFound : .system("opening an object") }
        return descriptor
    }

    func read(_ location: ChunkLocation) async throws(ChunkStoreError) -> ByteBuffer {
        try await run { () throws(ChunkStoreError) in
            let descriptor = try self.open(location)
            defer { close(descriptor) }
            return try Self.read(descriptor, location, from: 0, count: Int(location.length))
        }
    }

    private static func read(_ descriptor: Int32, _ location: ChunkLocation, from start: Int, count: Int) throws(ChunkStoreError) -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: count)
        let done = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { bytes in
            let wanted = UnsafeMutableRawBufferPointer(rebasing: bytes[..<count])
            return readAll(descriptor, wanted, at: Int(location.offset) + start) ? count : 0
        }
        guard done == count else { throw .tooShort(location) }
        return buffer
    }

    func hash(_ location: ChunkLocation) async throws(ChunkStoreError) -> ChunkHash {
        try await run { () throws(ChunkStoreError) in
            let descriptor = try self.open(location)
            defer { close(descriptor) }
            Self.expect(location, descriptor)
            guard let hash = SHA256.hash(descriptor, from: Int(location.offset), count: Int(location.length)) else { throw .tooShort(location) }
            return hash
        }
    }

    func source(_ location: ChunkLocation) -> any ChunkSource { Source(store: self, location: location) }

    private final class Source: ChunkSource, @unchecked Sendable {      // one task's at a time
        private let store: DirectoryChunkStore
        private let location: ChunkLocation
        private var descriptor: Int32 = -1
        private var position = 0

        init(store: DirectoryChunkStore, location: ChunkLocation) { (self.store, self.location) = (store, location) }

        deinit { if descriptor >= 0 { close(descriptor) } }

        func next(_ count: Int) async throws(ChunkStoreError) -> ByteBuffer {
            try await store.run { () throws(ChunkStoreError) in
                if self.descriptor < 0 {
                    self.descriptor = try self.store.open(self.location)
                    DirectoryChunkStore.expect(self.location, self.descriptor)
                }
                let piece = min(count, Int(self.location.length) - self.position)
                defer { self.position += piece }
                return try DirectoryChunkStore.read(self.descriptor, self.location, from: self.position, count: piece)
            }
        }
    }

    /// The disk reads on while the first bytes are hashed, or on their way.
    static func expect(_ location: ChunkLocation, _ descriptor: Int32) {
        posix_fadvise(descriptor, off_t(location.offset), off_t(location.length), POSIX_FADV_WILLNEED)
    }
}
