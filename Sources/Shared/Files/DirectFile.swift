import CLinux
import Glibc
import Synchronization

/// Writes a file from its start past the kernel's page cache (open(2), O_DIRECT).
///
/// For long data that nobody reads soon: it costs no memory and no copying, and the file's fdatasync finds nothing left to write. Where
/// the file system has no such writes, and for a last part that is no multiple of a block, it writes as usual.
public struct DirectFile: ~Copyable {
    /// What one part has at most, bytes; less than this is not worth it.
    public static let partByteCount = 1 << 20
    /// What offsets, lengths and addresses are multiples of: no disk has longer blocks than a page.
    fileprivate static let alignment = 4096

    private let descriptor: Int32
    private var offset: off_t = 0
    private var isDirect: Bool

    /// - Parameters:
    ///   - descriptor: of an empty file; it stays the caller's.
    ///   - isDirect: false: writes as usual.
    public init(_ descriptor: Int32, isDirect: Bool = true) {
        self.descriptor = descriptor
        self.isDirect = isDirect && linux_set_direct(descriptor, 1) == 0
    }

    /// Appends a part that lies in `PartBuffer` memory; after one that is no multiple of 4096 bytes no other follows.
    /// - Returns: false, with errno, if not all could be written.
    public mutating func append(_ part: UnsafeRawBufferPointer) -> Bool {
        var done = 0
        while done < part.count {
            let whole = (part.count - done) / Self.alignment * Self.alignment
            if isDirect, whole == 0 { end() }
            let written = pwrite(descriptor, part.baseAddress! + done, isDirect ? whole : part.count - done, offset)
            if written < 0, errno == EINTR { continue }
            if written < 0, errno == EINVAL, isDirect {
                end()
                continue
            }
            guard written > 0 else { return false }
            done += written
            offset += off_t(written)
            if !written.isMultiple(of: Self.alignment) { end() }
        }
        return true
    }

    private mutating func end() {
        _ = linux_set_direct(descriptor, 0)
        isDirect = false
    }

    /// Calls `body` with a part of aligned memory for each `partByteCount` bytes of `count`, and where it starts; the last has fewer.
    public static func forEachPart<Failure: Error>(
        of count: Int, _ body: (_ part: UnsafeMutableRawBufferPointer, _ start: Int) throws(Failure) -> Void
    ) throws(Failure) {
        let memory = PartMemory.lend()
        defer { memory.giveBack() }
        for start in stride(from: 0, to: count, by: partByteCount) {
            try body(UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<min(partByteCount, count - start)]), start)
        }
    }

    /// Calls `body` with aligned memory for `count` bytes, in parts of `partByteCount`; the last has fewer.
    public static func withParts<Result, Failure: Error>(
        of count: Int, _ body: (_ parts: [UnsafeMutableRawBufferPointer]) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let starts = stride(from: 0, to: count, by: partByteCount), memory = starts.map { _ in PartMemory.lend() }
        defer { for part in memory { part.giveBack() } }
        return try body(zip(starts, memory).map { UnsafeMutableRawBufferPointer(rebasing: $1.bytes[..<min(partByteCount, count - $0)]) })
    }
}

/// Aligned memory of `DirectFile.partByteCount` bytes. A few are kept for the next who ask: fresh memory is dear.
private final class PartMemory: @unchecked Sendable {       // one borrower's at a time
    private static let kept = Mutex<[PartMemory]>([])

    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: DirectFile.partByteCount, alignment: DirectFile.alignment)
    deinit { bytes.deallocate() }

    static func lend() -> PartMemory { kept.withLock { $0.popLast() } ?? PartMemory() }
    func giveBack() { Self.kept.withLock { if $0.count < 16 { $0.append(self) } } }
}

/// A part's memory, lent as long as this lives.
public struct PartBuffer: ~Copyable, Sendable {
    private let memory = PartMemory.lend()

    public init() {}

    public var bytes: UnsafeMutableRawBufferPointer { memory.bytes }

    deinit { memory.giveBack() }
}
