import Glibc
import Testing
@testable import BoxFS

@Suite struct CommandMountTableTests {
    static let text = """
        22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
        30 22 0:30 / /proc rw - proc proc rw
        41 22 0:40 / /home/ada/Box rw,nosuid,nodev - fuse.boxfs boxfs rw,user_id=1000,group_id=1000,default_permissions
        42 22 0:41 / /home/ada/My\\040Box\\134 rw shared:5 master:2 - fuse.boxfs boxfs rw,user_id=1000,group_id=1000
        43 41 0:42 / /home/ada/Box/tmp rw - tmpfs tmpfs rw
        broken line
        44 22 0:43 / /home/ada/Boxes rw - fuse.sshfs host rw,user_id=1000
        """
    let table = MountTable(mountinfo: text)

    @Test func `lines are read, escapes undone, broken ones passed over`() {
        #expect(table.mounts.count == 6)
        #expect(table.mounts.filter(\.isBoxFS).map(\.mountPoint) == ["/home/ada/Box", "/home/ada/My Box\\"])
        #expect(table.mount(at: "/home/ada/Box")?.user == 1000)
        #expect(table.mount(at: "/home/ada/Box")?.minor == "40")
    }

    @Test(arguments: [
        ("/home/ada/Box", "/home/ada/Box"), ("/home/ada/Box/a/b", "/home/ada/Box"), ("/home/ada/Box/tmp/x", "/home/ada/Box/tmp"),
        ("/home/ada/Boxes/x", "/home/ada/Boxes"), ("/home/ada/Boxer", "/"), ("/home/ada/My Box\\/x", "/home/ada/My Box\\"),
    ])
    func `a path lies in the innermost mount`(path: String, mountPoint: String) {
        #expect(table.mount(containing: path)?.mountPoint == mountPoint)
    }

    @Test func `paths lose their links, and the last part may be missing`() throws {
        let folder = TestFolder()
        mkdir(folder / "real", 0o755)
        symlink("real", folder / "link")
        #expect(try AbsolutePath.resolve(folder / "link") == folder / "real")
        #expect(try AbsolutePath.resolve(folder / "link/") == folder / "real")
        #expect(try AbsolutePath.resolve(folder / "link/none") == folder / "real/none")
        #expect(throws: CommandFailure.self) { try AbsolutePath.resolve(folder / "none/none") }
        #expect(throws: CommandFailure.self) { try AbsolutePath.resolve("") }
    }

    @Test func `a mount point must be an empty folder`() throws {
        let folder = TestFolder()
        let missing = #expect(throws: CommandFailure.self) { try MountPoint.prepare(folder / "none") }
        #expect(missing?.description.contains("mkdir -p") == true)
        try PrivateFile.write([1], to: folder / "file")
        #expect(throws: CommandFailure.self) { try MountPoint.prepare(folder / "file") }
        #expect(throws: CommandFailure.self) { try MountPoint.prepare(folder.path) }
        mkdir(folder / "empty", 0o755)
        #expect(try MountPoint.prepare(folder / "empty/") == folder / "empty")
    }
}
