import Glibc
import Shared

/// What one write put over the base of a patch, as it lies in a log: a head, and the bytes behind it.
///
/// The log tells itself what it holds, up to the first record that is not whole: so a row that names the log, its base and slot is right for as
/// long as the slot is this patch, and after a power cut no piece that was synced depends on one that was not. Records are never changed.
struct PieceRecord: Equatable {
    /// The file of the patch's base, which belongs to one slot.
    let base: Int64
    /// Of the slot.
    let range: Range<Int>
    let time: Timestamp
    /// Where its bytes begin in the log.
    let position: Int

    var end: Int { position + range.count }

    // MARK: On the disk

    /// Magic (4), start (4), count (4), zero (4), base (8), time (8, nanoseconds), little-endian; then the first 16 bytes of the SHA-256 of all
    /// that and of the bytes.
    static let headByteCount = 48
    private static let digestByteCount = 16, magic: UInt32 = 0x6350_7842     // "BxPc"

    /// Writes it to the log, where `position` says.
    func write(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32) throws(FileSystemError) {
        var record: [UInt8] = []
        record.reserveCapacity(Self.headByteCount + bytes.count)
        func add(_ number: some FixedWidthInteger) { withUnsafeBytes(of: number.littleEndian) { record.append(contentsOf: $0) } }
        add(Self.magic)
        add(UInt32(range.lowerBound))
        add(UInt32(range.count))
        add(UInt32(0))
        add(base)
        add(time.nanoseconds)
        record += record.withUnsafeBytes { Self.digest($0, bytes) }
        record += bytes
        try record.withBytes { record throws(FileSystemError) in try writeFully(descriptor, record, at: position - Self.headByteCount) }
    }

    private static func digest(_ head: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer) -> ArraySlice<UInt8> {
        var hasher = SHA256()
        hasher.update(head)
        hasher.update(bytes)
        return hasher.finish().bytes.prefix(digestByteCount)
    }

    /// The record that begins at a position of a log.
    /// - Parameter buffer: `Patch.maximumWriteBytes` long.
    /// - Returns: nil: none that is whole.
    private static func read(_ descriptor: Int32, at position: Int, _ buffer: UnsafeMutableRawBufferPointer) -> PieceRecord? {
        withUnsafeTemporaryAllocation(byteCount: headByteCount, alignment: 8) { head in
            guard (try? readFully(descriptor, head, at: position)) != nil else { return nil }
            func number<N: FixedWidthInteger>(_ at: Int) -> N { N(littleEndian: head.loadUnaligned(fromByteOffset: at, as: N.self)) }
            let start: UInt32 = number(4), count: UInt32 = number(8)
            guard number(0) == magic, count > 0, count <= buffer.count, start <= SlotTable.stretch else { return nil }
            let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(count)])
            guard (try? readFully(descriptor, bytes, at: position + headByteCount)) != nil else { return nil }
            let digest = digest(UnsafeRawBufferPointer(rebasing: head[..<(headByteCount - digestByteCount)]), UnsafeRawBufferPointer(bytes))
            guard head.suffix(digestByteCount).elementsEqual(digest) else { return nil }
            return PieceRecord(
                base: number(16), range: Int(start)..<Int(start + count), time: Timestamp(nanoseconds: number(24)), position: position + headByteCount)
        }
    }

    /// All whole records of a log, by base, in the order in which they were written; and where the last one ends.
    static func readAll(_ path: String) -> (byBase: [Int64: [PieceRecord]], end: Int) {
        var records: [Int64: [PieceRecord]] = [:], end = 0
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return (records, end) }
        defer { close(descriptor) }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Patch.maximumWriteBytes, alignment: 16)
        defer { buffer.deallocate() }
        while let record = read(descriptor, at: end, buffer) {
            records[record.base, default: []].append(record)
            end = record.end
        }
        return (records, end)
    }
}
