import CXattr
import Foundation
import Glibc
import Testing
import TestSupport

/// `.boxfs/versions`: what ordinary tools see of older versions.
@Suite struct VersionsFolderTests {
    @Test func olderVersionsAreReadAsFiles() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        #expect(try one.boxfs(["settings", "--version-every", "0s", "--mount", one.path]).status == 0)
        #expect(mkdir(one("docs"), 0o755) == 0 && symlink("note.txt", one("docs/link")) == 0)
        var random = SeededGenerator("versions folder")
        let texts = ["first\n", "second, longer\n"], data = [random.bytes(5 << 20), random.bytes(9 << 20)]
        for round in 0..<2 {
            try one.write("docs/note.txt", Array(texts[round].utf8))
            try one.write("docs/data", data[round])
            try one.flush()
        }
        try eventually("two has it") { two.read("docs/note.txt") == Array(texts[1].utf8) }
        for mount in [one, two] {
            #expect(try mount.names() == ["docs"], "hidden")
            #expect(try mount.names(".boxfs") == ["versions"] && mount.names(".boxfs/versions") == ["docs"])
            #expect(try mount.names(".boxfs/versions/docs") == ["data", "note.txt"])
            let notes = try mount.names(".boxfs/versions/docs/note.txt").map { ".boxfs/versions/docs/note.txt/" + $0 }
            #expect(notes.allSatisfy { $0.hasSuffix(".txt") })
            #expect(Set(notes.map { mount.read($0) }) == Set(texts.map { Array($0.utf8) }))
            let files = try mount.names(".boxfs/versions/docs/data").map { ".boxfs/versions/docs/data/" + $0 }
            #expect(Set(files.map { mount.read($0) }) == Set(data))
            var status = stat()
            #expect(stat(mount(notes[0]), &status) == 0 && status.st_mode == S_IFREG | 0o444 && texts.contains { $0.utf8.count == status.st_size })
        }
        // The end of the name is what `boxfs restore --version` takes.
        let older = try #require(try two.names(".boxfs/versions/docs/note.txt").first { two.read(".boxfs/versions/docs/note.txt/" + $0) == Array(texts[0].utf8) })
        let found = try run("sh", ["-c", "cd '\(two.path)' && find . -name '*.txt' && cp .boxfs/versions/docs/note.txt/\(older) back && cat back && grep -rl longer .boxfs/versions/docs/note.txt | wc -l"])
        #expect(found.status == 0 && found.output == "./docs/note.txt\nfirst\n1\n", "\(found.output)")
        #expect(try two.boxfs(["restore", two("docs/note.txt"), "--version", String(older.dropLast(4).suffix(12))]).status == 0)
        try eventually("it is restored") { one.read("docs/note.txt") == Array(texts[0].utf8) }
        try eventually("and that is a version as well") { try one.names(".boxfs/versions/docs/note.txt").count == 3 }
        #expect(try drive.fsck().status == 0)
    }

    /// What is in the trash is there too, whole folders of it, for every mount; what took its name comes first.
    @Test func removedFilesAreReadAsFiles() throws {
        let drive = try Drive()
        defer { drive.end() }
        let one = try drive.mount("one"), two = try drive.mount("two")
        func text(_ mount: Mount, _ folder: String) throws -> [String] {
            try mount.names(".boxfs/versions/" + folder).compactMap { mount.read(".boxfs/versions/\(folder)/\($0)").map { String(decoding: $0, as: UTF8.self) } }.sorted()
        }
        #expect(try one.boxfs(["settings", "--version-every", "0s", "--mount", one.path]).status == 0)
        try FileManager.default.createDirectory(atPath: one("docs/deep/er"), withIntermediateDirectories: true)
        #expect(symlink("note.txt", one("docs/link")) == 0)
        for round in ["first", "second"] {
            for name in ["docs/note.txt", "docs/deep/er/b", "stays"] { try one.write(name, Array("\(round) of \(name)".utf8)) }
            try one.flush()
        }
        try eventually("two has all") { two.read("docs/deep/er/b") == Array("second of docs/deep/er/b".utf8) }
        // The trash forgets after an hour what lived for less than a minute, not before.
        #expect(unlink(one("docs/note.txt")) == 0 && unlink(one("docs/link")) == 0)
        try one.flush()
        #expect(try run("/bin/rm", ["-r", one("docs/deep")]).status == 0)
        try one.flush()
        for mount in [one, two] {
            try eventually("\(mount.path) lost it") { try mount.names("docs").isEmpty }
            try eventually("but not its versions") { try mount.names(".boxfs/versions/docs") == ["deep", "note.txt"] }
            #expect(try text(mount, "docs/note.txt") == ["first of docs/note.txt", "second of docs/note.txt"])
            #expect(try text(mount, "docs/deep/er/b") == ["first of docs/deep/er/b", "second of docs/deep/er/b"])
            #expect(try mount.names(".boxfs/versions/docs/note.txt").allSatisfy { $0.hasSuffix(".txt") })
        }
        let found = try run("sh", ["-c", "cd '\(two.path)' && cat .boxfs/versions/docs/deep/er/b/* | wc -c && find .boxfs/versions -type f | wc -l"])
        #expect(found.status == 0 && found.output == "47\n6\n", "\(found.output)")
        // The name is taken again: the removed one is under another.
        try one.write("docs/note.txt", Array("anew".utf8))
        try one.flush()
        try eventually("both are there") {
            let names = try two.names(".boxfs/versions/docs")
            return names.count == 3 && names.contains("note.txt") && names.contains { $0.hasPrefix("note (removed 20") && $0.hasSuffix("Z).txt") }
        }
        #expect(try text(two, "docs/note.txt") == ["anew"])
        let other = try #require(try two.names(".boxfs/versions/docs").first { $0.hasPrefix("note (") })
        #expect(try text(two, "docs/" + other) == ["first of docs/note.txt", "second of docs/note.txt"])
        // Purged is gone.
        #expect(try one.boxfs(["trash", "purge", "--all", "--mount", one.path]).status == 0)
        try eventually("nothing is left of it") { try two.names(".boxfs/versions/docs") == ["note.txt"] }
        try eventually("nor by its path") { access(two(".boxfs/versions/docs/deep"), F_OK) == -1 && errno == ENOENT }
        #expect(try drive.fsck().status == 0)
    }

    @Test func nothingInItCanBeChanged() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        try mount.write("note", [1])
        try mount.flush()
        let folder = mount(".boxfs/versions/note"), file = folder + "/" + (try #require(try mount.names(".boxfs/versions/note").first))
        func refused(_ result: Int32, _ location: SourceLocation = #_sourceLocation) {
            let error = errno
            #expect(result == -1 && error == EROFS, "\(result), errno \(error)", sourceLocation: location)
        }
        refused(open(file, O_RDWR))
        refused(open(file, O_WRONLY | O_TRUNC))
        refused(open(folder + "/new", O_WRONLY | O_CREAT, 0o644))
        refused(truncate(file, 0))
        refused(chmod(file, 0o777))
        refused(unlink(file))
        refused(rename(file, mount("moved")))
        refused(rename(mount("note"), folder + "/note"))
        refused(mkdir(mount(".boxfs/new"), 0o755))
        refused(rmdir(mount(".boxfs")))
        refused(rename(mount(".boxfs"), mount("other")))
        #expect(mkdir(mount("empty"), 0o755) == 0)
        refused(rename(mount("empty"), mount(".boxfs")))
        refused(symlink("x", mount(".boxfs/versions/x")))
        refused(setxattr(file, "user.x", "1", 1, 0))
        #expect(mkdir(mount(".boxfs"), 0o755) == -1 && errno == EEXIST)
        #expect(mount.read(".boxfs/versions/note/" + (file as NSString).lastPathComponent) == [1])
        // What the server does not know yet has no versions, and without the server nobody waits for ever.
        try mount.unmount()
        try mount.start(["--deadline", "2"])
        drive.stopServer(SIGKILL)
        let start = Date()
        #expect((try? mount.names(".boxfs/versions/note")) == nil)
        #expect(Date().timeIntervalSince(start) < 6)
        #expect(try mount.names(".boxfs/versions") == ["empty", "note"])
    }
}
