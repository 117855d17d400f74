import Foundation
import Glibc
import Shared

/// A file with several small chunks, `packs/N`: made at once, never changed, removed when none of its chunks is needed. So many small files
/// cost one file, one sync and one open(2) for all of them.
///
/// `BxPk`, the number of chunks (4 bytes, little-endian), for each its packed reference (`Manifest.pack`), the SHA-256 of all that, then the
/// chunks' bytes one after the other.
enum Pack {
    /// The most chunks and bytes of one: it is evicted as a whole.
    static let maximumCount = 512, maximumByteCount = 1 << 20
    private static let magic = Array("BxPk".utf8), fixedByteCount = 8, referenceByteCount = 36, digestByteCount = 32

    struct Member: Sendable { let reference: ChunkReference, offset: Int }

    struct Contents: Sendable {
        let number: UInt64, byteCount: UInt64
        let members: [Member]
        /// nil: not verified by anyone.
        let mark: FileMark?
    }

    /// Chunks that go into one pack together.
    static func groups(_ chunks: [ChunkCache.Sealed]) -> [[ChunkCache.Sealed]] {
        var groups: [[ChunkCache.Sealed]] = [], byteCount = 0
        for chunk in chunks {
            byteCount += chunk.bytes.count
            if groups.isEmpty || groups[groups.count - 1].count == maximumCount || byteCount > maximumByteCount {
                groups.append([])
                byteCount = chunk.bytes.count
            }
            groups[groups.count - 1].append(chunk)
        }
        return groups
    }

    static func path(_ directory: String, _ number: UInt64) -> String { "\(directory)/packs/\(number)" }

    private static func headByteCount(_ count: Int) -> Int { fixedByteCount + count * referenceByteCount + digestByteCount }

    private static func members(_ references: [ChunkReference]) -> [Member] {
        var offset = headByteCount(references.count)
        return references.map { reference in
            defer { offset += Int(reference.length) }
            return Member(reference: reference, offset: offset)
        }
    }

    /// The whole file.
    static func bytes(of chunks: [ChunkCache.Sealed]) -> (bytes: [UInt8], members: [Member]) {
        let references = chunks.map(\.reference)
        var bytes = magic
        withUnsafeBytes(of: UInt32(chunks.count).littleEndian) { bytes += $0 }
        bytes += Manifest.pack(references)
        bytes += SHA256.hash(bytes).bytes
        for chunk in chunks { bytes += chunk.bytes }
        return (bytes, members(references))
    }

    /// What a pack's file holds, as far as it goes: nothing if its head is damaged.
    static func read(_ path: String) -> (members: [Member], mark: FileMark)? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        guard let mark = FileMark(descriptor), let fixed = read(descriptor, fixedByteCount), Array(fixed.prefix(4)) == magic else { return nil }
        let count = fixed[4...].reversed().reduce(0) { $0 << 8 | Int($1) }
        guard (1...maximumCount).contains(count), let head = read(descriptor, headByteCount(count)) else { return nil }
        let body = Array(head.dropLast(digestByteCount))
        guard SHA256.hash(body).bytes.elementsEqual(head.suffix(digestByteCount)),
              let references = try? Manifest.unpack(Array(body.dropFirst(fixedByteCount))) else { return nil }
        return (members(references).filter { $0.offset + Int($0.reference.length) <= Int(mark.size) && !$0.reference.isHole }, mark)
    }

    private static func read(_ descriptor: Int32, _ count: Int) -> [UInt8]? {
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, done in done = max(0, pread(descriptor, buffer.baseAddress, count, 0)) }
        return bytes.count == count ? bytes : nil
    }

    /// The numbers of all packs. Half-written ones of an earlier process are removed.
    static func list(_ directory: String) throws -> [UInt64] {
        try FileManager.default.contentsOfDirectory(atPath: directory + "/packs").compactMap { name in
            if UInt64(name) == nil { unlink("\(directory)/packs/\(name)") }
            return UInt64(name)
        }
    }
}
