import ArgumentParser
import Testing
@testable import BoxFS

/// What people type: sizes, addresses, names, whole command lines.
@Suite struct CommandArgumentTests {
    @Test(arguments: [
        ("10GiB", UInt64(10) << 30), ("10G", 10 << 30), ("10g", 10 << 30), ("500MB", 500_000_000), ("1.5KiB", 1536), ("0", 0),
        ("4096", 4096), ("64 MiB", 64 << 20), ("2TiB", 2 << 40), ("7b", 7),
    ])
    func `sizes are read`(text: String, bytes: UInt64) {
        #expect(ByteCount(argument: text)?.bytes == bytes)
    }

    @Test(arguments: ["", "GiB", "-1", "1e3", "10 apples", "1.2.3", "99999999TiB", "nan", "٣"])
    func `other words are no sizes`(text: String) {
        #expect(ByteCount(argument: text) == nil)
    }

    @Test(arguments: [
        (UInt64(0), "0 B"), (812, "812 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (10 << 30, "10 GiB"), (1_020_000, "996 KiB"), (UInt64.max, "16384 PiB"),
    ])
    func `sizes are shown`(bytes: UInt64, text: String) {
        #expect(ByteCount(bytes: bytes).description == text)
    }

    @Test(arguments: [
        ("https://Drive.Example.org/", "https://drive.example.org", true, false), ("http://127.0.0.1:8420", "http://127.0.0.1:8420", false, true),
        ("http://[::1]:8420/", "http://[::1]:8420", false, true), ("https://host/under/path//", "https://host/under/path", true, false),
    ])
    func `server addresses are made uniform`(text: String, uniform: String, isEncrypted: Bool, isLoopback: Bool) throws {
        let address = try #require(ServerAddress(argument: text))
        #expect(address.description == uniform)
        #expect(address.isEncrypted == isEncrypted)
        #expect(address.isLoopback == isLoopback)
    }

    @Test(arguments: ["drive.example.org", "ftp://x", "http://", "http://ada:secret@x", "http://x?y", "http://x#y", "http://x:0", "http://x:70000", ""])
    func `other addresses are refused`(text: String) {
        #expect(ServerAddress(argument: text) == nil)
    }

    @Test(arguments: ["default", "work-2", "a.b_c"]) func `profile names`(text: String) { #expect(ProfileName(text) != nil) }

    /// A profile's name becomes a file's name.
    @Test(arguments: ["", ".", "..", ".hidden", "a/b", "../x", "ä", "a b", String(repeating: "a", count: 65)])
    func `names that are no file names are refused`(text: String) { #expect(ProfileName(text) == nil) }

    @Test(arguments: [
        ["login", "http://x", "--user", "ada", "--password-stdin"], ["logout"], ["umount", "d", "--now"], ["status"], ["status", "d", "--json"],
        ["flush", "p"], ["cache", "drop", "d"], ["doctor", "--json"], ["completions", "fish"],
        ["mount", "d", "--cache-dir", "c", "--cache-size", "1GiB", "--durability", "server", "--deadline", "5", "--posix-owners", "--allow-other", "--foreground", "--profile", "p", "--upload-limit", "1M", "--download-limit", "1M"],
    ])
    func `the command line's names are the interface`(words: [String]) throws {
        _ = try BoxFSCommand.parseAsRoot(words)
    }

    @Test(arguments: [
        ["mount"], ["mount", "d", "--cache-size", "1KiB"], ["mount", "d", "--deadline", "0"], ["mount", "d", "--deadline", "nan"],
        ["mount", "d", "--durability", "some"], ["mount", "d", "--upload-limit", "1"], ["login", "http://x"], ["nonsense"],
    ])
    func `wrong command lines are refused with status 64`(words: [String]) {
        do {
            _ = try BoxFSCommand.parseAsRoot(words)
            Issue.record("accepted: \(words)")
        } catch {
            #expect(BoxFSCommand.exitCode(for: error).rawValue == ExitStatus.usage.rawValue)
        }
    }

    @Test(arguments: ["bash", "zsh", "fish"]) func `there are completions`(shell: String) throws {
        let script = BoxFSCommand.completionScript(for: try #require(CompletionShell(rawValue: shell)))
        #expect(script.contains("umount"))
        // What is hidden from people is hidden from completion.
        #expect(!script.contains("report-descriptor"))
    }
}
