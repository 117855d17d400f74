import Glibc
import Shared

/// A zip file (PKWARE APPNOTE 6.3.10) that is written from its beginning to its end, entries stored as they are. All numbers are
/// little-endian.
///
/// For each entry, in order:
///
///     local header   504B0304  version needed (2)  flags (2)  method 0 (2)  time (2)  date (2)  CRC-32 (4)  stored size (4)  size (4)
///                    length of name (2)  length of extra (2)  name  extra
///     bytes          as many as the entry's size
///     descriptor     504B0708  CRC-32 (4)  stored size  size          not for directories; sizes have 8 bytes if the entry is large, else 4
///
/// then the central directory, for each entry:
///
///     504B0102  made by 0x031E (Unix, 3.0) (2)  version needed (2)  flags (2)  method 0 (2)  time (2)  date (2)  CRC-32 (4)
///     stored size (4)  size (4)  length of name (2)  length of extra (2)  length of comment 0 (2)  disk 0 (2)  internal attributes 0 (2)
///     external attributes: st_mode << 16, and 0x10 for directories (4)  offset of the local header (4)  name  extra
///
/// and its end, first the two records in brackets if a number below does not fit:
///
///     [504B0606  44 (8)  made by (2)  version needed 45 (2)  disk 0 (4)  disk 0 (4)  entries (8)  entries (8)  bytes (8)  offset (8)]
///     [504B0607  disk 0 (4)  offset of the record before (8)  disks 1 (4)]
///     504B0506  disk 0 (2)  disk 0 (2)  entries (2)  entries (2)  bytes of the central directory (4)  its offset (4)  length of comment 0 (2)
///
/// Flags: bit 11 (names are UTF-8); bit 3 for all but directories (CRC-32 and sizes, zero in the local header, stand in the descriptor).
/// An entry is large from 2^32 - 1 bytes on: its header says version 45, its sizes are FFFFFFFF there, and an extra field 0001 (zip64)
/// holds size (8) and stored size (8), zero in the local header. In the central directory that field holds also an offset (8) that is
/// FFFFFFFF in its place. Extra field 5455: flags 1 (1), modification time, seconds since 1970 (4). Time and date: MS-DOS's, in UTC.
struct ZipArchive: Sendable {
    struct Entry: Sendable {
        /// A directory's ends with a slash.
        var path: String
        /// `st_mode`.
        var mode: UInt32
        var modified: Timestamp
        var byteCount: UInt64
        var isDirectory: Bool { path.hasSuffix("/") }
        fileprivate var isLarge: Bool { byteCount >= 0xFFFF_FFFF }
    }

    /// Bytes written so far.
    private(set) var byteCount: UInt64 = 0
    private var directory: [UInt8] = []
    private var count: UInt64 = 0
    private var current: (entry: Entry, offset: UInt64, left: UInt64, crc: CRC32)?

    /// Begins an entry. - Returns: its local header.
    mutating func begin(_ entry: Entry) -> [UInt8] {
        precondition(current == nil && (!entry.isDirectory || entry.byteCount == 0))
        current = (entry, byteCount, entry.byteCount, CRC32())
        var bytes = Bytes()
        bytes.append4(0x0403_4B50)
        bytes.appendShared(entry, crc: 0, isKnown: false)
        let extra = Self.extra(entry, sizes: entry.isLarge ? [0, 0] : [])
        bytes.append2(UInt16(entry.path.utf8.count), UInt16(extra.count))
        bytes.array += Array(entry.path.utf8) + extra
        byteCount += UInt64(bytes.array.count)
        return bytes.array
    }

    /// Counts bytes that the caller writes after the local header.
    mutating func add(_ bytes: UnsafeRawBufferPointer) {
        current!.crc.update(bytes)
        skip(UInt64(bytes.count))
    }

    /// Counts bytes without looking at them: for the length alone.
    mutating func skip(_ count: UInt64) {
        precondition(current!.left >= count, "an entry has more bytes than it said")
        current!.left -= count
        byteCount += count
    }

    /// Ends the entry. - Returns: its descriptor.
    mutating func end() -> [UInt8] {
        guard let (entry, offset, left, crc) = current else { preconditionFailure("no entry was begun") }
        precondition(left == 0, "an entry has fewer bytes than it said")
        current = nil
        count += 1
        record(entry, offset, crc.value)
        guard !entry.isDirectory else { return [] }
        var bytes = Bytes()
        bytes.append4(0x0807_4B50, crc.value)
        if entry.isLarge { bytes.append8(entry.byteCount, entry.byteCount) } else { bytes.append4(UInt32(entry.byteCount), UInt32(entry.byteCount)) }
        byteCount += UInt64(bytes.array.count)
        return bytes.array
    }

    private mutating func record(_ entry: Entry, _ offset: UInt64, _ crc: UInt32) {
        var bytes = Bytes()
        bytes.append4(0x0201_4B50)
        bytes.append2(0x031E)
        bytes.appendShared(entry, crc: crc, isKnown: true)
        let isFar = offset >= 0xFFFF_FFFF
        let extra = Self.extra(entry, sizes: (entry.isLarge ? [entry.byteCount, entry.byteCount] : []) + (isFar ? [offset] : []))
        bytes.append2(UInt16(entry.path.utf8.count), UInt16(extra.count), 0, 0, 0)
        bytes.append4(entry.mode << 16 | (entry.isDirectory ? 0x10 : 0), isFar ? 0xFFFF_FFFF : UInt32(offset))
        directory += bytes.array + Array(entry.path.utf8) + extra
    }

    /// - Returns: the central directory and its end.
    mutating func finish() -> [UInt8] {
        precondition(current == nil)
        let start = byteCount, size = UInt64(directory.count)
        var bytes = Bytes(array: directory)
        if count >= 0xFFFF || start >= 0xFFFF_FFFF || size >= 0xFFFF_FFFF {
            bytes.append4(0x0606_4B50)
            bytes.append8(44)
            bytes.append2(0x031E, 45)
            bytes.append4(0, 0)
            bytes.append8(count, count, size, start)
            bytes.append4(0x0706_4B50, 0)
            bytes.append8(start + size)
            bytes.append4(1)
        }
        bytes.append4(0x0605_4B50)
        bytes.append2(0, 0, UInt16(clamping: count), UInt16(clamping: count))
        bytes.append4(UInt32(clamping: size), UInt32(clamping: start))
        bytes.append2(0)
        byteCount += UInt64(bytes.array.count)
        return bytes.array
    }

    /// How long the zip file with these entries will be.
    static func byteCount(of entries: [Entry]) -> UInt64 {
        var archive = ZipArchive()
        for entry in entries {
            _ = archive.begin(entry)
            archive.skip(entry.byteCount)
            _ = archive.end()
        }
        _ = archive.finish()
        return archive.byteCount
    }

    private static func extra(_ entry: Entry, sizes: [UInt64]) -> [UInt8] {
        var bytes = Bytes()
        if !sizes.isEmpty {
            bytes.append2(0x0001, UInt16(sizes.count * 8))
            for size in sizes { bytes.append8(size) }
        }
        bytes.append2(0x5455, 5)
        bytes.array.append(1)
        bytes.append4(UInt32(bitPattern: Int32(clamping: entry.modified.timespec.tv_sec)))
        return bytes.array
    }
}

/// Little-endian numbers, one after the other.
private struct Bytes {
    var array: [UInt8] = []

    mutating func append2(_ numbers: UInt16...) { for number in numbers { append(UInt64(number), 2) } }
    mutating func append4(_ numbers: UInt32...) { for number in numbers { append(UInt64(number), 4) } }
    mutating func append8(_ numbers: UInt64...) { for number in numbers { append(number, 8) } }

    private mutating func append(_ number: UInt64, _ count: UInt64) {
        for index in 0..<count { array.append(UInt8(truncatingIfNeeded: number >> (8 * index))) }
    }

    /// From "version needed" to "size": the part that both headers have.
    mutating func appendShared(_ entry: ZipArchive.Entry, crc: UInt32, isKnown: Bool) {
        let (time, date) = Self.dos(entry.modified)
        append2(entry.isLarge ? 45 : 20, entry.isDirectory ? 0x0800 : 0x0808, 0, time, date)
        let size: UInt32 = entry.isLarge ? 0xFFFF_FFFF : isKnown ? UInt32(entry.byteCount) : 0
        append4(crc, size, size)
    }

    /// MS-DOS's time (2 s steps) and date, which begins in 1980 and ends in 2107.
    private static func dos(_ time: Timestamp) -> (UInt16, UInt16) {
        var seconds = time.timespec.tv_sec
        var parts = tm()
        gmtime_r(&seconds, &parts)
        guard parts.tm_year >= 80 else { return (0, 1 << 5 | 1) }
        let year = min(Int(parts.tm_year) - 80, 127)
        return (
            UInt16(parts.tm_hour << 11 | parts.tm_min << 5 | min(parts.tm_sec, 59) / 2),
            UInt16(year << 9 | Int(parts.tm_mon + 1) << 5 | Int(parts.tm_mday)))
    }
}
