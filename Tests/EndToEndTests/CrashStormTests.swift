import Foundation
import Glibc
import Testing
import TestSupport

/// One mount under a random load, while either side is killed and stopped and the network fails: nothing that was closed is lost, the server
/// only ever holds trees that the mount had, and no call hangs. BOXFS_SEED repeats the draws, BOXFS_STORM_SECONDS says how long.
@Suite(.serialized) struct CrashStormTests {
    private static let deadlineSeconds = 3.0

    /// The trees that the mount went through, one for each system call. A state is noted before its call is made.
    private final class Passed: @unchecked Sendable {      // guarded by `lock`
        private let lock = NSLock()
        /// Every state's place in the row, by its text; places only grow.
        private var places: [TreeText: [Int]] = [[:]: [0]]
        /// The states since the last close that returned, that one first: a crash leaves one of them.
        private(set) var open: [TreeText] = [[:]]
        private var next = 1
        private var seen = 0
        private var isComingBack = false
        /// The last states, also those that a crash took back: for people.
        private var history: [(place: Int, tree: TreeText, isLost: Bool)] = []
        /// Which of them a crash left.
        private var left: [Int] = []

        /// The mount begins again, and may send what a crash left before it is known here.
        func comesBack() { lock.withLock { isComingBack = true } }

        func add(_ tree: TreeText) {
            lock.withLock {
                note(tree)
                open.append(tree)
            }
        }

        private func note(_ tree: TreeText) {
            places[tree, default: []].append(next)
            history.append((next, tree, false))
            if history.count > 2_000 { history.removeFirst(1_000) }
            next += 1
        }

        /// A close returned: from here on, this state survives.
        func closed() { lock.withLock { open = [open.last!] } }

        /// The mount died and came back with this tree.
        /// - Parameter inFlight: the file that a call was changing, if it holds what that may have left.
        /// - Returns: whether that is one of the states that may be there.
        func survived(_ tree: TreeText, inFlight: String?) -> Bool {
            lock.withLock {
                var found: Int?
                for (offset, state) in open.enumerated().reversed() where found == nil {
                    var expected = state
                    // Bytes written to a file that is not closed may outlive the calls before them.
                    if let inFlight, expected[inFlight] != nil { expected[inFlight] = tree[inFlight] }
                    if expected == tree { found = offset }
                }
                guard let found else { return false }
                // What came after it was in no commit: the server may not have it.
                let last = next - open.count + found
                for state in open[(found + 1)...] {
                    places[state]?.removeAll { $0 > last }
                    if places[state]?.isEmpty ?? false { places[state] = nil }
                }
                for index in history.indices where history[index].place > last { history[index].isLost = true }
                left.append(next)
                note(tree)
                open = [tree]
                isComingBack = false
                return true
            }
        }

        /// Whether the server may hold this tree: one that was passed, and not before the one it held last. Waits until it is known what a crash left.
        func mayBeSeen(_ tree: TreeText) -> Bool {
            for _ in 0..<2_000 {
                let (place, mayCome) = lock.withLock {
                    let place = places[tree]?.first { $0 >= seen }
                    seen = place ?? seen
                    return (place, isComingBack)
                }
                if place != nil { return true }
                guard mayCome else { return false }
                usleep(10_000)
            }
            return false
        }

        /// For people: the state that a tree is nearest to.
        func nearest(to tree: TreeText) -> String {
            lock.withLock {
                func distance(_ other: TreeText) -> Int { Set(tree.keys).union(other.keys).count { tree[$0] != other[$0] } }
                guard let nearest = history.reversed().min(by: { distance($0.tree) < distance($1.tree) }) else { return "there was none" }
                let names = Set(tree.keys).union(nearest.tree.keys).filter { tree[$0] != nearest.tree[$0] }
                let stood = names.sorted().map { name in
                    let places = history.filter { $0.tree[name] == tree[name] }.map { $0.isLost ? "(\($0.place))" : "\($0.place)" }
                    return "\(name) was so in \(places.isEmpty ? "none" : places.suffix(20).joined(separator: " "))"
                }
                return """
                    \(Storm.difference(tree, nearest.tree)) from state \(nearest.place)\(nearest.isLost ? ", which a crash took back" : ""); \(stood.joined(separator: ", ")); \
                    state \(seen) was seen before, \(next - 1) is the last; crashes left \(left.suffix(10))
                    """
            }
        }
    }

    /// The load: one call after the other, each told to `Passed` before it is made.
    private final class Writer: @unchecked Sendable {      // belongs to the test's thread
        let mount: Mount
        let passed = Passed()
        let problems: Problems
        var random: SeededGenerator
        var tree: TreeText = [:]
        var contents: [String: [UInt8]] = [:]
        /// The file that is being changed, with its contents before and after.
        var inFlight: (file: String, old: [UInt8], new: [UInt8])?
        var calls = 0, crashes = 0

        init(_ mount: Mount, _ problems: Problems, _ random: SeededGenerator) { (self.mount, self.problems, self.random) = (mount, problems, random) }

        private func call(_ what: String, _ change: (inout TreeText) -> Void, _ make: () -> Bool) throws {
            change(&tree)
            passed.add(tree)
            calls += 1
            let isDone = problems.within(CrashStormTests.deadlineSeconds, what, make)
            if !isDone { throw Failed(what: what, error: errno) }
        }

        struct Failed: Error { let what: String, error: Int32 }

        private func name() -> String { ["", "a/", "b/", "a/c/"].randomElement(using: &random)! + "f\(Int.random(in: 0..<8, using: &random))" }
        private func files() -> [String] { contents.keys.sorted() }

        func step() throws {
            switch Int.random(in: 0..<12, using: &random) {
            case 0..<5: try write(name(), random.bytes([0, 10, 3_000, 90_000].randomElement(using: &random)!))
            case 5: try write("big\(calls)", random.bytes(4_400_000))
            case 6: if let file = files().randomElement(using: &random) { try edit(file) }
            case 7, 8: if let file = files().randomElement(using: &random) { try rename(file, to: name()) }
            case 9: if let file = files().randomElement(using: &random) { try remove(file) }
            case 10: try makeFolder(["a", "b", "a/c"].randomElement(using: &random)!)
            default: try moveFolder()
            }
            if contents.count > 30 || files().filter({ $0.hasPrefix("big") }).count > 2 { try remove(files().filter { $0.hasPrefix("big") }.first ?? files()[0]) }
        }

        private func isThere(folderOf file: String) -> Bool {
            file.lastIndex(of: "/").map { tree[String(file[..<$0])] == "/" } ?? true
        }

        /// The kernel's longest request: a longer write(2) is several changes. Between them, whatever this process begins by fork(2) has its copy
        /// of the descriptor closed, which sends what is there (fuse.txt, FLUSH).
        private static let requestByteCount = 1 << 20
        private static let pageByteCount = 4096

        /// Where one request ends and the next begins if a write(2) starts within a page of which the kernel has nothing else: it may not keep a
        /// page of which it has only a part (fuse_fill_write_pages in fs/fuse/file.c).
        private static func firstEnd(_ range: Range<Int>) -> Int? {
            let end = (range.lowerBound + pageByteCount - 1) / pageByteCount * pageByteCount
            return range.lowerBound < end && end < range.upperBound ? end : nil
        }

        private func change(_ file: String, _ flags: Int32, _ bytes: [UInt8], at offset: Int) throws {
            let opened = flags & O_TRUNC != 0 ? [] : contents[file] ?? []
            func with(_ written: ArraySlice<UInt8>) -> [UInt8] {
                Array(opened.prefix(offset) + written + opened.dropFirst(offset + written.count))
            }
            inFlight = (file, contents[file] ?? [], with(bytes[...]))
            var descriptor: Int32 = -1
            try call("open", { $0[file] = Storm.content(opened) }) {
                descriptor = open(mount(file), flags, 0o644)
                return descriptor >= 0
            }
            contents[file] = opened
            defer { if descriptor >= 0 { close(descriptor) } }
            for from in stride(from: 0, to: max(1, bytes.count), by: Self.requestByteCount) {
                let part = bytes[from..<min(bytes.count, from + Self.requestByteCount)]
                if let end = Self.firstEnd(offset + part.startIndex..<offset + part.endIndex) {
                    tree[file] = Storm.content(with(bytes[..<(end - offset)]))
                    passed.add(tree)
                }
                try call("write", { $0[file] = Storm.content(with(bytes[..<part.endIndex])) }) {
                    part.withUnsafeBytes { pwrite(descriptor, $0.baseAddress, $0.count, off_t(offset + from)) } == part.count
                }
            }
            contents[file] = with(bytes[...])
            let closing = descriptor
            descriptor = -1
            guard problems.within(CrashStormTests.deadlineSeconds, "close", { close(closing) }) == 0 else { throw Failed(what: "close", error: errno) }
            passed.closed()
            inFlight = nil
        }

        private func write(_ file: String, _ bytes: [UInt8]) throws {
            guard isThere(folderOf: file), tree[file] != "/" else { return }
            try change(file, O_WRONLY | O_CREAT | O_TRUNC, bytes, at: 0)
        }

        private func edit(_ file: String) throws {
            let old = contents[file]!, bytes = random.bytes(2_000)
            try change(file, O_WRONLY, bytes, at: [0, old.count / 2, old.count].randomElement(using: &random)!)
        }

        private func rename(_ file: String, to name: String) throws {
            guard isThere(folderOf: name), tree[name] != "/", name != file else { return }
            try call("rename", { $0[name] = $0.removeValue(forKey: file) }) { Glibc.rename(mount(file), mount(name)) == 0 }
            contents[name] = contents.removeValue(forKey: file)
        }

        private func remove(_ file: String) throws {
            try call("unlink", { $0[file] = nil }) { unlink(mount(file)) == 0 }
            contents[file] = nil
        }

        private func makeFolder(_ name: String) throws {
            guard isThere(folderOf: name), tree[name] == nil else { return }
            try call("mkdir", { $0[name] = "/" }) { mkdir(mount(name), 0o755) == 0 }
        }

        /// b becomes a/c or the other way round, with all that is in it.
        private func moveFolder() throws {
            guard let (from, to) = [("b", "a/c"), ("a/c", "b")].first(where: { tree[$0.0] == "/" && tree[$0.1] == nil }), isThere(folderOf: to) else { return }
            func moved(_ name: String) -> String { name == from || name.hasPrefix(from + "/") ? to + name.dropFirst(from.count) : name }
            try call("rename of a folder", { $0 = Dictionary(uniqueKeysWithValues: $0.map { (moved($0), $1) }) }) { Glibc.rename(mount(from), mount(to)) == 0 }
            contents = Dictionary(uniqueKeysWithValues: contents.map { (moved($0), $1) })
        }

        /// A write that was interrupted leaves the old content, or the beginning of the new one with what the old one has behind that: as on a
        /// local disk, where the kernel looks for signals between two pages (generic_perform_write).
        private func mayBeLeft(_ change: (file: String, old: [UInt8], new: [UInt8])) -> Bool {
            guard let bytes = mount.read(change.file) else { return true }
            let written = zip(bytes, change.new).prefix { $0 == $1 }.count
            return bytes.count == written || bytes.dropFirst(written).elementsEqual(change.old.dropFirst(written))
        }

        /// The mount is dead: the next one has all that was closed, and of the rest the first calls.
        func comeBack() throws {
            crashes += 1
            mount.kill()
            passed.comesBack()
            try problems.within(5, "boxfs mount") { try mount.start() }
            let found: TreeText
            do throws(Storm.Unreadable) { found = try Storm.tree(mount) } catch {
                if mount.isDead() { return try comeBack() }      // killed again meanwhile
                problems.expect(false, "not readable after a crash: \(error)")
                throw Failed(what: "crash", error: error.error)
            }
            let isRight = passed.survived(found, inFlight: inFlight.flatMap { mayBeLeft($0) ? $0.file : nil })
            problems.expect(isRight, "a crash lost or tore something: \(Storm.difference(found, passed.open[0])), in flight \(inFlight?.file ?? "nothing"), \(passed.open.count) states")
            inFlight = nil
            tree = found
            contents = [:]
            for (name, text) in found where text != "/" {
                guard let bytes = mount.read(name) else { return try comeBack() }
                contents[name] = bytes
            }
            if !isRight { throw Failed(what: "crash", error: 0) }
        }
    }

    @Test func nothingIsLostTornOrHung() throws {
        let drive = try Drive(seconds: Storm.seconds + 120)
        defer { drive.end() }
        var random = SeededGenerator("crash storm")
        let proxy = try FaultProxy(to: drive.port)
        defer { proxy.end() }
        let problems = Problems()
        let mount = try drive.mount("one", ["--deadline", "\(Int(Self.deadlineSeconds))"], through: proxy)
        let writer = Writer(mount, problems, random)
        _ = random.next()
        let trouble = Trouble(drive, [proxy], &random) { _ in mount.killProcess() }
        let end = Date(timeIntervalSinceNow: Storm.seconds)
        let watching = Waiting { () -> Int in
            var looks = 0
            while Date() < end, problems.all.isEmpty {
                usleep(100_000)
                do {
                    let seen = try drive.serverTree()
                    looks += 1
                    let mayBe = writer.passed.mayBeSeen(seen)
                    problems.expect(mayBe, "the server holds a tree that never was: \(writer.passed.nearest(to: seen))\nlast versions: \(drive.lastVersions())\nthe mount said: \(mount.log.suffix(2_000))")
                } catch { problems.expect(false, "\(error)") }
            }
            return looks
        }
        let reading = Waiting { () -> Int in
            var calls = 0
            while Date() < end, problems.all.isEmpty {
                _ = problems.within(Self.deadlineSeconds, "listing") { try? mount.names() }
                _ = problems.within(Self.deadlineSeconds, "reading") { mount.read("f\(calls % 8)") }
                calls += 1
                usleep(20_000)
            }
            return calls
        }
        while Date() < end, problems.all.isEmpty {
            do {
                try writer.step()
                usleep(UInt32.random(in: 0...4_000, using: &writer.random))
            } catch let failed as Writer.Failed {
                guard mount.isDead() else {
                    problems.expect(false, "\(failed.what) failed with errno \(failed.error) in a mount that lives")
                    break
                }
                do { try writer.comeBack() } catch is Writer.Failed { break }
            }
        }
        trouble.stop()
        let (looks, reads) = (try watching.result(seconds: 50), try reading.result(seconds: 30))
        if !mount.isAlive { try? writer.comeBack() }
        try problems.within(40, "flush") { try mount.flush() }
        let last = try drive.serverTree()
        problems.expect(last == writer.tree, "the server's last tree: \(Storm.difference(last, writer.tree))")
        problems.expect((try? Storm.tree(mount)) == writer.tree, "the mount's last tree")
        drive.stopServer()
        let fsck = try drive.fsck()
        problems.expect(fsck.status == 0, "\(fsck.output)")
        print("crash storm: \(writer.calls) calls, \(writer.crashes) crashes of the mount, \(looks) looks at the server, \(reads) reads, \(trouble.counts)")
        problems.report()
    }
}
