"""Owners, groups, special bits and permissions. Run by root, on a file system that other users may enter."""
import os
import stat
from ctypes import c_int, c_long
from errno import *

from harness import check, fails, in_child, Open, read, same, true, write
from data import fallocate

NOBODY, OTHER, GROUP = 65534, 65533, 65532


def as_user(function, user=NOBODY, group=None, groups=()):
    def run():
        os.setgroups(list(groups))
        os.setresgid(*[group if group is not None else user] * 3)
        os.setresuid(user, user, user)
        function()
    in_child(run)


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def owner(path):
    state = os.lstat(path)
    return state.st_uid, state.st_gid


def open_place():
    os.chmod(".", 0o777)


@check
def new_nodes_belong_to_who_makes_them():
    open_place()

    def make():
        os.umask(0o022)
        write("f", b"x"), os.mkdir("d"), os.symlink("f", "s"), os.mkfifo("p")
        os.link("f", "l")
    as_user(make, NOBODY, GROUP)
    same([owner(path) for path in "fdspl"], [(NOBODY, GROUP)] * 5)
    write("r")
    same(owner("r"), (0, 0))


@check
def chown_by_root():
    write("f"), os.mkdir("d"), os.symlink("f", "s")
    os.chown("f", NOBODY, GROUP), os.lchown("s", 5, 6), os.chown("d", 7, -1)
    same((owner("f"), owner("s"), owner("d")), ((NOBODY, GROUP), (5, 6), (7, 0)))
    os.chown("f", -1, 8)
    same(owner("f"), (NOBODY, 8))
    os.chown("f", 4_000_000_000, 4_000_000_001)
    same(owner("f"), (4_000_000_000, 4_000_000_001))


@check
def chown_by_others():
    open_place()
    write("mine"), os.chown("mine", NOBODY, NOBODY), write("roots")

    def try_it():
        fails(EPERM, os.chown, "mine", OTHER, -1)
        fails(EPERM, os.chown, "mine", -1, OTHER)
        os.chown("mine", -1, GROUP)
        os.chown("mine", NOBODY, NOBODY)
        fails(EPERM, os.chown, "roots", NOBODY, -1)
        fails(EPERM, os.chmod, "roots", 0o777)
        fails(EPERM, os.utime, "roots", (1, 1))
        fails(EACCES, os.utime, "roots")
        os.chmod("mine", 0o600)
    as_user(try_it, groups=(GROUP,))


@check
def chown_clears_special_bits():
    write("f")
    for change in ((NOBODY, -1), (-1, GROUP), (0, 0)):
        os.chmod("f", 0o6755)
        os.chown("f", *change)
        same(mode("f"), 0o755)
    os.chmod("f", 0o2745)      # mandatory locking's old sign: group may not execute
    os.chown("f", 5, 5)
    same(mode("f"), 0o2745)
    os.mkdir("d"), os.chmod("d", 0o7755)
    os.chown("d", 5, 5)
    same(mode("d"), 0o7755)


def clearing(action):
    """What becomes of a set-user-ID program's mode when another user writes to it."""
    write("f", b"12345678" * 1024)
    os.chown("f", NOBODY, NOBODY)
    os.chmod("f", 0o6777)
    os.stat("f")
    as_user(action)
    found = mode("f")
    os.unlink("f")
    return found


@check
def writing_clears_special_bits():
    open_place()

    def append():
        with Open("f", os.O_WRONLY | os.O_APPEND) as descriptor:
            os.write(descriptor, b"x")

    def copy():
        with Open("f", os.O_RDWR) as descriptor:
            os.copy_file_range(descriptor, descriptor, 4096, offset_src=0, offset_dst=4096)

    def allocate():
        with Open("f", os.O_RDWR) as descriptor:
            fallocate(descriptor, 0, 0, 100_000)

    def cut_open():
        with Open("f", os.O_RDWR) as descriptor:
            os.ftruncate(descriptor, 3)

    same(clearing(append), 0o777, "write")
    same(clearing(copy), 0o777, "copy_file_range")
    same(clearing(allocate), 0o777, "fallocate")
    same(clearing(lambda: os.truncate("f", 5)), 0o777, "truncate")
    same(clearing(cut_open), 0o777, "ftruncate")
    same(clearing(lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))), 0o777, "O_TRUNC")
    write("f", b"x"), os.chmod("f", 0o6777)
    append()
    same(mode("f"), 0o6777, "root's own write")


@check
def a_cleared_bit_is_gone_for_programs_too():
    import shutil
    import subprocess
    shutil.copy("/usr/bin/id", "id"), os.chown("id", OTHER, OTHER), os.chmod("id", 0o4777)
    open_place()

    def uid():
        return subprocess.run(["./id", "-u"], capture_output=True, text=True).stdout.strip()
    as_user(lambda: same(uid(), str(OTHER), "set-user-ID"))

    def overwrite():
        with Open("id", os.O_RDWR) as descriptor:
            os.pwrite(descriptor, os.pread(descriptor, 1, 0), 0)
    as_user(overwrite)
    as_user(lambda: same(uid(), str(NOBODY), "after it was written to"))


@check
def set_group_id_folders():
    os.mkdir("d"), os.chown("d", 0, GROUP), os.chmod("d", 0o2777)

    def make():
        os.umask(0o022)
        write("d/f"), os.mkdir("d/e"), os.symlink("x", "d/s"), os.mkfifo("d/p")
        write("d/e/inside")
    as_user(make)
    same([owner("d/" + path) for path in ("f", "e", "s", "p", "e/inside")], [(NOBODY, GROUP)] * 5)
    same((mode("d/e"), mode("d/f")), (0o2755, 0o644))


@check
def set_group_id_of_a_foreign_group_cannot_be_set():
    os.mkdir("d"), os.chown("d", 0, GROUP), os.chmod("d", 0o2777)

    def make():
        os.umask(0)
        with Open("d/f", os.O_CREAT | os.O_WRONLY, 0o2775):
            pass
        write("d/g"), os.chmod("d/g", 0o2755)
    as_user(make)
    same((owner("d/f"), mode("d/f")), ((NOBODY, GROUP), 0o775))
    same(mode("d/g"), 0o755)

    def member():
        write("d/h"), os.chmod("d/h", 0o2755)
    as_user(member, groups=(GROUP,))
    same(mode("d/h"), 0o2755)


@check
def sticky_folders():
    os.mkdir("d"), os.chmod("d", 0o1777)
    os.mkdir("mine"), os.chown("mine", NOBODY, NOBODY), os.chmod("mine", 0o1777)
    write("d/other"), os.chown("d/other", OTHER, OTHER), os.chmod("d/other", 0o666)
    write("mine/other"), os.chown("mine/other", OTHER, OTHER)
    os.mkdir("d/folder"), os.chown("d/folder", OTHER, OTHER)

    def try_it():
        write("d/own")
        fails((EPERM, EACCES), os.unlink, "d/other")
        fails((EPERM, EACCES), os.rename, "d/other", "d/moved")
        fails((EPERM, EACCES), os.rename, "d/own", "d/other")
        fails((EPERM, EACCES), os.rmdir, "d/folder")
        os.rename("d/own", "d/renamed")
        os.unlink("d/renamed")
        os.unlink("mine/other")
    as_user(try_it)


@check
def access_is_denied_to_others():
    os.mkdir("closed", 0o700), os.mkdir("enter", 0o711), os.mkdir("look", 0o744)
    for folder in ("closed", "enter", "look"):
        write(folder + "/f", b"x")
    write("secret", b"x", 0o600), write("open", b"x", 0o644)

    def try_it():
        fails(EACCES, os.open, "secret", os.O_RDONLY)
        fails(EACCES, os.open, "open", os.O_WRONLY)
        fails(EACCES, os.truncate, "open", 0)
        same(read("open"), b"x")
        fails(EACCES, os.stat, "closed/f")
        fails(EACCES, os.listdir, "closed")
        fails(EACCES, os.listdir, "enter")
        same(read("enter/f"), b"x")
        same(os.listdir("look"), ["f"])
        fails(EACCES, os.stat, "look/f")
        fails(EACCES, os.mkdir, "new")
        fails(EACCES, os.unlink, "open")
        fails(EACCES, os.rename, "open", "renamed")
        fails((EACCES, EPERM), os.link, "open", "linked")
        fails((EACCES, EPERM), os.setxattr, "open", "user.a", b"x")
        fails(EACCES, os.getxattr, "secret", "user.a")
        fails(EPERM, os.setxattr, "open", "trusted.a", b"x")
        true(not os.access("secret", os.R_OK) and os.access("open", os.R_OK), "access(2)")
    as_user(try_it)


@check
def supplementary_groups_count():
    write("f", b"x", 0o660), os.chown("f", 0, GROUP), os.chmod("f", 0o060)
    os.mkdir("d"), os.chown("d", 0, GROUP), os.chmod("d", 0o070)
    as_user(lambda: fails(EACCES, read, "f"))
    as_user(lambda: fails(EACCES, os.listdir, "d"))

    def member():
        same(read("f"), b"x")
        write("d/new", b"y")
        same(owner("d/new"), (NOBODY, NOBODY))
    as_user(member, groups=(1, GROUP, 3))
    write("g", b"x"), os.chown("g", NOBODY, GROUP), os.chmod("g", 0o066)
    as_user(lambda: fails(EACCES, read, "g"), groups=(GROUP,))     # the owner's bits count for the owner alone


@check
def the_masks_of_users():
    open_place()

    def make():
        os.umask(0o077)
        write("f", mode=0o666), os.mkdir("d", 0o777)
    as_user(make)
    same((mode("f"), mode("d")), (0o600, 0o700))


@check
def device_nodes():
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    state = os.stat("null")
    same((state.st_rdev, stat.S_ISCHR(state.st_mode)), (os.makedev(1, 3), True))
    write("f", b"x")
    open_place()
    as_user(lambda: fails(EPERM, os.mknod, "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5)))


@check
def nothing_of_owners_is_lost_by_renaming_and_linking():
    write("f"), os.chown("f", NOBODY, GROUP), os.chmod("f", 0o4711)
    os.rename("f", "g"), os.link("g", "h")
    same((owner("h"), mode("h")), ((NOBODY, GROUP), 0o4711))
