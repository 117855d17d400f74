import CXattr
import Foundation
import Glibc
import Testing

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
        #expect(unlink(one("docs/data")) == 0)
        try eventually("a removed file's are in the trash") { access(one(".boxfs/versions/docs/data"), F_OK) != 0 && errno == ENOENT }
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
