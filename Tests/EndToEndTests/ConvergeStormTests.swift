import CXattr
import Foundation
import Glibc
import Shared
import Testing
import TestSupport

/// Mounts of one account work at once on the same few names, while the network parts them and mounts and server die. When the storm is over
/// all show one tree, and every content that somebody closed, and did not take back, is to be had.
@Suite(.serialized) struct ConvergeStormTests {
    /// One mount's user. Remembers the contents that must be kept: what a close returned for, until the same mount overwrote or removed that
    /// very file. What others overwrite or remove is a version or in the trash, as every commit makes a version here (`version-every 0s`).
    private final class User: @unchecked Sendable {     // belongs to its thread, then to the test's
        let mount: Mount
        private let index: Int
        private var random: SeededGenerator
        private let problems: Problems
        /// By the file's inode here, which lives as long as the replica: content and what was done.
        private(set) var owed: [UInt64: (content: String, what: String, call: Int)] = [:]
        private(set) var calls = 0, closed = 0
        /// The calls before which the mount was found dead, and those that failed with something else than that there is no such file.
        private(set) var restarts: [Int] = [], failures: [String] = []
        /// How often a call took the name of another file than was seen there.
        private(set) var mistaken = 0
        /// Files other than the one that was seen that a call cut off which then failed, as the mount died over it.
        private(set) var cut = 0
        /// The mount died over a call that took a name, or cut off what had it, and could not be asked whose.
        private var isUncertain = false, mayHaveCut = false
        static let deadlineSeconds = 3.0
        /// What was done, for people who look for what is lost.
        private var history: [(call: Int, text: String)] = []

        init(_ index: Int, _ mount: Mount, _ random: SeededGenerator, _ problems: Problems) {
            (self.index, self.mount, self.random, self.problems) = (index, mount, random, problems)
        }

        func work(until end: Date) {
            while Date() < end, problems.all.count < 5 {
                if !mount.isAlive {
                    usleep(UInt32.random(in: 0...500_000, using: &random))
                    do { try restart() } catch { return problems.expect(false, "\(error)") }
                }
                if isUncertain { isUncertain = !forgetWhatIsNotListed() }
                problems.within(Self.deadlineSeconds * 3, "a step of \(mount.path)") { step() }
                usleep(UInt32.random(in: 0...20_000, using: &random))
            }
        }

        func restart() throws {
            mount.kill()
            restarts.append(calls + 1)
            try mount.start()
            if isUncertain { isUncertain = !forgetWhatIsNotListed() }
        }

        private func tell(_ text: @autoclosure () -> String) {
            history.append((calls, text()))
            if history.count > 2_000 { history.removeFirst(1_000) }
        }

        /// What was done from a call on.
        func history(since call: Int) -> String { history.filter { $0.call >= call }.prefix(150).map { "\($0.call): \($0.text)" }.joined(separator: "\n") }

        private func name() -> String { ["", "", "a/", "b/"].randomElement(using: &random)! + "f\(Int.random(in: 0..<6, using: &random))" }

        private func step() {
            calls += 1
            switch Int.random(in: 0..<14, using: &random) {
            case 0..<5: write(name(), O_WRONLY | O_CREAT | O_TRUNC)
            case 5..<7: write(name(), O_WRONLY)
            case 7: save(name())
            case 8..<10: remove(name())
            case 10, 11:
                let target = name(), source = name()
                if source != target {
                    tell("rename \(source), \(inode(source).map(String.init) ?? "nothing")")
                    rename(source, to: target)
                }
            case 12: mkdir(mount(["a", "b"].randomElement(using: &random)!), 0o755)
            default:
                let isDone = Glibc.rename(mount("a"), mount("b")) == 0
                tell("rename a to b: \(isDone)")
            }
        }

        /// Bytes that no other write has, and that are no text: texts would be merged.
        private func bytes() -> [UInt8] { [0, UInt8(index)] + random.bytes([30, 3_000, 50_000].randomElement(using: &random)!) }

        private func write(_ name: String, _ flags: Int32) {
            let bytes = bytes()
            if flags & O_TRUNC != 0 { return overwrite(name, flags, bytes) }
            write(bytes, to: open(mount(name), flags, 0o644), name)
        }

        /// Opening cuts a file off: if the mount dies over it, or before it says which file that was, the one that was seen there, or one that came
        /// there since from elsewhere, which is empty when the mount is back.
        private func overwrite(_ name: String, _ flags: Int32, _ bytes: [UInt8]) {
            let before = inode(name), file = open(mount(name), flags, 0o644), error = errno
            tell("overwrite \(name), \(before.map(String.init) ?? "nothing") before, \(file < 0 ? "errno \(error)" : "open")")
            guard file < 0 ? didPerhaps(error) : !write(bytes, to: file, name) else { return }
            if let before { owed[before] = nil }
            (isUncertain, mayHaveCut) = (true, true)
        }

        private func inode(_ name: String) -> UInt64? {
            var status = stat()
            return stat(mount(name), &status) == 0 ? UInt64(status.st_ino) : nil
        }

        /// A call that failed with this may have done its work, if the mount died over it.
        private func didPerhaps(_ error: Int32) -> Bool {
            guard ![ENOENT, ENOTDIR, EISDIR, EEXIST].contains(error) else { return false }
            failures.append("\(calls): \(String(cString: strerror(error)))")
            return true
        }

        /// - Returns: false if the mount died before it said which file this is.
        @discardableResult private func write(_ bytes: [UInt8], to file: Int32, _ name: String) -> Bool {
            guard file >= 0 else { return true }
            // Kept open over the close: says whether the file was still there when the close was done.
            let witness = open("/proc/self/fd/\(file)", O_RDONLY)
            defer { if witness >= 0 { close(witness) } }
            var status = stat()
            guard fstat(file, &status) == 0 else {
                tell("write \(name): errno \(errno) before a byte was written")
                close(file)
                return false
            }
            let isWhole = ftruncate(file, 0) == 0 && Glibc.write(file, bytes, bytes.count) == bytes.count
            // From the first call that may have changed it, its earlier content is this mount's to lose.
            owed[UInt64(status.st_ino)] = nil
            let isClosed = close(file) == 0 && isWhole
            tell("write \(name), \(status.st_ino), \(bytes.count) bytes, \(isWhole ? "whole" : "in part"), \(isClosed ? "closed" : "not closed")")
            guard isClosed, witness >= 0, fstat(witness, &status) == 0, status.st_nlink > 0 else { return true }
            closed += 1
            owed[UInt64(status.st_ino)] = (Storm.content(bytes), "\(name) of \(mount.path), call \(calls)", calls)
            return true
        }

        /// As editors save: a new file takes the name of the old one.
        private func save(_ name: String) {
            let temporary = ".save\(index)-\(calls)"
            write(temporary, O_WRONLY | O_CREAT | O_EXCL)
            rename(temporary, to: name)
        }

        private func remove(_ name: String) { takeName(name) { $0 == nil ? nil : unlink(mount(name)) } }

        /// Over a file that is known, or over none: one that came there in between would be lost, and its owner not told.
        private func rename(_ source: String, to target: String) {
            takeName(target) { $0 == nil ? rename_to_new(mount(source), mount(target)) : Glibc.rename(mount(source), mount(target)) }
        }

        /// Makes a call that takes a name from the file that has it.
        ///
        /// The call says a name, not a file: a change from elsewhere may have put another one there since it was opened, or before, if the kernel
        /// has not heard of it. Then that one is this mount's to lose, and is found by what is left in the tree.
        /// - Parameter call: is given the file's inode; returns nil if it does nothing.
        private func takeName(_ name: String, _ call: (UInt64?) -> Int32?) {
            let file = open(mount(name), O_RDONLY)
            defer { if file >= 0 { close(file) } }
            var status = stat()
            let inode = file >= 0 && fstat(file, &status) == 0 ? UInt64(status.st_ino) : nil
            let before = inode == nil ? nil : namesAndChange(of: file), start = Shared.Timestamp.now().nanoseconds
            let answer = call(inode), error = errno
            tell("take \(name) of \(inode.map(String.init) ?? "nothing"): \(answer == nil ? "not done" : answer == 0 ? "done" : "errno \(error)")")
            guard let result = answer, result == 0 || didPerhaps(error) else { return }
            guard let inode else { return }
            owed[inode] = nil
            guard let before, let after = namesAndChange(of: file) else { return isUncertain = true }
            // Its last change is this call, which took one name of it. A change from elsewhere came before the call.
            if result != 0 || after.names != before.names - 1 || after.changed < start { isUncertain = !forgetWhatIsNotListed() }
        }

        private func namesAndChange(of file: Int32) -> (names: Int64, changed: Int64)? {
            var names: Int64 = 0, changed: Int64 = 0
            return names_and_change(file, &names, &changed) == 0 ? (names, changed) : nil
        }

        /// - Returns: whether all could be listed.
        private func forgetWhatIsNotListed() -> Bool {
            mistaken += 1
            guard let listed = sizes(), mount.isAlive else { return false }
            let isCut = { [mayHaveCut] in mayHaveCut && listed[$0] == 0 }
            cut += owed.keys.count(where: isCut)
            tell("not owed any more: \(owed.keys.filter { listed[$0] == nil || isCut($0) })")
            owed = owed.filter { listed[$0.key] != nil && !isCut($0.key) }
            mayHaveCut = false
            return true
        }

        /// Of all files that can be listed, by their inodes; nil if not all can.
        func sizes() -> [UInt64: Int]? {
            var listed: [UInt64: Int] = [:]
            for folder in [".", "a", "b"] {
                do throws(Storm.Unreadable) {
                    for name in try mount.names(folder) {
                        var status = stat()
                        if stat(mount("\(folder)/\(name)"), &status) == 0 { listed[UInt64(status.st_ino)] = Int(status.st_size) }
                    }
                } catch {
                    guard folder != ".", [ENOENT, ENOTDIR].contains(error.error) else { return nil }
                }
            }
            return listed
        }
    }

    private func storm(mounts count: Int) throws {
        let drive = try Drive(seconds: Storm.seconds + 150)
        defer { drive.end() }
        var random = SeededGenerator("converge storm of \(count)")
        let problems = Problems()
        var proxies: [FaultProxy] = [], users: [User] = []
        defer { for proxy in proxies { proxy.end() } }
        for index in 0..<count {
            let proxy = try FaultProxy(to: drive.port)
            proxies.append(proxy)
            let mount = try drive.mount("m\(index)", ["--deadline", "\(Int(User.deadlineSeconds))"], through: proxy)
            if index == 0 {
                let set = try mount.boxfs(["settings", "--version-every", "0s"])
                try #require(set.status == 0, "\(set.output)")
            }
            users.append(User(index, mount, random, problems))
            _ = random.next()
        }
        let mounts = users.map(\.mount)
        let trouble = Trouble(drive, proxies, &random) { random in mounts.randomElement(using: &random)!.killProcess() }
        let end = Date(timeIntervalSinceNow: Storm.seconds)
        let working = users.map { user in Waiting { user.work(until: end) } }
        for each in working { try each.result(seconds: Storm.seconds + 60) }
        trouble.stop()
        for user in users where !user.mount.isAlive { try user.restart() }
        for mount in mounts { try problems.within(40, "flush of \(mount.path)") { try mount.flush() } }
        var seen: [TreeText?] = [], right: TreeText = [:]
        do {
            try eventually("all show the same tree", seconds: 30) {
                right = try drive.serverTree()
                seen = mounts.map { try? Storm.tree($0) }
                return seen.allSatisfy { $0 == right }
            }
        } catch {
            for (mount, tree) in zip(mounts, seen) where tree != right {
                _ = try mount.boxfs(["cache", "drop", mount.path])
                let isKernels = (try? Storm.tree(mount)) == right
                problems.expect(false, """
                    \(mount.path) differs from the server\(isKernels ? " until its caches are dropped" : ""): \(tree.map { Storm.difference($0, right) } ?? "not readable")
                    """)
            }
        }
        let kept = try drive.keptContents()
        for user in users {
            let status = try user.mount.boxfs(["status", user.mount.path]).output
            for (inode, owed) in user.owed where !kept.contains(owed.content) {
                problems.expect(false, """
                    lost: \(owed.content.prefix(8)), \(owed.what), inode \(inode) of now \(user.sizes()?[inode].map { "\($0) bytes" } ?? "no name"); restarts: \(user.restarts), failures: \(user.failures)
                    versions with it: \(drive.versions(of: owed.content)); in rescue/: \(user.mount.rescued())
                    \((try? user.mount.boxfs(["status", user.mount.path, "--json"]).output) ?? status)
                    \(user.mount.log.suffix(4_000))
                    \(user.history(since: owed.call))
                    """)
                drive.keep()
            }
            problems.expect(!status.contains("STOPPED"), status)
        }
        drive.stopServer()
        let fsck = try drive.fsck()
        problems.expect(fsck.status == 0, "\(fsck.output)")
        let mistaken = users.reduce(0) { $0 + $1.mistaken }, cut = users.reduce(0) { $0 + $1.cut }
        let copies = right.keys.filter { $0.contains("conflicted copy") }.count
        print("converge storm of \(count): \(users.map(\.calls)) calls, \(users.map(\.closed)) closes, \(right.count) entries, \(copies) conflicted copies, \(mistaken) names taken from another file than was seen, \(cut) cut, \(trouble.counts)")
        problems.report()
    }

    @Test func twoMountsConvergeAndLoseNothing() throws { try storm(mounts: 2) }

    @Test func fiveMountsConvergeAndLoseNothing() throws { try storm(mounts: 5) }

    /// A removal that meets an edit and a rename of the same file: the feed tells of the new name while the removal waits for its answer.
    @Test func whatIsRemovedHereAndRenamedElsewhereIsBackWhole() throws {
        let drive = try Drive()
        defer { drive.end() }
        let proxy = try FaultProxy(to: drive.port)
        defer { proxy.end() }
        let one = try drive.mount("one"), two = try drive.mount("two", through: proxy)
        for index in 0..<8 { try one.write("f\(index)", Array("old \(index)".utf8)) }
        try one.flush()
        try eventually("both have them") { (0..<8).allSatisfy { two.read("f\($0)") == Array("old \($0)".utf8) } }
        proxy.fault = .refuse
        for index in 0..<8 {
            #expect(unlink(two("f\(index)")) == 0)
            #expect(rename(one("f\(index)"), one("g\(index)")) == 0)
            if index.isMultiple(of: 2) { try one.write("g\(index)", Array("new \(index)".utf8)) }
        }
        try one.flush()
        proxy.fault = .none
        try two.flush()
        var right: TreeText = [:]
        try eventually("both show what the server has") {
            right = try drive.serverTree()
            return (try? Storm.tree(one)) == right && (try? Storm.tree(two)) == right
        }
        for index in stride(from: 0, to: 8, by: 2) { #expect(two.read("g\(index)") == Array("new \(index)".utf8), "the edit wins") }
        // It is a file like any other: the mount, which had counted its names wrong, lives on.
        for name in right.keys { #expect(unlink(two(name)) == 0) }
        try two.flush()
        try eventually("all are gone") { try one.names() == [] }
    }
}
