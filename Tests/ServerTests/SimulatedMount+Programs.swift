import ChunkCache
import Foundation
import Glibc
import GRDB
import Shared
import Testing
import TestSupport
@testable import BoxFS
@testable import Server

/// A file that a program has open for writing, and whether it wrote all of what it has to say.
struct HeldFile { let handle: HandleID, inode: InodeNumber, path: String, bytes: [UInt8]; var isWritten = false }

/// All contents that programs gave to a file, at any mount.
final class WrittenContents { var hashes: Set<ChunkHash> = [] }

private let caller = Caller(uid: 0, gid: 0, pid: 1, umask: 0)

// What programs do.
extension SimulatedMount {
    /// Runs a program's step. A chunk that is not here is brought, and the step begun again; what fails as a system call may is none of the
    /// test's business.
    func attempt(_ body: () throws -> Void) async throws {
        defer { tree.lock.withLock { tree.trim() } }
        while true {
            do { return try body() } catch FileSystemError.missing(.chunk(let hash, let length, _)) {
                guard try await bring(ChunkReference(hash: hash, length: length)) else { return }
            } catch let error as FileSystemError where error != .io && error != .stale { return }
        }
    }

    private func bring(_ chunk: ChunkReference) async throws -> Bool {
        for namespace in namespaces {
            guard let location = try? await device.drive.chunkLocations(device.session, namespace.id, [chunk.hash])[chunk.hash] else { continue }
            let bytes = Array(try await device.drive.chunks.read(location).readableBytesView)
            return try bytes.withUnsafeBytes { try tree.cache.insert(chunk, $0) }
        }
        return false
    }

    static func brief(_ bytes: [UInt8]) -> String { "\(bytes.prefix(8)) of \(bytes.count)" }

    /// What a file holds, read as programs read.
    private func content(of inode: InodeNumber) throws -> [UInt8] {
        let handle = try system.open(inode, flags: O_RDONLY, caller: caller).handle
        defer { system.release(handle) }
        func read(_ most: Int) throws -> [UInt8] { try system.readBytes(system.read(handle, offset: 0, count: most), count: most) }
        var bytes = try read(1 << 16)
        if bytes.count == 1 << 16 { bytes = try read(4 << 20) }
        if !bytes.isEmpty, !written.hashes.contains(SHA256.hash(bytes)) { inventions.append("\(name) read \(Self.brief(bytes)), which nobody wrote") }
        return bytes
    }

    private func find(_ path: String) throws -> (parent: InodeNumber, name: String, inode: InodeNumber?) {
        var parent = InodeNumber.root
        var parts = path.split(separator: "/").map(String.init)
        let name = parts.removeLast()
        for part in parts { parent = try lookup(parent, part) }
        do { return (parent, name, try lookup(parent, name)) } catch FileSystemError.notFound { return (parent, name, nil) }
    }

    private func lookup(_ parent: InodeNumber, _ name: String) throws -> InodeNumber {
        let inode = try system.lookup(parent, name).inode
        system.forget(inode, count: 1)
        return inode
    }

    func write(_ path: String, creates: Bool, _ bytes: [UInt8]) throws {
        guard var file = try open(path, creates: creates, bytes) else { return }
        try write(&file)
        try close(file)
    }

    /// Opens a file and empties it, or makes it.
    private func open(_ path: String, creates: Bool, _ bytes: [UInt8]) throws -> HeldFile? {
        let place = try find(path)
        if let known = place.inode {
            let handle = try system.open(known, flags: O_WRONLY | O_TRUNC, caller: caller).handle
            contents[known] = []
            owed[known] = nil
            return HeldFile(handle: handle, inode: known, path: path, bytes: bytes)
        }
        guard creates else { return nil }
        let made = try system.create(place.parent, place.name, mode: 0o644, flags: O_WRONLY, caller: caller)
        system.forget(made.0.inode, count: 1)
        return HeldFile(handle: made.1.handle, inode: made.0.inode, path: path, bytes: bytes)
    }

    private func write(_ file: inout HeldFile) throws {
        try write(file.bytes, to: file)
        file.isWritten = true
    }

    private func write(_ bytes: [UInt8], to file: HeldFile, offset: Int = 0) throws {
        let old = try content(of: file.inode)
        note(old.prefix(offset) + bytes + old.dropFirst(offset + bytes.count), in: file.inode)
        try bytes.withUnsafeBytes { try system.write(file.handle, offset: Int64(offset), $0) }
    }

    /// A program is about to make this of a file.
    private func note(_ content: some Sequence<UInt8>, in inode: InodeNumber) {
        let content = Array(content)
        written.hashes.insert(SHA256.hash(content))
        contents[inode] = content
        owed[inode] = nil
    }

    private func close(_ file: HeldFile) throws {
        defer { system.release(file.handle) }
        try system.flush(file.handle)
        try owe(file.inode, file.path)
    }

    private func owe(_ inode: InodeNumber, _ path: String) throws {
        guard let bytes = contents[inode], !bytes.isEmpty, try !unlinked.contains(inode) || hasName(inode) else { return }
        owed[inode] = (SHA256.hash(bytes), "\(Self.brief(bytes)), \(path) of \(name), inode \(inode.rawValue)")
    }

    /// A program opens a file, and writes the first bytes or none of what it has to say.
    func hold(_ path: String, _ bytes: [UInt8], first: Int) throws {
        guard let file = try open(path, creates: true, bytes) else { return }
        held.append(file)
        if first > 0 { try write(Array(bytes.prefix(first)), to: file) }
    }

    /// A program opens a file and leaves it as it is for now.
    func hold(asItIs path: String, _ bytes: [UInt8]) throws {
        let inode = try #require(try find(path).inode)
        held.append(HeldFile(handle: try system.open(inode, flags: O_WRONLY, caller: caller).handle, inode: inode, path: path, bytes: bytes))
    }

    /// It writes all of it, and goes on holding the file.
    func writeHeld(_ random: inout SeededGenerator) throws {
        guard let index = held.indices.randomElement(using: &random) else { return }
        do { try write(&held[index]) } catch FileSystemError.stale {}    // of a shared folder that was left
    }

    /// It closes the file, with all of it written.
    func letGo(_ random: inout SeededGenerator) throws {
        guard let index = held.indices.randomElement(using: &random) else { return }
        do {
            if !held[index].isWritten { try write(&held[index]) }
            try close(held.remove(at: index))
        } catch FileSystemError.stale {}    // of a shared folder that was left
    }

    /// The programs end. What they have not written by then they never will: the right to it is gone, or to what it builds on.
    func letGoOfAll(_ random: inout SeededGenerator) async throws {
        for _ in held.indices { try await attempt { try letGo(&random) } }
        for file in held { system.release(file.handle) }
        held = []
    }

    /// Makes a file that is long enough to be cut where it is edited in place.
    func writeVast(_ path: String, again: Bool, _ random: SeededGenerator) throws {
        guard try again || find(path).inode == nil else { return }
        var random = random
        try write(path, creates: true, random.bytes(1_300_000))
    }

    /// Adds to a file, and closes it.
    func append(_ path: String, _ bytes: [UInt8]) throws { try edit(path, bytes, at: 1) }

    /// Overwrites a part of a file or adds to it, and closes it.
    /// - Parameter place: 0 is its beginning, 1 its end.
    func edit(_ path: String, _ bytes: [UInt8], at place: Double, limit: Int = 40_000) throws {
        guard let inode = try find(path).inode else { return }
        let count = try content(of: inode).count, length = Int(Double(count) * place)
        guard count < limit else { return }
        let file = HeldFile(handle: try system.open(inode, flags: O_WRONLY, caller: caller).handle, inode: inode, path: path, bytes: bytes)
        try write(bytes, to: file, offset: length)
        try close(file)
    }

    /// truncate(2): shorter, longer, or as it was. Nobody closes the file, so nothing is promised yet.
    func cut(_ path: String, to length: Int) throws {
        guard let inode = try find(path).inode else { return }
        let old = try content(of: inode)
        note(old.prefix(length) + [UInt8](repeating: 0, count: max(0, length - old.count)), in: inode)
        _ = try system.setattr(inode, AttributeChanges(size: UInt64(length)), handle: nil, caller: caller)
    }

    /// cp(1), by copy_file_range(2): what is sealed is shared.
    func copy(_ path: String, to target: String, closes: Bool) throws {
        guard let source = try find(path).inode, try find(target).inode != source else { return }
        let bytes = try content(of: source)
        guard !bytes.isEmpty, let file = try open(target, creates: true, bytes) else { return }
        let from = try system.open(source, flags: O_RDONLY, caller: caller).handle
        defer { system.release(from) }
        note(bytes, in: file.inode)
        #expect(try system.copyFileRange(from, sourceOffset: 0, file.handle, targetOffset: 0, count: bytes.count) == bytes.count)
        if closes { try close(file) } else { held.append(HeldFile(handle: file.handle, inode: file.inode, path: target, bytes: bytes, isWritten: true)) }
    }

    func symlink(_ path: String, _ target: String) throws {
        let place = try find(path)
        system.forget(try system.symlink(place.parent, place.name, target: target, caller: caller).inode, count: 1)
    }

    /// - Parameter value: nil removes it.
    func setAttribute(_ path: String, _ attribute: String, _ value: [UInt8]?) throws {
        guard let inode = try find(path).inode else { return }
        if let value { try system.setxattr(inode, attribute, value, flags: 0) } else { try system.removexattr(inode, attribute) }
    }

    func save(_ path: String, _ bytes: [UInt8]) throws {
        count += 1
        try write(".save-\(name)-\(count)", creates: true, bytes)
        try rename(".save-\(name)-\(count)", path)
    }

    func remove(_ path: String) throws {
        let place = try find(path)
        do { try system.unlink(place.parent, place.name, caller: caller) } catch FileSystemError.isDirectory {
            return try system.rmdir(place.parent, place.name, caller: caller)
        }
        try forgive(place.inode)
    }

    func rename(_ path: String, _ target: String, flags: UInt32 = 0) throws {
        let from = try find(path), to = try find(target)
        try system.rename(from.parent, from.name, to.parent, to.name, flags: flags, caller: caller)
        if flags == 0, to.inode != from.inode { try forgive(to.inode) }
    }

    func link(_ path: String, _ target: String) throws {
        guard let inode = try find(path).inode else { return }
        let to = try find(target)
        _ = try system.link(inode, to.parent, to.name)
        system.forget(inode, count: 1)
    }

    func mkdir(_ path: String) throws {
        let place = try find(path)
        system.forget(try system.mkdir(place.parent, place.name, mode: 0o755, caller: caller).inode, count: 1)
    }

    func chmod(_ path: String, _ mode: UInt32) throws {
        if let inode = try find(path).inode { _ = try system.setattr(inode, AttributeChanges(mode: mode), handle: nil, caller: caller) }
    }

    /// The last name of what this mount wrote is gone, by this mount.
    private func forgive(_ inode: InodeNumber?) throws {
        guard let inode, try !hasName(inode) else { return }
        owed[inode] = nil
        contents[inode] = nil
        unlinked.insert(inode)
    }

    private func hasName(_ inode: InodeNumber) throws -> Bool {
        try tree.database.read { try Int64.fetchOne($0, sql: "SELECT 1 FROM entries WHERE inode = ?", arguments: [Int64(inode.rawValue)]) } != nil
    }
}
