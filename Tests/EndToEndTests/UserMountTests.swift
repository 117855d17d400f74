import Foundation
import Glibc
import Testing

/// The mount as an ordinary user, through fusermount3, in a name space of its own in which everyone may open /dev/fuse (as udev
/// has it on a desktop).
@Suite(.serialized) struct UserMountTests {
    @Test func anOrdinaryUserMountsWorksAndUnmounts() throws {
        let drive = try Drive()
        defer { drive.end() }
        let answer = try asNobody(drive, """
            trap 'boxfs umount --now "$HOME/Box" 2> /dev/null || true' EXIT
            boxfs mount "$HOME/Box"
            grep -q " $HOME/Box .*user_id=65534" /proc/self/mountinfo
            cd /; echo hello > "$HOME/Box/file"; mkdir "$HOME/Box/folder"; mv "$HOME/Box/file" "$HOME/Box/folder/"
            test "$(cat "$HOME/Box/folder/file")" = hello
            test "$(stat -c %u:%g "$HOME/Box/folder/file")" = 65534:65534
            # A write takes set-user-ID away, here and on the server; what is not permitted is refused.
            cp /bin/true "$HOME/Box/tool"; chmod 6755 "$HOME/Box/tool"; test "$(stat -c %a "$HOME/Box/tool")" = 6755
            echo more >> "$HOME/Box/tool"
            for i in $(seq 40); do test "$(stat -c %a "$HOME/Box/tool")" = 755 && break; sleep 0.05; done
            test "$(stat -c %a "$HOME/Box/tool")" = 755
            chmod 444 "$HOME/Box/tool"; (echo more >> "$HOME/Box/tool") 2> /dev/null && exit 1
            chmod 555 "$HOME/Box/folder"; touch "$HOME/Box/folder/new" 2> /dev/null && exit 1
            chmod 000 "$HOME/Box/folder"; cat "$HOME/Box/folder/file" 2> /dev/null && exit 1
            chmod 755 "$HOME/Box/folder"
            boxfs status "$HOME/Box"
            boxfs flush "$HOME/Box"
            # In use: told at once, by itself and by what it says.
            exec 5< "$HOME/Box/folder/file"
            set +e; boxfs umount "$HOME/Box" 2> "$HOME/busy"; echo "busy $?"; set -e
            grep -q "in use" "$HOME/busy"
            exec 5<&-
            (cd "$HOME/Box/folder"; set +e; boxfs umount "$HOME/Box" 2> /dev/null; echo "working there $?")
            boxfs umount "$HOME/Box"
            grep " $HOME/Box " /proc/self/mountinfo && exit 1
            ls -A "$HOME/Box"
            boxfs mount "$HOME/Box"
            test "$(cat "$HOME/Box/folder/file")" = hello
            # A mount process that died is cleaned up by the next command.
            kill -9 "$(pgrep -u 65534 -f "mount $HOME/Box" | head -1)"; sleep 0.3
            boxfs umount "$HOME/Box" 2>&1
            grep " $HOME/Box " /proc/self/mountinfo && exit 1
            echo finished
            """)
        #expect(answer.status == 0 && answer.output.contains("\nfinished\n"), "\(answer.output)")
        #expect(answer.output.contains("\nbusy 6\n") && answer.output.contains("\nworking there 6\n"), "\(answer.output)")
        #expect(try drive.fsck().status == 0)
    }

    @Test func whatFusermountSaysReachesTheUser() throws {
        let drive = try Drive()
        defer { drive.end() }
        let foreign = drive.root + "/foreign"
        try FileManager.default.createDirectory(atPath: foreign, withIntermediateDirectories: true)
        let answer = try asNobody(drive, """
            set +e
            boxfs mount '\(foreign)' 2>&1; echo "status $?"
            boxfs mount "$HOME/Box" --allow-other 2>&1; echo "status $?"
            boxfs mount "$HOME/Box" --foreground --allow-other 2>&1; echo "status $?"
            boxfs mount "$HOME/Box" && boxfs umount "$HOME/Box" && echo finished
            """)
        #expect(answer.output.contains("\nfinished\n"), "\(answer)")
        #expect(answer.output.components(separatedBy: "\nstatus 1\n").count == 4, "\(answer.output)")
        #expect(answer.output.contains("user has no write access to mountpoint \(foreign)"), "\(answer.output)")
        #expect(answer.output.contains("option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf"), "\(answer.output)")
    }

    /// Runs a script as user 65534 with a home of its own, logged in.
    private func asNobody(_ drive: Drive, _ script: String) throws -> (status: Int32, output: String) {
        let home = drive.root + "/nobody"
        try FileManager.default.createDirectory(atPath: home + "/Box", withIntermediateDirectories: true)
        let path = drive.root + "/script"
        try """
            set -e
            echo "secret of ann" | boxfs login \(drive.url) --user ann --password-stdin
            \(script)
            """.write(toFile: path, atomically: true, encoding: .utf8)
        return try run("unshare", ["--mount", "--propagation", "private", "sh", "-ec", """
            cp -a /dev/fuse "$ROOT/fuse" && chmod 666 "$ROOT/fuse" && mount --bind "$ROOT/fuse" /dev/fuse
            chown -R 65534:65534 "$HOME"
            exec setpriv --reuid=65534 --regid=65534 --clear-groups timeout -k 5 60 bash -x "$ROOT/script"
            """], environment: [
                "ROOT": drive.root, "HOME": home, "PATH": Drive.binaries + ":/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C",
                "XDG_STATE_HOME": home + "/state", "XDG_CONFIG_HOME": home + "/config", "XDG_RUNTIME_DIR": home,
            ])
    }
}
