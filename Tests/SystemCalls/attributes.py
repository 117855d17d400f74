"""Modes, times, extended attributes, statfs."""
import os
import stat
import time
from ctypes import byref, c_char_p, c_int, c_long, c_size_t, create_string_buffer, Structure
from errno import *

from harness import check, fails, in_child, libc, Open, read, same, system, true, write
from data import SLOT

SECOND = 1_000_000_000


class Timespec(Structure):
    _fields_ = [("seconds", c_long), ("nanoseconds", c_long)]


NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2


def utimensat(path, accessed, modified, flags=0):
    times = (Timespec * 2)(Timespec(*accessed), Timespec(*modified))
    system(libc.utimensat, c_int(-100), c_char_p(os.fsencode(path)), byref(times), c_int(flags))


@check
def modes():
    write("f"), os.mkdir("d")
    for mode in (0, 0o777, 0o4755, 0o2755, 0o1777, 0o7777, 0o644):
        for path in ("f", "d"):
            os.chmod(path, mode)
            same(stat.S_IMODE(os.stat(path).st_mode), mode)
    os.umask(0o027)
    write("g", mode=0o666), os.mkdir("e", 0o777), os.mkfifo("p", 0o666)
    same([stat.S_IMODE(os.stat(path).st_mode) for path in "gep"], [0o640, 0o750, 0o640])
    os.umask(0)
    write("h", mode=0o666)
    same(stat.S_IMODE(os.stat("h").st_mode), 0o666)
    os.symlink("f", "s")
    same(stat.S_IMODE(os.lstat("s").st_mode), 0o777)
    fails(ENOENT, os.chmod, "missing", 0)
    with Open("r", os.O_CREAT | os.O_RDWR, 0o400) as descriptor:
        same(os.write(descriptor, b"writable although its mode says no"), 34)


@check
def times_to_the_nanosecond():
    write("f"), os.mkdir("d"), os.symlink("f", "s")
    for path in ("f", "d", "s"):
        os.utime(path, ns=(1_234_567_890_123_456_789, 987_654_321_012_345_678), follow_symlinks=False)
        state = os.lstat(path)
        same((state.st_atime_ns, state.st_mtime_ns), (1_234_567_890_123_456_789, 987_654_321_012_345_678), path)
    utimensat("f", (0, OMIT), (5, 6))
    same((os.stat("f").st_atime_ns, os.stat("f").st_mtime_ns), (1_234_567_890_123_456_789, 5 * SECOND + 6))
    utimensat("f", (7, 8), (0, OMIT))
    same((os.stat("f").st_atime_ns, os.stat("f").st_mtime_ns), (7 * SECOND + 8, 5 * SECOND + 6))
    changed = os.stat("f").st_ctime_ns
    utimensat("f", (0, OMIT), (0, OMIT))
    same((os.stat("f").st_mtime_ns, os.stat("f").st_ctime_ns), (5 * SECOND + 6, changed))
    before = time.time_ns() - SECOND
    utimensat("f", (0, NOW), (0, NOW))
    state = os.stat("f")
    true(before < state.st_atime_ns <= time.time_ns() and state.st_atime_ns == state.st_mtime_ns, "UTIME_NOW is not now")
    fails(EINVAL, utimensat, "f", (0, SECOND), (0, 0))


@check
def times_far_away():
    write("f")
    for seconds in (-1, -2_000_000_000, 4_000_000_000, 7_000_000_000):
        os.utime("f", ns=(seconds * SECOND, seconds * SECOND + 5))
        same((os.stat("f").st_atime_ns, os.stat("f").st_mtime_ns), (seconds * SECOND, seconds * SECOND + 5))
    for seconds in (-(1 << 40), 1 << 40, (1 << 62), -(1 << 62)):
        utimensat("f", (seconds, 0), (seconds, 999_999_999))       # clamped to what the file system can hold
        os.stat("f")


def moved(path, action, *fields):
    """The times that an action moves, and that it moves no other."""
    all_fields = ("st_mtime_ns", "st_ctime_ns")
    before = os.lstat(path)
    time.sleep(0.012)      # ext4's clock ticks every 4 ms, other kernels' every 10
    action()
    after = os.lstat(path)
    same([field for field in all_fields if getattr(after, field) > getattr(before, field)], list(fields), path)


@check
def which_times_move():
    write("f", b"abc"), os.mkdir("d"), write("d/x"), os.symlink("f", "s")
    both = ("st_mtime_ns", "st_ctime_ns")
    moved("f", lambda: os.chmod("f", 0o600), "st_ctime_ns")
    moved("f", lambda: os.link("f", "g"), "st_ctime_ns")
    moved("f", lambda: os.rename("g", "h"), "st_ctime_ns")
    moved("f", lambda: os.unlink("h"), "st_ctime_ns")
    moved("f", lambda: os.setxattr("f", "user.a", b"1"), "st_ctime_ns")
    moved("f", lambda: os.removexattr("f", "user.a"), "st_ctime_ns")
    moved("f", lambda: os.truncate("f", 2), *both)
    moved("f", lambda: os.truncate("f", 2), *both)
    moved("f", lambda: os.close(os.open("f", os.O_RDWR | os.O_CREAT)))
    moved("f", lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC)), *both)
    moved("f", lambda: write("f", b"more"), *both)
    moved("f", lambda: read("f"))
    moved("f", lambda: os.utime("f", ns=(5, 5)), "st_ctime_ns")
    with Open("f") as descriptor:
        moved("f", lambda: os.pwrite(descriptor, b"x", 0), *both)
        moved("f", lambda: os.pwrite(descriptor, b"", 0))
        moved("f", lambda: os.pread(descriptor, 1, 0))
    moved("d", lambda: write("d/y"), *both)
    moved("d", lambda: write("d/y", b"content"))
    moved("d", lambda: os.rename("d/y", "d/z"), *both)
    moved("d", lambda: os.unlink("d/z"), *both)
    moved("d", lambda: os.mkdir("d/e"), *both)
    moved("d", lambda: os.rmdir("d/e"), *both)
    moved("d", lambda: os.listdir("d"))
    moved("d", lambda: os.rename("d/x", "x"), *both)
    moved(".", lambda: os.symlink("a", "b"), *both)


@check(where="mount")
def reading_leaves_atime():
    write("f", b"x")
    os.utime("f", ns=(5, 6))
    read("f")
    same(os.stat("f").st_atime_ns, 5)


@check
def numbers_and_sizes():
    write("f", b"x" * 100_000), os.mkdir("d"), write("d/g")
    numbers = {os.stat(path).st_ino for path in (".", "f", "d", "d/g")}
    same(len(numbers), 4)
    same({os.stat(path).st_dev for path in ("f", "d", "d/g")}, {os.stat(".").st_dev})
    number = os.stat("f").st_ino
    os.rename("f", "d/h")
    state = os.stat("d/h")
    same((state.st_ino, state.st_size, state.st_nlink), (number, 100_000, 1))
    with Open("d/h") as descriptor:
        os.fsync(descriptor)
        true(100_000 <= os.fstat(descriptor).st_blocks * 512 <= 200_000, "st_blocks is not about the size")
    for entry in os.scandir("d"):
        same(entry.inode(), os.stat(entry.path).st_ino)


@check
def what_statfs_says():
    space = os.statvfs(".")
    true(space.f_blocks >= space.f_bfree >= space.f_bavail > 0, "blocks")
    true(space.f_frsize >= 512 and space.f_namemax == 255, "sizes")
    write("f")
    with Open("f") as descriptor:
        same(os.fstatvfs(descriptor).f_blocks, space.f_blocks)


# Extended attributes

@check
def extended_attributes():
    write("f"), os.mkdir("d")
    for path in ("f", "d"):
        os.setxattr(path, "user.a", b"one")
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.bytes", bytes(range(256)))
        same((os.getxattr(path, "user.a"), os.getxattr(path, "user.empty"), os.getxattr(path, "user.bytes")), (b"one", b"", bytes(range(256))))
        same(sorted(os.listxattr(path)), ["user.a", "user.bytes", "user.empty"])
        os.setxattr(path, "user.a", b"two")
        same(os.getxattr(path, "user.a"), b"two")
        fails(EEXIST, os.setxattr, path, "user.a", b"x", os.XATTR_CREATE)
        fails(ENODATA, os.setxattr, path, "user.b", b"x", os.XATTR_REPLACE)
        fails(EINVAL, os.setxattr, path, "user.b", b"x", os.XATTR_REPLACE | os.XATTR_CREATE | 4)
        os.setxattr(path, "user.b", b"x", os.XATTR_CREATE)
        os.setxattr(path, "user.b", b"y", os.XATTR_REPLACE)
        os.removexattr(path, "user.b")
        fails(ENODATA, os.removexattr, path, "user.b")
        fails(ENODATA, os.getxattr, path, "user.b")
    os.link("f", "g"), os.rename("f", "h")
    same((os.getxattr("g", "user.a"), os.getxattr("h", "user.a")), (b"two", b"two"))
    with Open("h") as descriptor:
        os.unlink("h"), os.unlink("g")
        os.setxattr(descriptor, "user.late", b"1")
        same(os.getxattr(descriptor, "user.late"), b"1")


@check
def extended_attribute_sizes():
    write("f")
    os.setxattr("f", "user.a", b"12345")
    buffer = create_string_buffer(5)

    def get(size):
        return system(libc.getxattr, b"f", b"user.a", buffer, c_size_t(size))

    def names(size):
        return system(libc.listxattr, b"f", create_string_buffer(64), c_size_t(size))

    same((get(5), buffer.raw, get(0)), (5, b"12345", 5))
    fails(ERANGE, get, 4)
    same((names(64), names(0)), (7, 7))
    fails(ERANGE, names, 6)
    fails((E2BIG, ENOSPC), os.setxattr, "f", "user.big", b"x" * 65_537)
    fails(ERANGE, os.setxattr, "f", "user." + "n" * 251, b"x")
    os.setxattr("f", "user." + "n" * 250, b"x")
    same(os.getxattr("f", "user.a"), b"12345")


@check(where="mount")
def extended_attributes_of_64_kib():
    write("f")
    os.setxattr("f", "user.big", b"x" * 65_536)
    same(len(os.getxattr("f", "user.big")), 65_536)
    fails(ENOSPC, os.setxattr, "f", "user.more", b"x" * 65_536)


@check
def extended_attribute_names():
    write("f"), os.symlink("f", "s")
    fails(EOPNOTSUPP, os.setxattr, "f", "nonamespace", b"x")
    fails(EOPNOTSUPP, os.setxattr, "f", "other.name", b"x")
    fails(EOPNOTSUPP, os.getxattr, "f", "other.name")
    fails((EOPNOTSUPP, EINVAL), os.setxattr, "f", "user.", b"x")
    fails(EPERM, os.setxattr, "s", "user.a", b"x", follow_symlinks=False)
    os.setxattr("s", "user.a", b"through")
    same(os.getxattr("f", "user.a"), b"through")
    if os.geteuid() == 0:
        os.setxattr("f", "trusted.a", b"t"), os.setxattr("s", "trusted.s", b"s", follow_symlinks=False)
        same((os.getxattr("f", "trusted.a"), os.getxattr("s", "trusted.s", follow_symlinks=False)), (b"t", b"s"))
        os.setxattr("f", "security.boxfs-test", b"s")
        same(os.getxattr("f", "security.boxfs-test"), b"s")


@check(where="mount")
def names_and_attributes_of_the_mount_itself():
    write("f", b"x")
    true(os.getxattr("f", "user.boxfs.state") in (b"memory", b"local", b"uploading", b"server"), "user.boxfs.state")
    same([name for name in os.listxattr("f") if "boxfs" in name], [])
    for name in ("user.boxfs.state", "user.boxfs.version", "user.boxfs.other"):
        fails(EPERM, os.setxattr, "f", name, b"x")
        fails(EPERM, os.removexattr, "f", name)
    fails(ENODATA, os.getxattr, "f", "user.boxfs.other")
    for name in ("system.posix_acl_access", "system.other"):
        fails(EOPNOTSUPP, os.setxattr, "f", name, b"x" * 28)
        fails(EOPNOTSUPP, os.getxattr, "f", name)
    fails(EILSEQ, os.setxattr, "f", b"user.\xff", b"x")
