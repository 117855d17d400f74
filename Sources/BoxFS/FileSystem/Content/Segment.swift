import Dispatch
import Glibc
import Shared
import Synchronization

/// The folder of segment files: written data that is not sealed into chunks yet.
final class SegmentStore: Sendable {
    let directory: String
    private let nextFile: Atomic<Int64>
    /// How long it took to sync a file's segments.
    let syncs = Histogram()

    /// - Parameter firstFile: no file in the folder has this number or a greater one.
    init(directory: String, firstFile: Int64) {
        self.directory = directory
        nextFile = Atomic(firstFile)
    }

    func path(_ file: Int64) -> String { "\(directory)/\(Segment.fileName(file))" }

    func make() throws(FileSystemError) -> Segment {
        let (ready, isLow) = spares.withLock { spares in
            let ready = spares.ready.popLast()
            guard spares.ready.count < Self.spareCount / 2, !spares.areComing else { return (ready, false) }
            spares.areComing = true
            return (ready, true)
        }
        if isLow { Self.making.async { self.makeSpares() } }
        if let ready { return ready }
        return try create()
    }

    private func create() throws(FileSystemError) -> Segment {
        let segment = Segment(file: nextFile.add(1, ordering: .relaxed).newValue, length: 0, store: self)
        segment.descriptor = try segment.opened(O_RDWR | O_CREAT | O_EXCL)
        return segment
    }

    // MARK: Spares

    /// Empty files made beforehand, because making one is most of the time that the first write of a small file takes. No row names
    /// them: the next start removes what is left of them.
    private struct Spares: Sendable {
        var ready: [Segment] = []
        var areComing = false
    }

    private static let spareCount = 32
    private static let making = DispatchQueue(label: "spare segments", qos: .userInitiated)
    private let spares = Mutex(Spares())

    private func makeSpares() {
        // A full disk is told to who writes.
        while spares.withLock({ $0.ready.count < Self.spareCount }), let segment = try? create() { spares.withLock { $0.ready.append(segment) } }
        spares.withLock { $0.areComing = false }
    }

    /// A writable copy of the first `length` bytes of an open file.
    func copy(of source: Int32, length: Int) throws(FileSystemError) -> Segment {
        let segment = try make()
        do {
            try copyBytes(from: source, at: 0, to: segment.open().rawValue, at: 0, count: length)
        } catch {
            Glibc.unlink(segment.path)
            throw error
        }
        segment.length = length
        return segment
    }

    /// The folder's own entries are on the disk.
    func syncDirectory() throws(FileSystemError) {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .io }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw .io }
    }
}

/// Written data of one slot of a file, in a file of its own. The file's `FileContent.lock` guards all fields.
final class Segment: @unchecked Sendable {
    let file: Int64
    /// Bytes from the slot's start that count; what follows up to the slot's end is zeros.
    var length: Int
    /// Part of a commit under way: the next write goes to a copy.
    var isFrozen = false
    /// A power cut would not lose it.
    var isSynced = false
    /// Bytes asked from the cache's room.
    var reserved = 0
    /// nil: it was made from nothing, or differs too much.
    var changes: SegmentChanges?
    fileprivate let store: SegmentStore
    fileprivate(set) var descriptor: OpenDescriptor?

    init(file: Int64, length: Int, store: SegmentStore) {
        self.file = file
        self.length = length
        self.store = store
    }

    static func fileName(_ file: Int64) -> String { String(file) }
    var path: String { store.path(file) }

    /// The open file. Kept open until `close`.
    func open() throws(FileSystemError) -> OpenDescriptor {
        if let descriptor { return descriptor }
        let opened = try opened(O_RDWR)
        descriptor = opened
        return opened
    }

    func close() { descriptor = nil }

    /// Bytes of the slot that were written.
    func noteChange(_ range: Range<Int>) {
        if changes?.add(range) == false { changes = nil }
    }

    fileprivate func opened(_ flags: Int32) throws(FileSystemError) -> OpenDescriptor {
        let descriptor = Glibc.open(path, flags | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw errno == ENOSPC || errno == EDQUOT ? .noSpace : .io }
        return OpenDescriptor(owning: descriptor)
    }
}

/// Copies within the local disk. (Swift's Glibc module does not show copy_file_range(2).)
func copyBytes(from source: Int32, at sourceOffset: Int, to target: Int32, at targetOffset: Int, count: Int) throws(FileSystemError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: min(count, 1 << 18), alignment: 4096)
    defer { buffer.deallocate() }
    var at = 0
    while at < count {
        let done = pread(source, buffer.baseAddress, min(buffer.count, count - at), off_t(sourceOffset + at))
        if done < 0, errno == EINTR { continue }
        guard done > 0 else { throw .io }
        try writeFully(target, UnsafeRawBufferPointer(rebasing: buffer[..<done]), at: targetOffset + at)
        at += done
    }
}

func writeFully(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) throws(FileSystemError) {
    var done = 0
    while done < bytes.count {
        let written = pwrite(descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset + done))
        if written < 0, errno == EINTR { continue }
        guard written > 0 else { throw written < 0 && (errno == ENOSPC || errno == EDQUOT) ? .noSpace : .io }
        done += written
    }
}
