import Glibc
import Shared
import Testing
@testable import BoxFS

@Suite struct CommandProfileTests {
    let folder = TestFolder()
    var folders: Folders { Folders(environment: ["HOME": folder.path]) }

    func makeProfile() -> Profile {
        Profile(server: "http://127.0.0.1:1", user: "ada", account: .make(), home: .make(), device: .make(), token: "secret")
    }

    @Test func `what is saved is loaded, readable by its owner alone`() throws {
        let profile = makeProfile()
        try profile.save(.standard, in: folders)
        #expect(try Profile.load(.standard, from: folders) == profile)
        #expect(TestFolder.mode(folder / ".config/boxfs/default.json") == 0o600)
        #expect(TestFolder.mode(folder / ".config/boxfs") == 0o700)
    }

    @Test func `a profile that others may read is refused`() throws {
        try makeProfile().save(.standard, in: folders)
        chmod(folder / ".config/boxfs/default.json", 0o640)
        let failure = #expect(throws: CommandFailure.self) { try Profile.load(.standard, from: folders) }
        #expect(failure?.description.contains("chmod 600") == true)
    }

    @Test func `no profile is "not logged in"`() throws {
        let failure = #expect(throws: CommandFailure.self) { try Profile.load(ProfileName("other")!, from: folders) }
        #expect(failure?.status == .notLoggedIn)
        #expect(failure?.description.contains("--profile other") == true)
    }

    @Test func `a damaged profile is a sentence, not a crash`() throws {
        try makeProfile().save(.standard, in: folders)
        for damage in ["", "{", "[]", "{\"format\":2}", "\u{0}"] {
            try PrivateFile.write(Array(damage.utf8), to: Profile.path(.standard, in: folders))
            #expect(throws: CommandFailure.self) { try Profile.load(.standard, from: folders) }
        }
    }

    @Test func `folders follow XDG, and relative values are ignored as it asks`() {
        let folders = Folders(environment: ["HOME": "/home/ada", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "relative", "XDG_RUNTIME_DIR": "/r"], user: 4242)
        #expect(folders.configuration == "/c/boxfs")
        #expect(folders.state == "/home/ada/.local/state/boxfs")
        #expect(folders.runtime == ["/r/boxfs", "/run/user/4242/boxfs", "/home/ada/.local/state/boxfs/running"])
    }

    @Test func `each account and each mount point has a state folder of its own`() {
        let (one, two) = (AccountID.make(), AccountID.make())
        let paths = [(one, "/a"), (one, "/b"), (two, "/a")].map {
            StateFolder.standardPath(folders, profile: .standard, account: $0.0, mountPoint: $0.1)
        }
        #expect(Set(paths).count == 3)
        #expect(paths[0] == StateFolder.standardPath(folders, profile: .standard, account: one, mountPoint: "/a"))
    }

    @Test func `a state folder has one user at a time`() throws {
        let path = folder / "state/deep"
        #expect(!StateFolder.isInUse(path))
        do {
            let held = try StateFolder(path)
            #expect(StateFolder.isInUse(path))
            #expect(TestFolder.mode(path) == 0o700)
            let failure = #expect(throws: CommandFailure.self) { _ = try StateFolder(path) }
            #expect(failure?.status == .busy)
            #expect(failure?.description.contains("\(getpid())") == true)
            _ = consume held
        }
        #expect(!StateFolder.isInUse(path))
        _ = try StateFolder(path)
    }
}
