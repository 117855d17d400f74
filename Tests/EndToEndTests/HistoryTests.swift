import Foundation
import Glibc
import Testing

/// Versions, trash, folders as of a time, mass changes and conflicts, by the command line and through mounts.
@Suite struct HistoryTests {
    private func command(_ mount: Mount, _ arguments: [String], status: Int32 = 0, _ location: SourceLocation = #_sourceLocation) throws -> String {
        let (found, output) = try mount.boxfs(arguments)
        #expect(found == status, "boxfs \(arguments.joined(separator: " ")): \(output)", sourceLocation: location)
        return output
    }

    private func lines(_ text: String) -> [String] { text.split(separator: "\n").map(String.init) }

    private func text(_ mount: Mount, _ name: String) -> String? { mount.read(name).map { String(decoding: $0, as: UTF8.self) } }

    private func write(_ mount: Mount, _ name: String, _ text: String) throws {
        try mount.write(name, Array(text.utf8))
        try mount.flush()
    }

    @Test func versionsComeBackInEveryMount() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        _ = try command(one, ["settings", "--version-every", "0s", "--mount", one.path])
        try write(one, "note", "first\n")
        try write(one, "note", "second\n")
        try eventually("two has it") { text(two, "note") == "second\n" }
        let history = lines(try command(one, ["history", one("note")]))
        try #require(history.count == 2 && history[0].contains("current"))
        let first = String(history[1].prefix(36))
        #expect(try command(one, ["cat", one("note"), "--version", first]) == "first\n")
        #expect(try command(one, ["cat", one("note")]) == "second\n")
        let difference = try command(one, ["diff", one("note"), "--version", first], status: 1)
        #expect(difference.contains("-first\n+second\n"))
        _ = try command(one, ["history", one("note"), "--version", String(first.suffix(6)), "--name", "draft"])
        #expect(try command(one, ["restore", one("note"), "--version", "draft"]).hasPrefix("1 file restored"))
        for mount in [one, two] { try eventually("\(mount.path) shows it") { text(mount, "note") == "first\n" } }
        _ = try command(one, ["restore", one("note"), "--version", String(history[0].prefix(36)), "--to", one("copy")])
        try eventually("the new file is there") { text(two, "copy") == "second\n" }
        #expect(lines(try command(two, ["history", two("note")])).count == 3)
        _ = try command(one, ["restore", one("note"), "--version", "no such"], status: 1)
        // Saved by renaming a new file over it, as editors do.
        try one.write("note.tmp", Array("saved\n".utf8))
        #expect(rename(one("note.tmp"), one("note")) == 0)
        try one.flush()
        try eventually("two has the save") { text(two, "note") == "saved\n" }
        #expect(lines(try command(two, ["history", two("note")])).count == 4)
        // Binary files only differ.
        try write(one, "data", "\0\u{1}\u{2}")
        try write(one, "data", "\0\u{1}\u{3}")
        #expect(try command(one, ["diff", one("data")], status: 1).contains("differ"))
        #expect(try drive.fsck().status == 0)
    }

    @Test func trashAndFoldersComeBackInEveryMount() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        try FileManager.default.createDirectory(atPath: one("folder/deep"), withIntermediateDirectories: true)
        try one.write("folder/deep/a", Array("a".utf8))
        try write(one, "folder/b", "b")
        try eventually("two has it") { text(two, "folder/deep/a") == "a" && text(two, "folder/b") == "b" }
        usleep(50_000)
        let time = "@\(Date().timeIntervalSince1970)"
        usleep(50_000)
        #expect(try run("/bin/rm", ["-r", one("folder")]).status == 0)
        try one.flush()
        try eventually("two lost it") { !FileManager.default.fileExists(atPath: two("folder")) }
        let listed = lines(try command(one, ["trash", "list", "--mount", one.path]))
        #expect(listed.count == 1 && listed[0].hasSuffix("folder/"))
        #expect(lines(try command(one, ["trash", "list", "--all", "--mount", one.path])).count == 4)
        // One file of it: its folders come back too.
        let answer = try command(one, ["trash", "restore", one("folder/deep/a"), "--mount", one.path])
        #expect(answer.contains("is back"))
        for mount in [one, two] {
            try eventually("\(mount.path) has the file") { text(mount, "folder/deep/a") == "a" }
            #expect(try mount.names("folder") == ["deep"])
        }
        try write(one, "folder/deep/a", "changed")
        try write(one, "folder/new", "new")
        #expect(try command(one, ["restore", one("folder"), "--at", time]).contains("1 moved to the trash"))
        for mount in [one, two] {
            try eventually("\(mount.path) shows the folder as it was") { text(mount, "folder/deep/a") == "a" && text(mount, "folder/b") == "b" }
            try eventually("\(mount.path) lost the new file") { try mount.names("folder") == ["b", "deep"] }
        }
        _ = try command(one, ["trash", "purge", "--all", "--mount", one.path])
        #expect(try command(one, ["trash", "list", "--mount", one.path]) == "")
        #expect(try drive.fsck().status == 0)
    }

    /// A command's threads are still there when it ends.
    @Test func commandsEndCleanlyEachTime() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one")
        try write(one, "file", "x")
        #expect(unlink(one("file")) == 0)
        try one.flush()
        for _ in 0..<100 { #expect(lines(try command(one, ["trash", "list", "--mount", one.path])).count == 1) }
    }

    @Test func aMassDeletionIsSaidAndUndone() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        try FileManager.default.createDirectory(atPath: one("many"), withIntermediateDirectories: true)
        // More than a page of the feed.
        for index in 0..<1100 { try one.write("many/f\(index)", Array("\(index)".utf8)) }
        try one.flush()
        try eventually("two has them") { (try? two.names("many").count) == 1100 }
        #expect(try run("/bin/rm", ["-rf", one("many")]).status == 0)
        try one.flush()
        try eventually("two lost them") { !FileManager.default.fileExists(atPath: two("many")) }
        let events = lines(try command(one, ["undo", "list", "--mount", one.path]))
        try #require(events.count == 1)
        #expect(events[0].contains("1100 files removed in many"))
        #expect(try command(two, ["status", two.path]).contains("ATTENTION"))
        #expect(try command(two, ["undo", String(events[0].prefix(36)), "--mount", two.path]).hasPrefix("1100 files restored"))
        for mount in [one, two] {
            try eventually("\(mount.path) has them again") { (try? mount.names("many").count) == 1100 }
            #expect(text(mount, "many/f17") == "17")
        }
        #expect(try !command(one, ["status", one.path]).contains("ATTENTION"))
        #expect(try drive.fsck().status == 0)
    }

    /// Two mounts edit one text while the server is away: different lines merge, the same lines become a copy that is resolved.
    @Test func editsMadeApartMergeOrBecomeCopies() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        let poem = (1...9).map { "line \($0)\n" }.joined()
        try one.write("note.txt", Array("base\n".utf8))
        try write(one, "poem", poem)
        try eventually("two has them") { text(two, "poem") == poem && text(two, "note.txt") == "base\n" }
        drive.stopServer()
        for (mount, line, name) in [(one, "line 2\n", "one"), (two, "line 8\n", "two")] {
            try mount.write("poem", Array(poem.replacingOccurrences(of: line, with: "by \(name)\n").utf8))
            try mount.write("note.txt", Array("by \(name)\n".utf8))
        }
        try drive.startServer()
        try one.flush()
        try two.flush()
        let merged = poem.replacingOccurrences(of: "line 2\n", with: "by one\n").replacingOccurrences(of: "line 8\n", with: "by two\n")
        for mount in [one, two] {
            try eventually("\(mount.path) has the merge") { text(mount, "poem") == merged }
            try eventually("\(mount.path) has the copy") { try mount.names().count == 3 }
        }
        #expect(try command(one, ["history", one("poem")]).contains("merge of"))
        // Whichever came second has the copy: on that mount it is "mine".
        let kept = text(one, "note.txt")
        let loser = kept == "by one\n" ? two : one
        #expect(try command(loser, ["conflicts", "--mount", loser.path]).contains("(mine)"))
        _ = try command(loser, ["resolve", loser("note.txt"), "--keep", "mine"])
        for mount in [one, two] {
            try eventually("\(mount.path) has what was kept") { text(mount, "note.txt") == (kept == "by one\n" ? "by two\n" : "by one\n") }
            try eventually("\(mount.path) lost the copy") { try mount.names() == ["note.txt", "poem"] }
        }
        #expect(try command(one, ["conflicts", "--mount", one.path]) == "")
        #expect(try drive.fsck().status == 0)
    }

    /// Real programs save a file that was moved and edited elsewhere while they were away: sed by a rename, vim, which moves the old file
    /// aside, and one that writes into the file.
    @Test func editsOfAMovedFileGoWhereItIs() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        let poem = (1...9).map { "line \($0)\n" }.joined(), names = ["sed", "vim", "shell"]
        #expect(mkdir(one("archive"), 0o755) == 0)
        for name in names { try one.write(name, Array(poem.utf8)) }
        try one.flush()
        for name in names { try eventually("two has \(name)") { text(two, name) == poem } }
        _ = try two.names("archive")
        try two.unmount()
        for name in names {
            #expect(rename(one(name), one("archive/moved " + name)) == 0)
            try write(one, "archive/moved " + name, poem.replacingOccurrences(of: "line 2\n", with: "by one\n"))
        }
        drive.stopServer()
        try two.start()
        for name in names { #expect(text(two, name) == poem) }
        #expect(try run("sed", ["-i", "s/line 8/by two/", two("sed")]).status == 0)
        #expect(try run("vim", ["-u", "NONE", "-N", "-es", "-c", "set backupcopy=no writebackup", "-c", "8s/.*/by two/", "-c", "wq", two("vim")]).status == 0)
        try two.write("shell", Array(poem.replacingOccurrences(of: "line 8\n", with: "by two\n").utf8))
        try drive.startServer()
        try two.flush()
        let merged = poem.replacingOccurrences(of: "line 2\n", with: "by one\n").replacingOccurrences(of: "line 8\n", with: "by two\n")
        for mount in [one, two] {
            for name in names { try eventually("\(mount.path) has the merge of \(name)") { text(mount, "archive/moved " + name) == merged } }
            try eventually("nothing is left of the old names") { try mount.names() == ["archive"] }
            #expect(try mount.names("archive") == names.map { "moved " + $0 }.sorted())
        }
        for name in names {
            let history = try command(one, ["history", one("archive/moved " + name)])
            #expect(history.contains("merge of") && lines(history).count >= 3, "\(history)")
        }
        #expect(try drive.fsck().status == 0)
    }
}
