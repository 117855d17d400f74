import Foundation
import Glibc
import Testing

/// Programs that people use, doing their work in a mount; scripts/install-packages brings them.
@Suite(.serialized) struct SoftwareTests {
    @Test func anEditorACompilerAndVersionControl() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        try work(mount, """
            mkdir project; cd project
            printf 'int twice(int x) { return 2 * x; }\\n' > twice.c
            printf '#include <stdio.h>\\nint twice(int);\\nint main(void) { printf("%%d\\\\n", twice(21)); return 0; }\\n' > main.c
            printf 'program: main.o twice.o\\n\\tgcc -o $@ $^\\n%%.o: %%.c\\n\\tgcc -c -O2 -o $@ $<\\n' > Makefile
            make -j2 > /dev/null; test "$(./program)" = 42
            # A swap file, a backup file and a renamed new one, as editors write.
            vim -es -u NONE -c 'set backupskip= backup writebackup swapfile updatecount=1' -c '%s/2 \\* x/3 * x/' -c 'wq' twice.c || true
            grep -q '3 \\* x' twice.c; grep -q '2 \\* x' twice.c~
            test -z "$(ls -A | grep '\\.sw')"
            make > /dev/null; test "$(./program)" = 63
            make -q
            cd ..
            export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
            git init -q repository; cd repository
            cp ../project/*.c ../project/Makefile .
            for i in $(seq 60); do echo "line $i" > "file$i"; done
            git add .; git commit -qm first
            for i in $(seq 20); do echo "more $i" >> file1; git commit -qam "change $i"; done
            git branch side HEAD~5; git checkout -q side; echo side > side; git add side; git commit -qm side; git checkout -q -
            git merge -q --no-edit side > /dev/null
            cd ..; git clone -q repository clone; cd clone
            git gc -q --prune=now; git fsck --full --strict 2>&1
            test -z "$(git status --porcelain)"; test "$(git log --oneline | wc -l)" = 23
            cd ../repository; git gc -q --aggressive --prune=now; git fsck --full --strict 2>&1; git stash list
            """)
        try sameThroughASecondMount(drive, mount)
    }

    @Test func anArchiveAndASynchronizedFolder() throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        try work(mount, """
            tar -C /usr/include -cf "$LOCAL/archive.tar" linux
            mkdir tree; tar -C tree -xf "$LOCAL/archive.tar"
            diff -r --no-dereference tree/linux /usr/include/linux
            tar -C tree -df "$LOCAL/archive.tar"
            mkdir copy
            rsync -a --stats tree/ copy/ | grep 'files transferred'
            test "$(rsync -ai tree/ copy/ | wc -l)" = 0
            touch -d '2020-01-01 00:00:00.123456789' copy/linux/fs.h; echo more >> tree/linux/fuse.h; rm tree/linux/btrfs.h
            rsync -ai --delete tree/ copy/ | grep -c 'fs.h\\|fuse.h' | grep -qx 3
            test "$(rsync -ai --delete tree/ copy/ | wc -l)" = 0
            rsync -ac --inplace --delete tree/ copy/; diff -r tree copy
            """)
        try sameThroughASecondMount(drive, mount)
    }

    @Test(arguments: ["delete", "wal"])
    func aDatabaseSurvivesTheDeathOfItsProgram(journal: String) throws {
        let drive = try Drive()
        defer { drive.end() }
        let mount = try drive.mount("one")
        try work(mount, """
            sqlite3 base "PRAGMA journal_mode = \(journal); CREATE TABLE t (n INTEGER PRIMARY KEY, text); INSERT INTO t VALUES (0, 'first');" | grep -qx \(journal)
            for round in 1 2 3; do
                # 20 transactions of 50 rows, and one that never ends and is too long for the memory.
                rows="WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < %d) SELECT hex(randomblob(500)) FROM c"
                mkfifo "$LOCAL/input$round"
                sqlite3 base < "$LOCAL/input$round" > "$LOCAL/output$round" & writer=$!
                exec 6> "$LOCAL/input$round"
                for i in $(seq 20); do printf "BEGIN; INSERT INTO t (text) $rows; COMMIT;\n" 50 >&6; done
                printf "PRAGMA cache_size = 10; BEGIN; INSERT INTO t (text) $rows; SELECT 'ready';\n" 5000 >&6
                for try in $(seq 200); do grep -q ready "$LOCAL/output$round" && break; sleep 0.05; done
                kill -9 $writer; exec 6>&-; wait $writer 2> /dev/null || true
                grep -q ready "$LOCAL/output$round"
                test "$(sqlite3 base 'PRAGMA integrity_check')" = ok
                test "$(sqlite3 base 'SELECT count(*) FROM t')" = $((1 + round * 1000))
            done
            sqlite3 base 'SELECT count(*) FROM t'
            """)
        mount.killProcess()
        mount.kill()
        try mount.start()
        try work(mount, "test \"$(sqlite3 base 'PRAGMA integrity_check')\" = ok; sqlite3 base 'PRAGMA wal_checkpoint(TRUNCATE)' > /dev/null; sqlite3 base .sha3sum > /dev/null")
        try sameThroughASecondMount(drive, mount)
    }

    /// Runs a script in the mount; each of its commands must succeed. `$LOCAL` is a folder on the local disk.
    private func work(_ mount: Mount, _ script: String) throws {
        let local = mount.home + "/local"
        try FileManager.default.createDirectory(atPath: local, withIntermediateDirectories: true)
        let environment = mount.environment.merging(["LOCAL": local, "LC_ALL": "C"]) { $1 }
        let answer = try run("bash", ["-ex", "-o", "pipefail", "-c", "cd \"$1\"\n" + script, "bash", mount.path], environment: environment)
        #expect(answer.status == 0, "\(answer.output.suffix(3000))")
    }

    private func sameThroughASecondMount(_ drive: Drive, _ mount: Mount) throws {
        try mount.flush()
        let two = try drive.mount("two")
        let compared = try run("diff", ["-r", "--no-dereference", mount.path, two.path])
        #expect(compared.status == 0, "\(compared.output.suffix(3000))")
        let fsck = try drive.fsck()
        #expect(fsck.status == 0, "\(fsck.output)")
    }
}
