import Glibc
import NIOCore
import Shared

/// One chunk's object, written part by part and hashed on the way. One task's at a time; `write` and `finish` wait for the disk.
///
/// Nothing stays of it unless `finish` finds the right hash. No memory is asked for, and long chunks leave nothing in the kernel's page
/// cache: the mount that sent them has them.
final class HashedObject: @unchecked Sendable {
    private let path: String?
    private var descriptor: Int32 = -1
    private var file: DirectFile?
    /// nil: it is finished.
    private var hasher: SHA256? = SHA256()
    private let buffer = PartBuffer()
    private var held = 0

    /// - Parameter path: nil: only the hash is wanted.
    init(_ path: String?) { self.path = path }

    deinit { discard() }

    /// Removes what was not kept.
    func discard() {
        guard descriptor >= 0 else { return }
        close(descriptor)
        descriptor = -1
        if let path { unlink(path) }
    }

    /// Takes bytes until a part is full.
    /// - Returns: whether it is, and has to be written before more is taken.
    func take(_ bytes: inout ByteBuffer) -> Bool {
        let count = min(bytes.readableBytes, DirectFile.partByteCount - held)
        bytes.readWithUnsafeReadableBytes { source in
            UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[held...]).copyMemory(from: UnsafeRawBufferPointer(rebasing: source[..<count]))
            return count
        }
        held += count
        return held == DirectFile.partByteCount
    }

    func write() throws(ChunkStoreError) {
        let part = UnsafeRawBufferPointer(rebasing: buffer.bytes[..<held])
        hasher!.update(part)
        if let path {
            if file == nil { file = try begin(path, isLong: held == DirectFile.partByteCount) }
            guard file!.append(part) else { throw .system("writing an object") }
        }
        held = 0
    }

    private func begin(_ path: String, isLong: Bool) throws(ChunkStoreError) -> DirectFile {
        descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .system("creating an object") }
        return DirectFile(descriptor, isDirect: isLong)
    }

    /// Writes what was taken last.
    /// - Parameters:
    ///   - wanted: nil: it stays in no case.
    ///   - sync: the folder, once the file is on the disk.
    /// - Returns: the hash of all bytes; and whether they are there durably: they were to be, and have this hash.
    func finish(_ wanted: ChunkHash?, sync: () throws(ChunkStoreError) -> Void) throws(ChunkStoreError) -> (found: ChunkHash, isKept: Bool) {
        if held > 0 { try write() }
        let found = hasher.take()!.finish()
        guard descriptor >= 0, found == wanted else { return (found, false) }
        guard fdatasync(descriptor) == 0 else { throw .system("syncing an object") }
        try sync()
        close(descriptor)
        descriptor = -1
        return (found, true)
    }
}
