import Glibc
import Shared
import Synchronization

/// Written data of one slot of a file: few bytes in memory and in the row, more in a file of its own, or as a patch. The file's
/// `FileContent.lock` guards all fields.
final class Segment: @unchecked Sendable {
    /// A patch's is its log's; 0: there is none.
    let file: Int64
    /// The bytes of a segment that has no file: `length` of them.
    private(set) var held: [UInt8]?
    /// Another number for each state of `held`; 0: as in the row that it was loaded from.
    private(set) var revision = 0
    /// What lies in the row at most, bytes: making a file for it would take longer than to write it there.
    static let maximumHeldBytes = 16 << 10
    /// Bytes from the slot's start that count; what follows up to the slot's end is zeros.
    var length: Int
    /// Its bytes stay as they are: the next write goes to a copy or a patch.
    var isFrozen = false
    /// A commit under way has it: whatever becomes of the slot, `FileContent.install` or `takeBack` lets go of it.
    var isTaken = false
    /// A power cut would not lose its bytes, its name.
    var isSynced = false, isNamed = false
    /// Some of its bytes may have been promised to survive one.
    var wasSynced = false
    /// Bytes asked from the cache's room.
    var reserved = 0
    /// nil: it was made from nothing, or differs too much.
    var changes: SegmentChanges?
    var patch: Patch?
    /// The patches for which this is the base or the log, and whether nothing else needs it.
    var patches = 0, isSuperseded = false
    /// The stretches that become a chunk each when a frozen segment is sealed.
    var parts: [Range<Int>] = []
    /// Another number each time bytes of its file may change; and the hash of a full one as it is (`FileContent.beginHashing`).
    private(set) var fileChanges = 0
    var fullHash: ChunkHash?
    /// The chunk that a frozen segment became, if it was one.
    var sealed: ChunkReference?
    /// What the slot had before, for as long as a power cut may take what was written instead: then it has that again.
    var origin: ChunkReference?
    /// Had an origin when a commit took it: its chunk has to be on the disk before the rows forget the origin.
    var replacesSynced = false
    let store: SegmentStore
    /// Has a lock of its own: what is frozen is read without the file's.
    private let descriptor: Mutex<OpenDescriptor?>

    init(file: Int64, length: Int, store: SegmentStore, descriptor: OpenDescriptor? = nil) {
        self.file = file
        self.length = length
        self.store = store
        self.descriptor = Mutex(descriptor)
    }

    /// A patched segment.
    init(_ patch: Patch, length: Int) {
        (file, store) = (patch.log.file, patch.log.store)
        descriptor = Mutex(nil)
        self.length = length
        self.patch = patch
        patch.base.patches += 1
        patch.log.patches += 1
    }

    /// A segment without a file.
    /// - Parameter revision: nil: no row holds these bytes.
    init(holding bytes: [UInt8], store: SegmentStore, revision: Int? = nil) {
        (file, self.store) = (0, store)
        descriptor = Mutex(nil)
        (held, length) = (bytes, bytes.count)
        self.revision = revision ?? store.makeRevision()
    }

    static func fileName(_ file: Int64) -> String { String(file) }
    var path: String { store.path(file) }

    /// The open file. Kept open until `close`.
    func open() throws(FileSystemError) -> OpenDescriptor {
        guard held == nil else { throw .io }
        return try descriptor.withLock { held throws(FileSystemError) in
            if let held { return held }
            let opened = try Self.open(path, O_RDWR)
            held = opened
            return opened
        }
    }

    func close() {
        for file in [self, patch?.base, patch?.log] { file?.descriptor.withLock { $0 = nil } }
    }

    /// Puts bytes of the slot into the file. Nothing counts before `wrote`, unless it was overwritten where it lay.
    /// - Returns: the record of a patch.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int, _ time: Timestamp) throws(FileSystemError) -> PieceRecord? {
        guard let patch else {
            guard held == nil else {
                hold(bytes, at: offset)
                return nil
            }
            fileWillChange()
            try writeFully(open().rawValue, bytes, at: offset)
            return nil
        }
        let record = PieceRecord(
            base: patch.base.file, range: offset..<offset + bytes.count, time: time, position: patch.log.length + PieceRecord.headByteCount)
        try record.write(bytes, to: patch.log.open().rawValue)
        patch.log.length = record.end
        return record
    }

    private func fileWillChange() {
        fileChanges += 1
        fullHash = nil
    }

    private func hold(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        let end = offset + bytes.count
        if held!.count < end { held! += repeatElement(0, count: end - held!.count) }
        held!.withUnsafeMutableBytes { UnsafeMutableRawBufferPointer(rebasing: $0[offset..<end]).copyMemory(from: bytes) }
        revision = store.makeRevision()
    }

    /// Cuts off what lies behind `length` bytes.
    func cut(to length: Int) throws(FileSystemError) {
        if held != nil {
            held!.removeLast(max(0, held!.count - length))
            revision = store.makeRevision()
        } else {
            fileWillChange()
            guard ftruncate(try open().rawValue, off_t(length)) == 0 else { throw .io }
        }
        self.length = min(self.length, length)
        changes = nil
        isSynced = false
    }

    /// - Parameter record: what `write` returned.
    func wrote(_ range: Range<Int>, _ record: PieceRecord?) {
        length = max(length, range.upperBound)
        if changes?.add(range) == false { changes = nil }
        if let record { patch?.put(record) }
        isSynced = false
    }

    /// What `write` has put there since is not to show up: beyond `length` when the file grows, or when the log is read again.
    /// - Parameter record: what it returned, as the last of its log or before others that are taken back, too.
    func takeBack(_ record: PieceRecord?) throws(FileSystemError) {
        guard let patch else {
            if held != nil { return held!.removeLast(max(0, held!.count - length)) }
            fileWillChange()
            return _ = ftruncate(try open().rawValue, off_t(length))
        }
        if let record { patch.log.length = min(patch.log.length, record.position - PieceRecord.headByteCount) }
        ftruncate(try patch.log.open().rawValue, off_t(patch.log.length))
    }

    /// Fills `buffer` with the slot's bytes from `offset` on; what lies behind `length` is zeros.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(FileSystemError) {
        if let bytes = self.held {
            let part = bytes[min(offset, length)..<min(offset + buffer.count, length)]
            part.withUnsafeBytes { buffer.copyMemory(from: $0) }
            for index in part.count..<buffer.count { buffer[index] = 0 }
            return
        }
        let beneath = patch?.base ?? self
        let held = max(0, min(buffer.count, beneath.length - offset))
        try readFully(beneath.open().rawValue, .init(rebasing: buffer[..<held]), at: offset)
        for index in held..<buffer.count { buffer[index] = 0 }
        guard let patch else { return }
        let range = offset..<offset + buffer.count
        for piece in patch.pieces(in: range) {
            let part = piece.range.clamped(to: range)
            try readFully(
                patch.log.open().rawValue, .init(rebasing: buffer[part.lowerBound - offset..<part.upperBound - offset]),
                at: piece.position + part.lowerBound - piece.start)
        }
    }

    func bytes(_ range: Range<Int>) throws(FileSystemError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: range.count)
        try bytes.withMutableBytes { bytes throws(FileSystemError) in try read(into: bytes, at: range.lowerBound) }
        return bytes
    }

    /// What a server that has the base's chunk needs of it.
    var differences: SegmentChanges? {
        guard let patch else { return changes }
        guard let base = patch.base.sealed else { return nil }
        var changes = SegmentChanges(base: base)
        return patch.pieces.allSatisfy({ changes.add($0.range) }) ? changes : nil
    }

    static func open(_ path: String, _ flags: Int32) throws(FileSystemError) -> OpenDescriptor {
        let descriptor = Glibc.open(path, flags | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw errno == ENOSPC || errno == EDQUOT ? .noSpace : .io }
        return OpenDescriptor(owning: descriptor)
    }
}

/// Copies within the local disk. (Swift's Glibc module does not show copy_file_range(2).)
func copyBytes(from source: Int32, at sourceOffset: Int, to target: Int32, at targetOffset: Int, count: Int) throws(FileSystemError) {
    try DirectFile.forEachPart(of: count) { part, start throws(FileSystemError) in
        try readFully(source, part, at: sourceOffset + start)
        try writeFully(target, UnsafeRawBufferPointer(part), at: targetOffset + start)
    }
}

func readFully(_ descriptor: Int32, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(FileSystemError) {
    guard readAll(descriptor, buffer, at: offset) else { throw .io }
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
