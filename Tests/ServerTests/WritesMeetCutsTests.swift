import Foundation
import Glibc
import Shared
import Synchronization
import Testing
import TestSupport
@testable import BoxFS
@testable import Server

/// A program writes, renames and removes on a thread of its own while commits are cut, sealed and sent: each is one of the trees that it made.
@Suite struct WritesMeetCutsTests {
    /// Makes one call after the other.
    private final class Program: @unchecked Sendable {      // belongs to its thread, but for what has a lock or is atomic
        let system: MountedFileSystem
        /// The trees that the calls make, each noted before.
        let passed = Mutex(PassedTrees())
        private let isOver = Atomic(false)
        private let ended = Mutex<Result<Void, any Error>?>(nil)
        private var random: SeededGenerator
        private var tree: [String: String] = [:]
        private var contents: [String: [UInt8]] = [:]
        private let caller = Caller(uid: 0, gid: 0, pid: 1, umask: 0)
        private(set) var calls = 0

        init(_ system: MountedFileSystem, _ random: SeededGenerator) { (self.system, self.random) = (system, random) }

        private func note(_ change: (inout [String: String]) -> Void) {
            change(&tree)
            calls += 1
            passed.withLock { [tree, calls] in $0.add(tree, calls) }
        }

        private func draw(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) } }
        private func text(_ bytes: [UInt8]) -> String { SimulatedMount.plainText(.regular, nil, bytes) }
        private func name() -> String { "f\(Int.random(in: 0..<4, using: &random))" }

        var isRunning: Bool { ended.withLock { $0 == nil } }

        func start() {
            Thread.detachNewThread { [self] in
                let result = Result { try run() }
                ended.withLock { $0 = result }
            }
        }

        func stop() async throws {
            isOver.store(true, ordering: .relaxed)
            while isRunning { try await Task.sleep(for: .milliseconds(5)) }
            try ended.withLock { $0! }.get()
        }

        private func run() throws {
            while !isOver.load(ordering: .relaxed) {
                switch Int.random(in: 0..<10, using: &random) {
                case 0..<4: try change(name(), truncates: true, draw([0, 10, 3_000, 20_000, 90_000, 300_000].randomElement(using: &random)!), at: 0)
                case 4..<7: try edit(name())
                case 7: try rename(name(), name())
                case 8: try remove(name())
                default: usleep(UInt32.random(in: 0...3_000, using: &random))
                }
            }
        }

        private func edit(_ name: String) throws {
            guard let old = contents[name], old.count < 400_000 else { return }
            try change(name, truncates: false, draw(2_000), at: [0, old.count / 2, old.count].randomElement(using: &random)!)
        }

        private func change(_ name: String, truncates: Bool, _ bytes: [UInt8], at offset: Int) throws {
            let before = truncates ? [] : contents[name]!
            note { $0["/" + name] = text(before) }
            let flags = O_WRONLY | (truncates ? O_TRUNC : 0), handle: HandleID
            if contents[name] == nil {
                let made = try system.create(.root, name, mode: 0o644, flags: flags, caller: caller)
                system.forget(made.0.inode, count: 1)
                handle = made.1.handle
            } else {
                handle = try system.open(inode(name), flags: flags, caller: caller).handle
            }
            defer { system.release(handle) }
            contents[name] = before
            try put(bytes, in: name, handle, at: offset)
            // A second time, before the close.
            if Bool.random(using: &random), let count = contents[name]?.count, count > 0 { try put(draw(500), in: name, handle, at: count / 3) }
            try system.flush(handle)
        }

        private func put(_ bytes: [UInt8], in name: String, _ handle: HandleID, at offset: Int) throws {
            let before = contents[name]!, after = Array(before.prefix(offset) + bytes + before.dropFirst(offset + bytes.count))
            note { $0["/" + name] = text(after) }
            try bytes.withUnsafeBytes { try system.write(handle, offset: Int64(offset), $0) }
            contents[name] = after
        }

        private func inode(_ name: String) throws -> InodeNumber {
            let inode = try system.lookup(.root, name).inode
            system.forget(inode, count: 1)
            return inode
        }

        private func rename(_ name: String, _ target: String) throws {
            guard contents[name] != nil, name != target else { return }
            note { $0["/" + target] = $0.removeValue(forKey: "/" + name) }
            try system.rename(.root, name, .root, target, flags: 0, caller: caller)
            contents[target] = contents.removeValue(forKey: name)
        }

        private func remove(_ name: String) throws {
            guard contents[name] != nil else { return }
            note { $0["/" + name] = nil }
            try system.unlink(.root, name, caller: caller)
            contents[name] = nil
        }
    }

    @Test func eachCommitIsATreeThatWas() async throws {
        let (fixture, mounts, folder) = try await SimulationTests.mounts(["one"])
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let seed = SeededGenerator.seed()
        var random = SeededGenerator(state: seed)
        let mount = mounts[0], program = Program(mount.system, random)
        _ = random.next()
        program.start()
        let end = Date(timeIntervalSinceNow: SimulationTests.seconds)
        var commits = 0
        while Date() < end, program.isRunning {
            guard try await mount.cut() else { continue }
            _ = try await mount.commit()
            let server = try await mount.device.plainTree()
            guard program.passed.withLock({ $0.mayBeSeen(server) }) else {
                Issue.record("BOXFS_SEED=\(seed): the server holds a tree that never was: \(program.passed.withLock { $0.nearest(to: server) })")
                break
            }
            commits += 1
            _ = try await mount.receive()
            if Int.random(in: 0..<3, using: &random) == 0 {
                _ = try await mount.poll()
                _ = try await mount.apply()
            }
        }
        try await program.stop()
        print("writes meet cuts: \(program.calls) calls, \(commits) commits")
        withExtendedLifetime(fixture) {}
    }
}
