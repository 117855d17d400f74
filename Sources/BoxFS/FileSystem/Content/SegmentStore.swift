import Dispatch
import Glibc
import Shared
import Synchronization

/// The folder of segment files: written data that is not sealed into chunks yet.
final class SegmentStore: Sendable {
    let directory: String
    /// Whether the rows have room for bytes: when the disk is full, they wait where others wait.
    private let hasRoomInRows: @Sendable () -> Bool
    private let nextFile: Atomic<Int64>
    private let revisions = Atomic(0)
    /// How long it took to sync a file's segments.
    let syncs = Histogram()

    /// - Parameter firstFile: no file in the folder has this number or a greater one.
    init(directory: String, firstFile: Int64, hasRoomInRows: @escaping @Sendable () -> Bool = { true }) {
        self.directory = directory
        self.hasRoomInRows = hasRoomInRows
        nextFile = Atomic(firstFile)
    }

    /// Whether a segment that ends at `end` may do without a file. Only a file's first may: so a transaction has few bytes (`Tree.maximumDirtyContents`).
    func mayHold(_ index: Int, end: Int) -> Bool { index == 0 && end <= Segment.maximumHeldBytes && hasRoomInRows() }

    func makeRevision() -> Int { revisions.add(1, ordering: .relaxed).newValue }

    func path(_ file: Int64) -> String { "\(directory)/\(Segment.fileName(file))" }

    func make() throws(FileSystemError) -> Segment {
        let (ready, isLow) = spares.withLock { spares in
            let ready = spares.ready.popLast()
            guard spares.ready.count < Self.spareCount / 2, !spares.areComing else { return (ready, false) }
            spares.areComing = true
            return (ready, true)
        }
        if isLow { Self.making.async { self.makeSpares() } }
        let file = if let ready { ready } else { try create() }
        return Segment(file: file.number, length: 0, store: self, descriptor: file.descriptor)
    }

    private struct NewFile: Sendable { let number: Int64, descriptor: OpenDescriptor }

    private func create() throws(FileSystemError) -> NewFile {
        let number = nextFile.add(1, ordering: .relaxed).newValue
        return NewFile(number: number, descriptor: try Segment.open(path(number), O_RDWR | O_CREAT | O_EXCL))
    }

    // MARK: Spares

    /// Empty files made beforehand, because making one is most of the time that the first write of a small file takes. No row names
    /// them: the next start removes what is left of them.
    private struct Spares: Sendable {
        var ready: [NewFile] = []
        var areComing = false
    }

    private static let spareCount = 32
    static let making = DispatchQueue(label: "spare segments", qos: .userInitiated)
    private let spares = Mutex(Spares())

    private func makeSpares() {
        // A full disk is told to who writes.
        while spares.withLock({ $0.ready.count < Self.spareCount }), let file = try? create() { spares.withLock { $0.ready.append(file) } }
        spares.withLock { $0.areComing = false }
    }

    /// A writable segment with all bytes of another one, whose patch is applied.
    func copy(of source: Segment) throws(FileSystemError) -> Segment {
        let segment = try make()
        do throws(FileSystemError) {
            let target = try segment.open().rawValue
            try DirectFile.forEachPart(of: source.length) { part, start throws(FileSystemError) in
                try source.read(into: part, at: start)
                try writeFully(target, UnsafeRawBufferPointer(part), at: start)
            }
        } catch {
            Glibc.unlink(segment.path)
            throw error
        }
        segment.length = source.length
        return segment
    }

    /// An unchanging segment: one more name of a file that stays as it is.
    /// - Parameter link: makes the name at the path that it is given.
    func link(length: Int, _ link: (String) -> Bool) throws(FileSystemError) -> Segment {
        let segment = Segment(file: nextFile.add(1, ordering: .relaxed).newValue, length: length, store: self)
        guard link(segment.path) else { throw errno == ENOSPC || errno == EDQUOT ? .noSpace : .io }
        segment.isFrozen = true
        segment.isSuperseded = true
        return segment
    }

    /// Cuts a file off, fills it up with zeros, or makes it of them.
    func setLength(_ length: Int, of file: Int64) throws(FileSystemError) {
        let descriptor = open(path(file), O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .io }
        defer { close(descriptor) }
        guard ftruncate(descriptor, off_t(length)) == 0 else { throw .io }
    }

    private static let writing = DispatchQueue(label: "write back", qos: .utility)

    /// A full segment goes to the disk while the next one is written: then fsync(2) waits for the last ones alone.
    func beginWriting(_ segment: Segment) {
        guard let file = try? segment.open() else { return }
        Self.writing.async { WriteBack.begin(file.rawValue) }
    }

    /// A new segment's bytes and name are on the disk.
    func sync(_ segment: Segment) throws(FileSystemError) {
        guard fdatasync(try segment.open().rawValue) == 0 else { throw .io }
        try syncDirectory()
        (segment.isSynced, segment.isNamed, segment.wasSynced) = (true, true, true)
    }

    /// The folder's own entries are on the disk.
    func syncDirectory() throws(FileSystemError) {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .io }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw .io }
    }
}
