"""Calls that change or follow names."""
import os
import socket
import stat
from ctypes import c_char_p, c_int, c_uint
from errno import *

from harness import check, fails, in_child, libc, Open, read, same, system, true, write

NOREPLACE, EXCHANGE = 1, 2


def renameat2(old, new, flags):
    system(libc.renameat2, c_int(-100), c_char_p(os.fsencode(old)), c_int(-100), c_char_p(os.fsencode(new)), c_uint(flags))


def linkat(old, new):
    """link(2) that follows symbolic links, which os.link does not."""
    system(libc.linkat, c_int(-100), c_char_p(os.fsencode(old)), c_int(-100), c_char_p(os.fsencode(new)), c_int(0x400))


@check
def rename_noreplace_refuses_what_exists():
    write("a", b"a"), write("b", b"b")
    os.mkdir("d")
    fails(EEXIST, renameat2, "a", "b", NOREPLACE)
    fails(EEXIST, renameat2, "a", "d", NOREPLACE)
    fails(EEXIST, renameat2, "a", "a", NOREPLACE)
    same((read("a"), read("b")), (b"a", b"b"))
    renameat2("a", "d/c", NOREPLACE)
    same(sorted(os.listdir(".")) + os.listdir("d"), ["b", "d", "c"])
    fails(ENOENT, renameat2, "a", "e", NOREPLACE)


@check
def rename_exchange_swaps_files():
    write("a", b"a"), write("b", b"bb")
    one, two = os.stat("a").st_ino, os.stat("b").st_ino
    renameat2("a", "b", EXCHANGE)
    same((read("a"), read("b")), (b"bb", b"a"))
    same((os.stat("a").st_ino, os.stat("b").st_ino), (two, one))
    renameat2("a", "a", EXCHANGE)
    same(read("a"), b"bb")


@check
def rename_exchange_swaps_a_file_and_a_folder_across_folders():
    os.makedirs("one/folder"), os.mkdir("two")
    write("one/folder/inside", b"x"), write("two/file", b"y")
    renameat2("one/folder", "two/file", EXCHANGE)
    same((read("one/folder"), read("two/file/inside")), (b"y", b"x"))
    same(os.stat("two/file/..").st_ino, os.stat("two").st_ino)


@check
def rename_exchange_refuses():
    os.makedirs("a/b/c")
    write("file")
    fails(ENOENT, renameat2, "file", "missing", EXCHANGE)
    fails(ENOENT, renameat2, "missing", "file", EXCHANGE)
    fails(EINVAL, renameat2, "a", "a/b/c", EXCHANGE)
    fails(EINVAL, renameat2, "a/b/c", "a", EXCHANGE)
    fails(EINVAL, renameat2, "a", "file", NOREPLACE | EXCHANGE)
    fails(EINVAL, renameat2, "a", "file", 1 << 7)


@check
def rename_refusals():
    os.makedirs("a/b")
    os.mkdir("empty"), os.mkdir("full")
    write("full/x"), write("file")
    fails(EINVAL, os.rename, "a", "a/b/c")
    fails(EINVAL, os.rename, "a", "a/c")
    fails((ENOTEMPTY, EEXIST), os.rename, "a", "full")
    fails((ENOTEMPTY, EEXIST), os.rename, "a/b", "a")
    fails(EISDIR, os.rename, "file", "empty")
    fails(ENOTDIR, os.rename, "a", "file")
    fails(ENOENT, os.rename, "missing", "other")
    fails(ENOENT, os.rename, "file", "missing/other")
    fails(ENOTDIR, os.rename, "file", "file/other")
    fails((EBUSY, EINVAL), os.rename, "a/.", "other")
    os.rename("a", "empty")
    same(os.listdir("empty"), ["b"])


@check
def rename_of_a_folder_moves_its_parent():
    os.makedirs("from/moved/below"), os.mkdir("to")
    number = os.stat("from/moved").st_ino
    os.rename("from/moved", "to/here")
    same(os.stat("to/here/..").st_ino, os.stat("to").st_ino)
    same(os.stat("to/here").st_ino, number)
    same(os.listdir("to/here") + os.listdir("from"), ["below"])


@check
def rename_between_links_of_one_file_does_nothing():
    write("a", b"1")
    os.link("a", "b")
    os.rename("a", "b")
    same((sorted(os.listdir(".")), os.stat("a").st_nlink), (["a", "b"], 2))


@check
def rename_over_an_open_file_leaves_the_reader_its_file():
    write("old", b"old"), write("new", b"new")
    with Open("old") as descriptor:
        os.rename("new", "old")
        same((os.pread(descriptor, 9, 0), read("old")), (b"old", b"new"))
        same(os.fstat(descriptor).st_nlink, 0)
        same(os.pwrite(descriptor, b"more", 3), 4)
        same(os.pread(descriptor, 9, 0), b"oldmore")
    same(read("old"), b"new")


@check
def rename_over_an_open_empty_folder():
    os.mkdir("old"), os.mkdir("new")
    write("new/x")
    with Open("old", os.O_RDONLY) as descriptor:
        os.rename("new", "old")
        same(os.listdir("old"), ["x"])
        fails(ENOENT, os.open, "y", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)


@check
def renamed_open_file_stays_writable():
    with Open("a") as descriptor:
        os.write(descriptor, b"1")
        os.rename("a", "b")
        os.write(descriptor, b"2")
        same(os.fstat(descriptor).st_nlink, 1)
    same(read("b"), b"12")


@check
def unlinked_open_file_lives_on():
    with Open("a") as descriptor:
        os.write(descriptor, b"abc")
        os.unlink("a")
        state = os.fstat(descriptor)
        same((state.st_nlink, state.st_size), (0, 3))
        os.ftruncate(descriptor, 1)
        os.pwrite(descriptor, b"Z", 5_000_000)
        same(os.pread(descriptor, 3, 0), b"a\0\0")
        same(os.pread(descriptor, 3, 4_999_999), b"\0Z")
        os.fchmod(descriptor, 0o600)
        same(stat.S_IMODE(os.fstat(descriptor).st_mode), 0o600)
        os.fsync(descriptor)
        fails(ENOENT, linkat, f"/proc/self/fd/{descriptor}", "back")
        write("a", b"another")
        same(os.pread(descriptor, 1, 0), b"a")
        true(os.fstat(descriptor).st_ino != os.stat("a").st_ino, "the numbers of two living files are the same")


@check
def removed_working_folder():
    os.mkdir("d")
    with Open("d", os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.chdir("d")
        os.rmdir("../d")
        fails(ENOENT, os.getcwd)
        fails(ENOENT, os.mkdir, "x")
        fails(ENOENT, os.open, "x", os.O_CREAT | os.O_WRONLY, 0o644)
        fails(ENOENT, os.symlink, "a", "x")
        same(os.listdir(descriptor), [])
        same(os.fstat(descriptor).st_nlink, 0)


@check
def rmdir_refusals():
    os.makedirs("a/b")
    write("file")
    os.symlink("a", "link")
    fails((ENOTEMPTY, EEXIST), os.rmdir, "a")
    fails(ENOTDIR, os.rmdir, "file")
    fails(ENOTDIR, os.rmdir, "link")
    fails(EINVAL, os.rmdir, "a/.")
    fails((ENOTEMPTY, EEXIST), os.rmdir, "a/b/..")
    fails(ENOENT, os.rmdir, "missing")
    fails(EISDIR, os.unlink, "a")
    fails(ENOTDIR, os.unlink, "file/")
    fails(EEXIST, os.mkdir, "a")
    fails(EEXIST, os.mkdir, "link")


@check
def hard_links():
    write("a", b"1")
    os.mkdir("d")
    os.link("a", "d/b")
    os.link("a", "c")
    same([os.stat(name).st_nlink for name in ("a", "d/b", "c")], [3, 3, 3])
    same(os.stat("a").st_ino, os.stat("d/b").st_ino)
    write("d/b", b"22")
    same((read("a"), os.stat("c").st_size), (b"22", 2))
    fails(EEXIST, os.link, "a", "c")
    fails(EPERM, os.link, "d", "e")
    fails(ENOENT, os.link, "missing", "e")
    os.unlink("a")
    same((os.stat("c").st_nlink, read("c")), (2, b"22"))
    os.rename("c", "d/b")
    same(sorted(os.listdir(".")), ["c", "d"])
    os.unlink("c")
    same(os.stat("d/b").st_nlink, 1)


@check
def link_follows_symlinks_only_if_asked():
    write("file")
    os.symlink("file", "soft")
    os.link("soft", "copy", follow_symlinks=False)
    true(stat.S_ISLNK(os.lstat("copy").st_mode), "link(2) followed a symbolic link")
    same(os.lstat("soft").st_nlink, 2)
    linkat("soft", "hard")
    same(os.stat("file").st_nlink, 2)


@check
def names_of_255_bytes():
    for name in ("n" * 255, "é" * 127 + "x", "𝄞" * 63 + "abc", "  blank \t\n", "-rf", "a\\b:*?\"<>|", "ÿ" * 100):
        write(name, b"x")
        same(read(name), b"x")
        os.rename(name, name[:-1] + "z")
        os.unlink(name[:-1] + "z")
    long = "n" * 256
    fails(ENAMETOOLONG, os.mkdir, long)
    fails(ENAMETOOLONG, os.open, long, os.O_CREAT | os.O_WRONLY)
    fails(ENAMETOOLONG, os.stat, long)
    fails(ENAMETOOLONG, os.symlink, "x", long)
    write("short")
    fails(ENAMETOOLONG, os.rename, "short", long)
    fails(ENAMETOOLONG, os.link, "short", long)
    fails(ENAMETOOLONG, os.unlink, "é" * 128)
    fails(ENAMETOOLONG, os.stat, "d/" * 2048)


@check
def deep_folders():
    depth = 300
    start = os.getcwd()
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    write("end", b"deep")
    same(len(os.getcwd()), len(start) + 2 * depth)
    os.chdir(start)
    same(read("d/" * depth + "end"), b"deep")


@check
def composed_and_decomposed_names_are_two():
    write("\u00e9", b"composed"), write("e\u0301", b"decomposed")
    os.mkdir("\u212b"), os.mkdir("\u00c5")
    write("A", b"upper"), write("a", b"lower")
    same(len(os.listdir(".")), 6)
    same((read("\u00e9"), read("e\u0301"), read("A"), read("a")), (b"composed", b"decomposed", b"upper", b"lower"))
    os.rename("\u00e9", "E\u0301")
    same(read("e\u0301"), b"decomposed")
    fails(ENOENT, os.stat, "\u00e9")


@check(where="mount")
def names_that_are_not_utf8_are_refused():
    write("a")
    for bad in (b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf"):
        fails(EILSEQ, os.open, bad, os.O_CREAT | os.O_WRONLY)
        fails(EILSEQ, os.mkdir, bad)
        fails(EILSEQ, os.symlink, b"a", bad)
        fails(EILSEQ, os.symlink, bad, b"s")
        fails(EILSEQ, os.link, b"a", bad)
        fails(EILSEQ, os.rename, b"a", bad)
        fails(EILSEQ, os.mkfifo, bad)
        fails(EILSEQ, os.stat, bad)
    same(os.listdir("."), ["a"])


@check
def symlinks():
    os.symlink("target", "dangling")
    fails(ENOENT, os.stat, "dangling")
    same((os.readlink("dangling"), os.lstat("dangling").st_size), ("target", 6))
    fails(EEXIST, os.open, "dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    fails(EEXIST, os.symlink, "other", "dangling")
    fails(ENOENT, os.symlink, "", "empty")
    write("dangling", b"made through the link")
    same(read("target"), b"made through the link")
    fails(EINVAL, os.readlink, "target")
    fails(ELOOP, os.open, "dangling", os.O_RDONLY | os.O_NOFOLLOW)
    for length in (1, 59, 60, 255, 4094, 4095):
        os.symlink("t" * length, f"l{length}")
        same(os.readlink(f"l{length}"), "t" * length)
        same(os.lstat(f"l{length}").st_size, length)
    fails(ENAMETOOLONG, os.symlink, "t" * 4096, "too long")
    os.symlink("ü/\u00e9", "utf8")
    same(os.lstat("utf8").st_size, 5)


@check
def loops():
    os.symlink("self", "self")
    fails(ELOOP, os.stat, "self")
    os.symlink("b", "a"), os.symlink("a", "b")
    fails(ELOOP, os.open, "a", os.O_RDONLY)
    write("end", b"!")
    previous = "end"
    for index in range(41):
        os.symlink(previous, f"s{index}")
        previous = f"s{index}"
    same(read("s39"), b"!")
    fails(ELOOP, os.stat, "s40")
    os.mkdir("d")
    os.symlink("../d", "d/again")
    same(os.stat("d/again/again/again").st_ino, os.stat("d").st_ino)


@check
def paths_through_files_and_folders():
    write("file"), os.mkdir("d")
    fails(ENOTDIR, os.stat, "file/x")
    fails(ENOTDIR, os.stat, "file/")
    fails(ENOTDIR, os.open, "file/x", os.O_CREAT | os.O_WRONLY)
    fails(ENOTDIR, os.mkdir, "file/x")
    fails(ENOTDIR, os.open, "file", os.O_RDONLY | os.O_DIRECTORY)
    fails(ENOTDIR, os.listdir, "file")
    fails(EISDIR, os.open, "d", os.O_WRONLY)
    fails(EISDIR, os.open, "d", os.O_RDWR | os.O_CREAT)
    fails(EISDIR, os.open, "d", os.O_RDONLY | os.O_CREAT)
    fails(EISDIR, os.open, "new/", os.O_WRONLY | os.O_CREAT)
    fails(EISDIR, os.truncate, "d", 0)
    fails(ENOENT, os.stat, "missing/x")
    fails(EEXIST, os.open, "d", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with Open("d", os.O_RDONLY) as descriptor:
        fails(EISDIR, os.read, descriptor, 1)
        fails(EBADF, os.write, descriptor, b"x")
    os.mkdir("slash/")
    same(sorted(os.listdir(".")), ["d", "file", "slash"])


@check
def exclusive_creation_has_one_winner():
    start, go = os.pipe()
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            os.read(start, 1)
            won = 0
            for index in range(50):
                try:
                    os.close(os.open(f"f{index}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                    won += 1
                except FileExistsError:
                    pass
            os._exit(won)
        children.append(child)
    os.write(go, b"......")
    same(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), 50)
    same(len(os.listdir(".")), 50)


@check
def mkdir_has_one_winner_and_the_folder_is_whole():
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            for index in range(40):
                os.makedirs(f"d{index}/e", exist_ok=True)
                write(f"d{index}/e/{number}", b"%d" % number)
            os._exit(0)
        children.append(child)
    same([os.waitpid(child, 0)[1] for child in children], [0, 0, 0, 0])
    for index in range(40):
        same(sorted(os.listdir(f"d{index}/e")), ["0", "1", "2", "3"])


@check
def fifos_and_sockets():
    os.mkfifo("fifo")
    true(stat.S_ISFIFO(os.stat("fifo").st_mode), "no FIFO")
    child = os.fork()
    if child == 0:
        with Open("fifo", os.O_WRONLY) as descriptor:
            os.write(descriptor, b"through the pipe")
        os._exit(0)
    with Open("fifo", os.O_RDONLY) as descriptor:
        same(os.read(descriptor, 99), b"through the pipe")
    os.waitpid(child, 0)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind("socket")
        listening.listen()
        client.connect("socket")
        true(stat.S_ISSOCK(os.stat("socket").st_mode), "no socket")
    os.rename("fifo", "moved")
    os.unlink("moved"), os.unlink("socket")


@check
def open_by_descriptor_and_relative_calls():
    os.makedirs("a/b")
    with Open("a", os.O_RDONLY) as folder:
        with os.fdopen(os.open("b/file", os.O_CREAT | os.O_RDWR, 0o640, dir_fd=folder), "wb") as file:
            file.write(b"x")
        os.rename("a", "moved")
        same(os.stat("b/file", dir_fd=folder).st_size, 1)
        os.mkdir("c", dir_fd=folder)
        os.rename("b/file", "c/file", src_dir_fd=folder, dst_dir_fd=folder)
        os.rmdir("b", dir_fd=folder)
    same(read("moved/c/file"), b"x")


@check
def a_path_only_descriptor():
    write("file", b"x")
    with Open("file", os.O_PATH) as descriptor:
        fails(EBADF, os.read, descriptor, 1)
        os.unlink("file")
        same(os.fstat(descriptor).st_nlink, 0)
