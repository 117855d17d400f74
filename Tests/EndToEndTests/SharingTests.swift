import Foundation
import Glibc
import Testing

/// Shared folders through mounts of several accounts.
@Suite(.serialized) struct SharingTests {
    private func number(_ path: String) -> UInt64? {
        var status = stat()
        return stat(path, &status) == 0 ? UInt64(status.st_ino) : nil
    }

    private func done(_ answer: (status: Int32, output: String), _ location: SourceLocation = #_sourceLocation) throws {
        try #require(answer.status == 0, "\(answer.output)", sourceLocation: location)
    }

    private func text(_ mount: Mount, _ name: String) -> String? { mount.read(name).map { String(decoding: $0, as: UTF8.self) } }

    /// - Parameter proxy: what bob's mount reaches the server through.
    private func two(_ role: String = "editor", proxy: (Drive) throws -> FaultProxy? = { _ in nil }) throws -> (Drive, Mount, Mount) {
        let drive = try Drive()
        try drive.addAccount("bob")
        let ann = try drive.mount("ann"), bob = try drive.mount("bob", account: "bob", through: proxy(drive))
        try FileManager.default.createDirectory(atPath: ann("docs/sub"), withIntermediateDirectories: true)
        try ann.write("docs/a", Array("one".utf8))
        try ann.write("docs/sub/b", Array("two".utf8))
        try ann.write("private", Array("mine".utf8))
        try done(try ann.boxfs(["share", "add", ann("docs"), "bob", "--role", role]))
        try eventually("the folder appears") { text(bob, "docs/sub/b") == "two" }
        return (drive, ann, bob)
    }

    @Test func aFolderIsSharedInPlace() throws {
        let drive = try Drive()
        try drive.addAccount("bob")
        let ann = try drive.mount("ann"), bob = try drive.mount("bob", account: "bob")
        try FileManager.default.createDirectory(atPath: ann("docs/sub"), withIntermediateDirectories: true)
        try ann.write("docs/a", Array("one".utf8))
        let open = Glibc.open(ann("docs/open"), O_RDWR | O_CREAT, 0o644), folder = Glibc.open(ann("docs/sub"), O_RDONLY | O_DIRECTORY)
        #expect(write(open, "before ", 7) == 7)
        let numbers = ["docs", "docs/sub", "docs/a", "docs/open"].map { number(ann($0)) }
        try done(try ann.boxfs(["share", "add", ann("docs"), "bob", "--role", "editor"]))
        #expect(write(open, "between ", 8) == 8)
        try eventually("the folder appears") { text(bob, "docs/a") == "one" }
        // Nothing moved: inodes, open files and working directories go on.
        #expect(["docs", "docs/sub", "docs/a", "docs/open"].map { number(ann($0)) } == numbers)
        #expect(write(open, "after", 5) == 5 && fsync(open) == 0)
        let inner = openat(folder, "made", O_WRONLY | O_CREAT, 0o644)
        #expect(inner >= 0 && write(inner, "x", 1) == 1)
        close(inner)
        try eventually("the other sees it") { text(bob, "docs/open") == "before between after" && text(bob, "docs/sub/made") == "x" }
        close(open)
        close(folder)
        // Both write, both see.
        try bob.write("docs/sub/of bob", Array("bob's".utf8))
        try eventually("the owner sees it") { text(ann, "docs/sub/of bob") == "bob's" }
        try ann.write("docs/a", Array("changed".utf8))
        try eventually("the edit arrives") { text(bob, "docs/a") == "changed" }
        #expect(rename(bob("docs/a"), bob("docs/sub/a")) == 0)
        try eventually("the rename arrives") { text(ann, "docs/sub/a") == "changed" && text(ann, "docs/a") == nil }
        for mount in [ann, bob] {
            try mount.unmount()
            try mount.start()
        }
        try eventually("after a remount") { text(ann, "docs/sub/of bob") == "bob's" && text(bob, "docs/sub/a") == "changed" }
        let checked = try drive.fsck()
        #expect(checked.status == 0, "\(checked.output)")
        try done(try ann.boxfs(["history", ann("docs/sub/a")]))
        drive.end()
    }

    @Test func aFolderStandsWhereEachMemberWants() throws {
        let (drive, ann, bob) = try two()
        try FileManager.default.createDirectory(atPath: bob("mine"), withIntermediateDirectories: true)
        try bob.write("own", [1])
        #expect(rename(bob("docs"), bob("mine/ann's")) == 0)
        try bob.flush()
        #expect(text(bob, "mine/ann's/a") == "one" && text(ann, "docs/a") == "one")
        // The border: names and links do not cross it.
        #expect(rename(bob("own"), bob("mine/ann's/own")) == -1 && errno == EXDEV)
        #expect(rename(bob("mine/ann's/a"), bob("a")) == -1 && errno == EXDEV)
        #expect(link(bob("own"), bob("mine/ann's/own")) == -1 && errno == EXDEV)
        #expect(rmdir(bob("mine/ann's")) == -1 && errno == EBUSY)
        #expect(rmdir(bob("mine")) == -1 && errno == ENOTEMPTY)
        try FileManager.default.createDirectory(atPath: bob("empty"), withIntermediateDirectories: true)
        #expect(rename(bob("empty"), bob("mine/ann's")) == -1 && errno == EBUSY)
        // mv copies across.
        try done(try run("mv", [bob("own"), bob("mine/ann's/own")]))
        try eventually("what was moved in arrives") { ann.read("docs/own") == [1] }
        let nested = try ann.boxfs(["share", "add", ann("docs/sub"), "bob", "--role", "viewer"])
        #expect(nested.status == 1 && nested.output.contains("inside a shared folder"), "\(nested.output)")
        // Leaving takes it from one tree only.
        try done(try bob.boxfs(["share", "leave", bob("mine/ann's")]))
        try eventually("the folder is gone") { try bob.names("mine").isEmpty }
        #expect(text(ann, "docs/a") == "one")
        #expect(try drive.fsck().status == 0)
        drive.end()
    }

    @Test func aViewersFolderIsReadOnlyAtOnce() throws {
        let (drive, ann, bob) = try two("viewer")
        func refused(_ body: () -> Int32) -> Bool { body() == -1 && errno == EROFS }
        let calls: [() -> Int32] = [
            { open(bob("docs/new"), O_WRONLY | O_CREAT, 0o644) }, { open(bob("docs/a"), O_WRONLY) }, { mkdir(bob("docs/dir"), 0o755) },
            { unlink(bob("docs/a")) }, { rename(bob("docs/a"), bob("docs/b")) }, { chmod(bob("docs/a"), 0o600) }, { truncate(bob("docs/a"), 0) },
            { symlink("x", bob("docs/link")) }, { link(bob("docs/a"), bob("docs/c")) }, { rmdir(bob("docs/sub")) },
        ]
        #expect(calls.map(refused) == calls.map { _ in true })
        #expect(text(bob, "docs/a") == "one")
        try done(try ann.boxfs(["share", "add", ann("docs"), "bob", "--role", "editor"]))
        var held: Int32 = -1
        try eventually("bob may write") {
            held = open(bob("docs/held"), O_WRONLY | O_CREAT, 0o644)
            return held >= 0
        }
        #expect(write(held, "x", 1) == 1)
        #expect(fsync(held) == 0)
        try bob.flush()
        try done(try ann.boxfs(["share", "add", ann("docs"), "bob", "--role", "viewer"]))
        // Asked without changing anything: with unsent changes the folder would be left (`aDemotedMembersUnsentWritesAreKept`).
        try eventually("the role is told") {
            let file = open(bob("docs/held"), O_WRONLY)
            defer { if file >= 0 { close(file) } }
            return file == -1 && errno == EROFS
        }
        #expect(refused { Int32(write(held, "y", 1)) }, "an open file is read-only too")
        close(held)
        #expect(refused { mkdir(bob("docs/dir"), 0o755) })
        // Reading goes on, and the others' changes come.
        try ann.write("docs/later", Array("news".utf8))
        try eventually("changes still come") { text(bob, "docs/later") == "news" }
        drive.end()
    }

    /// Programs that have files open see an error, not an empty file.
    @Test func openFilesEndWithTheRight() throws {
        let (drive, ann, bob) = try two()
        let open = Glibc.open(bob("docs/a"), O_RDWR)
        var bytes = [UInt8](repeating: 0, count: 10)
        #expect(pread(open, &bytes, 10, 0) == 3)
        try done(try ann.boxfs(["share", "remove", ann("docs"), "bob"]))
        try eventually("the folder is gone") { try bob.names().isEmpty }
        #expect(pwrite(open, bytes, 1, 0) == -1 && (errno == EROFS || errno == ESTALE))
        try eventually("its open files too") { pread(open, &bytes, 10, 0) != 3 }
        #expect(pread(open, &bytes, 10, 0) == -1 && errno == ESTALE)
        var status = stat()
        #expect(fstat(open, &status) == -1 && errno == ESTALE)
        close(open)
        try bob.unmount()
        drive.end()
    }

    @Test func whatWasNotSentIsRescuedWhenTheRightIsGone() throws {
        let (drive, ann, bob) = try two()
        _ = bob.read("docs/a")
        drive.stopServer()
        try bob.write("docs/sub/b", Array("unsent edit".utf8))
        try bob.write("docs/fresh", Array("unsent file".utf8))
        try bob.write("own", Array("bob's own".utf8))
        try bob.unmount(["--now"])
        try drive.startServer()
        try eventually("the owner can share") { try ann.boxfs(["share", "remove", ann("docs"), "bob"]).status == 0 }
        try bob.start()
        try eventually("the folder is gone") { try bob.names() == ["own"] }
        try bob.flush()
        let rescue = bob.stateFolder + "/rescue"
        var kept: [String: String] = [:]
        try eventually("the edits are kept") {
            kept = [:]
            for name in try FileManager.default.subpathsOfDirectory(atPath: rescue) {
                if let bytes = FileManager.default.contents(atPath: rescue + "/" + name), !bytes.isEmpty {
                    kept[(name as NSString).lastPathComponent] = String(decoding: bytes, as: UTF8.self)
                }
            }
            return kept.count == 2
        }
        #expect(kept == ["b": "unsent edit", "fresh": "unsent file"])
        try eventually("status says so") { try bob.boxfs(["status", bob.path]).output.contains("no longer in the shared folder docs: 2 files") }
        // Nothing of it is left in the cache.
        try eventually("the cache forgets") {
            try !run("grep", ["-rlE", "one|two|unsent", bob.stateFolder + "/cache/chunks", bob.stateFolder + "/dirty"]).output.contains("/")
        }
        #expect(text(ann, "docs/sub/b") == "two" && text(ann, "docs/fresh") == nil)
        // It may come back.
        try done(try ann.boxfs(["share", "add", ann("docs"), "bob", "--role", "viewer"]))
        try eventually("the folder is back") { text(bob, "docs/sub/b") == "two" }
        #expect(try drive.fsck().status == 0)
        drive.end()
    }

    /// Not only content: what was made is kept as it was made, the rest is listed, and said.
    @Test func unsentFoldersLinksAndRenamesAreKept() throws {
        let (drive, ann, bob) = try two()
        try ann.write("docs/gone", Array("three".utf8))
        try ann.write("docs/other", Array("four".utf8))
        try eventually("bob has all") { text(bob, "docs/gone") == "three" && text(bob, "docs/other") == "four" }
        drive.stopServer()
        try FileManager.default.createDirectory(atPath: bob("docs/new/deep"), withIntermediateDirectories: true)
        try bob.write("docs/new/empty", [])
        #expect(symlink("../a", bob("docs/new/link")) == 0)
        #expect(rename(bob("docs/a"), bob("docs/sub/a2")) == 0)
        #expect(unlink(bob("docs/gone")) == 0)
        #expect(chmod(bob("docs/sub/b"), 0o600) == 0)
        #expect(link(bob("docs/other"), bob("docs/hard")) == 0)
        try bob.write("docs/passing", [1])
        #expect(unlink(bob("docs/passing")) == 0)
        try bob.unmount(["--now"])
        try drive.startServer()
        try eventually("the owner can share") { try ann.boxfs(["share", "remove", ann("docs"), "bob"]).status == 0 }
        try bob.start()
        try eventually("the folder is gone") { try bob.names().isEmpty }
        var told = ""
        try eventually("status says so") {
            told = try bob.boxfs(["status", bob.path]).output
            return told.contains("no longer in the shared folder docs: one file, 2 folders and one symbolic link with changes that were not sent are kept in ")
        }
        #expect(told.contains("4 changes of names or attributes that were not sent are listed in "), "\(told)")
        let rescue = bob.stateFolder + "/rescue", folder = rescue + "/" + (try #require(try FileManager.default.contentsOfDirectory(atPath: rescue).first))
        #expect(try FileManager.default.subpathsOfDirectory(atPath: folder).sorted() == ["new", "new/deep", "new/empty", "new/link", "not sent.txt"])
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: folder + "/new/link") == "../a")
        #expect(FileManager.default.contents(atPath: folder + "/new/empty") == Data())
        #expect(try String(contentsOfFile: folder + "/not sent.txt", encoding: .utf8).split(separator: "\n") == [
            "renamed a to sub/a2", "removed gone", "changed owner or permissions of sub/b", "made the hard link hard",
        ])
        #expect(text(ann, "docs/a") == "one" && text(ann, "docs/gone") == "three")
        drive.end()
    }

    @Test func unsentEditsOfAFolderThatMayOnlyBeReadAreRescued() throws {
        let (drive, ann, bob) = try two()
        drive.stopServer()
        try bob.write("docs/a", Array("unsent".utf8))
        try bob.unmount(["--now"])
        try drive.startServer()
        try eventually("the owner can share") { try ann.boxfs(["share", "add", ann("docs"), "bob", "--role", "viewer"]).status == 0 }
        try bob.start()
        try eventually("the server's content is back") { text(bob, "docs/a") == "one" && open(bob("docs/a"), O_WRONLY) == -1 && errno == EROFS }
        try eventually("status says so") { try bob.boxfs(["status", bob.path]).output.contains("may only be read now: one file") }
        #expect(text(ann, "docs/a") == "one")
        drive.end()
    }

    /// A second machine of the owner was away, edited and renamed: all of it arrives.
    /// The same with a mount that goes on and a file that is open: it ends as with the right itself, its bytes are kept.
    @Test func whatADemotedMemberHasOpenAndUnsentIsRescued() throws {
        var way: FaultProxy?
        let (drive, ann, bob) = try two { way = try FaultProxy(to: $0.port); return way }
        let proxy = try #require(way)
        defer { proxy.end() }
        let held = open(bob("docs/a"), O_RDWR)
        defer { close(held) }
        proxy.fault = .silent
        #expect(pwrite(held, "unsent", 6, 0) == 6)
        try done(try ann.boxfs(["share", "add", ann("docs"), "bob", "--role", "viewer"]))
        proxy.fault = .none
        var byte: UInt8 = 0
        try eventually("the open file ends") { pread(held, &byte, 1, 0) == -1 && errno == ESTALE }
        #expect(pwrite(held, "y", 1, 0) == -1 && errno == ESTALE)
        try eventually("the server's content is back") { text(bob, "docs/a") == "one" }
        #expect(open(bob("docs/a"), O_WRONLY) == -1 && errno == EROFS)
        try eventually("status says so") { try bob.boxfs(["status", bob.path]).output.contains("may only be read now: one file") }
        #expect(text(ann, "docs/a") == "one")
        drive.end()
    }

    @Test func editsMadeAwayReachTheSharedFolder() throws {
        let drive = try Drive()
        try drive.addAccount("bob")
        let desk = try drive.mount("desk"), bob = try drive.mount("bob", account: "bob")
        try FileManager.default.createDirectory(atPath: desk("docs/sub"), withIntermediateDirectories: true)
        try desk.write("docs/a", Array("one".utf8))
        try desk.write("loose", Array("loose".utf8))
        try desk.flush()
        let lap = try drive.mount("lap")
        try eventually("all is here") { text(lap, "docs/a") == "one" && text(lap, "loose") == "loose" }
        _ = try lap.names("docs/sub")
        drive.stopServer()
        try lap.write("docs/a", Array("edited away".utf8))
        try lap.write("docs/sub/new", Array("made away".utf8))
        #expect(mkdir(lap("docs/sub/dir"), 0o755) == 0)
        try lap.write("docs/sub/dir/deep", Array("deep".utf8))
        #expect(rename(lap("loose"), lap("docs/loose")) == 0)
        #expect(rename(lap("docs"), lap("papers")) == 0)
        try lap.unmount(["--now"])
        try drive.startServer()
        try eventually("shared") { try desk.boxfs(["share", "add", desk("docs"), "bob", "--role", "viewer"]).status == 0 }
        try lap.start()
        try eventually("edits arrive") {
            text(bob, "docs/a") == "edited away" && text(bob, "docs/sub/new") == "made away" && text(bob, "docs/sub/dir/deep") == "deep"
        }
        try eventually("the rename is the owner's") { text(desk, "papers/a") == "edited away" && text(lap, "papers/sub/dir/deep") == "deep" }
        // Nothing crosses the border: the move was taken back, and said.
        try eventually("what would have crossed is where it was") {
            text(lap, "loose") == "loose" && text(desk, "loose") == "loose" && text(lap, "papers/loose") == nil && text(bob, "docs/loose") == nil
        }
        try lap.flush()
        #expect(try drive.fsck().status == 0)
        drive.end()
    }

    /// The right was taken and given again while a member's mount was away: both come to it at once.
    @Test func aFolderThatIsTakenAndGivenAgainComesBack() throws {
        let (drive, ann, bob) = try two()
        try bob.unmount()
        for round in 0..<2 {
            try done(try ann.boxfs(["share", "remove", ann("docs"), "bob"]))
            try done(try ann.boxfs(["share", "add", ann("docs"), "bob", "--role", round == 0 ? "editor" : "viewer"]))
            try bob.start()
            try eventually("it is there again") { text(bob, "docs/sub/b") == "two" }
            usleep(300_000)
            #expect(text(bob, "docs/a") == "one")
            try bob.unmount()
        }
        #expect(try drive.fsck().status == 0)
        drive.end()
    }

    /// Conflicts in shared folders are listed from anywhere in the tree, with the paths of the tree.
    @Test func conflictsInSharedFoldersAreListed() throws {
        let (drive, ann, bob) = try two()
        _ = bob.read("docs/a")
        try bob.unmount()
        try ann.write("docs/a", Array("by ann".utf8))
        try ann.flush()
        drive.stopServer()
        try bob.start()
        try bob.write("docs/a", Array("by bob".utf8))
        try drive.startServer()
        try bob.flush()
        for mount in [ann, bob] {
            let listed = try mount.boxfs(["conflicts", "--mount", mount.path]).output
            #expect(listed.hasPrefix("docs/a\n  copy    docs/a (conflicted copy, "), "\(listed)")
        }
        try done(try bob.boxfs(["resolve", bob("docs/a"), "--keep", "theirs"]))
        #expect(try ann.boxfs(["conflicts", "--mount", ann.path]).output == "")
        try eventually("the copy is gone") { try ann.names("docs") == ["a", "sub"] && text(ann, "docs/a") == "by ann" }
        #expect(try drive.fsck().status == 0)
        drive.end()
    }

    /// What a member does to a shared folder is told its owner, who takes it back from anywhere.
    @Test func theOwnerHearsOfAMassDeletionByAMemberAndTakesItBack() throws {
        let (drive, ann, bob) = try two()
        #expect(mkdir(ann("docs/many"), 0o755) == 0)
        for index in 0..<260 { try ann.write("docs/many/f\(index)", Array("\(index)".utf8)) }
        try ann.flush()
        try eventually("bob has them") { (try? bob.names("docs/many").count) == 260 }
        #expect(try run("/bin/rm", ["-rf", bob("docs/many")]).status == 0)
        try bob.flush()
        let told = try ann.boxfs(["status", ann.path]).output
        #expect(told.contains("260 files removed in docs/many by bob"), "\(told)")
        #expect(try !bob.boxfs(["status", bob.path]).output.contains("ATTENTION"), "bob is no manager")
        #expect(try ann.boxfs(["undo", "last", "--mount", ann.path]).output.hasPrefix("260 files restored"))
        try eventually("bob has them again") { (try? bob.names("docs/many").count) == 260 }
        #expect(try !ann.boxfs(["status", ann.path]).output.contains("ATTENTION"))
        #expect(try drive.fsck().status == 0)
        drive.end()
    }

    @Test func invitationsGroupsAndRestoresByCommand() throws {
        let drive = try Drive()
        for name in ["bob", "eve"] { try drive.addAccount(name) }
        let ann = try drive.mount("ann"), bob = try drive.mount("bob", account: "bob"), eve = try drive.mount("eve", account: "eve")
        #expect(mkdir(ann("docs"), 0o755) == 0 && mkdir(bob("mine"), 0o755) == 0)
        try ann.write("docs/a", Array("one".utf8))
        try bob.flush()
        try done(try bob.boxfs(["share", "settings", "--accept-automatically", "no"]))
        try done(try ann.boxfs(["share", "group", "create", "team", "bob", "eve"]))
        try done(try ann.boxfs(["share", "add", ann("docs"), "team", "--role", "editor", "--group"]))
        try eventually("eve has it") { text(eve, "docs/a") == "one" }
        #expect(try bob.names() == ["mine"])
        #expect(try bob.boxfs(["share", "list"]).output.contains("invited by ann"))
        let accepted = try bob.boxfs(["share", "accept", "ann/docs", "--at", "mine/of ann"])
        #expect(accepted.output == "/mine/of ann\n")
        try eventually("bob has it") { text(bob, "mine/of ann/a") == "one" }
        #expect(try ann.boxfs(["share", "members", ann("docs")]).output == "owner\tann\neditor\tbob\tthrough team\neditor\teve\tthrough team\n")
        // Versions, trash and audit are those of the shared folder.
        try bob.write("mine/of ann/a", Array("two".utf8))
        try bob.flush()
        #expect(unlink(bob("mine/of ann/a")) == 0)
        #expect(try bob.boxfs(["trash", "list", "--mount", bob("mine/of ann")]).output.contains(" a\n"))
        try done(try bob.boxfs(["trash", "restore", bob("mine/of ann/a"), "--mount", bob("mine/of ann")]))
        try eventually("it is back for all") { text(ann, "docs/a") == "two" && text(eve, "docs/a") == "two" }
        #expect(try ann.boxfs(["audit", ann("docs"), "--user", "bob"]).output.contains("removed\tbob"))
        try done(try ann.boxfs(["share", "transfer", ann("docs"), "eve"]))
        #expect(try eve.boxfs(["share", "list"]).output.contains("owner\teve/docs\t/docs"))
        try done(try ann.boxfs(["share", "group", "delete", "team"]))
        try eventually("who was there through the group is not any more") { try bob.names("mine").isEmpty }
        #expect(text(eve, "docs/a") == "two" && text(ann, "docs/a") == "two")
        #expect(try drive.fsck().status == 0)
        drive.end()
    }
}
