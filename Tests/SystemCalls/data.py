"""Calls that read and write the bytes of files."""
import fcntl
import mmap
import os
import resource
import signal
import socket
from ctypes import c_int, c_long
from errno import *

from harness import check, fails, in_child, libc, Open, read, same, system, true, write

MIB = 1 << 20
SLOT = 4 * MIB      # BoxFS cuts files at multiples of this
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE, UNSHARE = 1, 2, 8, 16, 32, 64


def fallocate(descriptor, mode, offset, length):
    system(libc.fallocate, c_int(descriptor), c_int(mode), c_long(offset), c_long(length))


def pattern(count, seed=1):
    """Bytes of which no stretch repeats soon."""
    block = bytes((index * 131 + (index >> 8) * 29 + seed * 17) & 255 for index in range(65_521))
    return (block * (count // len(block) + 1))[:count]


@check
def append_from_two_descriptors():
    with Open("f", os.O_WRONLY | os.O_CREAT | os.O_APPEND) as one, Open("f", os.O_WRONLY | os.O_APPEND) as two:
        for index in range(100):
            os.write((one, two)[index % 2], b"%03d" % index)
        same(os.lseek(one, 0, os.SEEK_CUR), 99 * 3)
    same(read("f"), b"".join(b"%03d" % index for index in range(100)))


@check
def append_from_processes_loses_nothing():
    write("log")
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            with Open("log", os.O_WRONLY | os.O_APPEND) as descriptor:
                for index in range(300):
                    os.write(descriptor, b"%d-%05d\n" % (number, index))
            os._exit(0)
        children.append(child)
    same([os.waitpid(child, 0)[1] for child in children], [0] * 4)
    lines = read("log").splitlines()
    same(len(lines), 1200)
    for number in range(4):
        mine = [line for line in lines if line.startswith(b"%d-" % number)]
        same(mine, [b"%d-%05d" % (number, index) for index in range(300)], "one writer's lines, in order")


@check
def append_ignores_the_position():
    write("f", b"12345")
    with Open("f", os.O_RDWR | os.O_APPEND) as descriptor:
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, b"6")
        os.pwrite(descriptor, b"7", 1)      # pwrite(2), BUGS: Linux appends
        os.ftruncate(descriptor, 3)
        os.write(descriptor, b"8")
    same(read("f"), b"1238")


@check
def truncate_on_open():
    write("f", pattern(SLOT + 10))
    with Open("f", os.O_RDONLY) as reader:
        same(len(os.pread(reader, 10, SLOT)), 10)
        with Open("f", os.O_WRONLY | os.O_TRUNC) as writer:
            same((os.fstat(writer).st_size, os.pread(reader, 10, 0)), (0, b""))
            os.write(writer, b"new")
        same(os.pread(reader, 10, 0), b"new")


@check
def truncate_both_ways():
    content = pattern(2 * SLOT + 1000)
    for size in (0, 1, 4095, 4096, SLOT - 1, SLOT, SLOT + 1, 2 * SLOT, 2 * SLOT + 999):
        write("f", content)
        os.truncate("f", size)
        same(os.stat("f").st_size, size)
        os.truncate("f", len(content) + 5000)
        found = read("f")
        true(found == content[:size] + bytes(len(content) + 5000 - size), f"after {size} bytes there is something else than zeros")


@check
def truncated_bytes_do_not_come_back():
    with Open("f") as descriptor:
        os.write(descriptor, b"x" * 10_000)
        os.ftruncate(descriptor, 100)
        os.pwrite(descriptor, b"y", 9_000)
        same(os.pread(descriptor, 9_001, 0), b"x" * 100 + bytes(8_900) + b"y")


@check
def truncate_refusals():
    write("f", b"x")
    with Open("f", os.O_RDONLY) as reader, Open("f", os.O_WRONLY) as writer:
        fails(EINVAL, os.ftruncate, writer, -1)
        fails(EINVAL, os.ftruncate, reader, 0)
        fails(EFBIG, os.ftruncate, writer, 1 << 62)
        fails(EFBIG, os.ftruncate, writer, (1 << 63) - 1)
        fails(EFBIG, os.pwrite, writer, b"x", 1 << 62)
        fails(EFBIG, fallocate, writer, 0, 1 << 62, 1)
        fails(EBADF, os.read, writer, 1)
        fails(EBADF, os.write, reader, b"x")
    fails(ENOENT, os.truncate, "missing", 0)
    same(read("f"), b"x")


@check
def the_limit_of_a_process():
    """RLIMIT_FSIZE: a short write, then EFBIG."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    with Open("f") as descriptor:
        same(os.pwrite(descriptor, b"x" * 100, 9_950), 50)
        fails(EFBIG, os.pwrite, descriptor, b"x", 10_000)
        fails(EFBIG, os.ftruncate, descriptor, 10_001)
    same(os.stat("f").st_size, 10_000)


@check
def sparse_files_read_as_zeros():
    with Open("f") as descriptor:
        os.pwrite(descriptor, b"end", 3 * SLOT - 1)
        same(os.fstat(descriptor).st_size, 3 * SLOT + 2)
        same(os.pread(descriptor, 5, 3 * SLOT - 2), b"\0end")
        same(os.pread(descriptor, 10, SLOT - 5), bytes(10))
        same(os.pread(descriptor, 10, 3 * SLOT + 2), b"")
        same(os.pread(descriptor, 10, 1 << 40), b"")
        same(os.lseek(descriptor, -1, os.SEEK_END), 3 * SLOT + 1)
        fails(EINVAL, os.lseek, descriptor, -1, os.SEEK_SET)
        same(os.write(descriptor, b""), 0)
        same(os.fstat(descriptor).st_size, 3 * SLOT + 2)


@check
def overwriting_in_the_middle():
    content = bytearray(pattern(2 * SLOT + 77))
    write("f", bytes(content))
    with Open("f") as descriptor:
        for offset, length in ((0, 1), (4095, 2), (SLOT - 3, 6), (SLOT, SLOT), (2 * SLOT + 70, 100), (12_345, 54_321)):
            part = pattern(length, offset % 251)
            content[offset:offset + length] = part
            same(os.pwrite(descriptor, part, offset), length)
        true(read("f") == bytes(content), "another descriptor reads something else")
    true(read("f") == bytes(content), "after close there is something else")


@check
def vectors():
    parts = [pattern(n, n) for n in (1, 4096, 70_001, SLOT, 13)]
    whole = b"".join(parts)
    with Open("f") as descriptor:
        same(os.writev(descriptor, parts), len(whole))
        same(os.pwritev(descriptor, [b"ab", b"", b"cd"], SLOT - 1), 4)
        expected = whole[:SLOT - 1] + b"abcd" + whole[SLOT + 3:]
        buffers = [bytearray(n) for n in (7, 100_000, SLOT, 500_000)]
        same(os.preadv(descriptor, buffers, 0), len(whole))
        true(b"".join(buffers)[:len(whole)] == expected, "preadv reads something else")
        os.lseek(descriptor, 5, os.SEEK_SET)
        small = [bytearray(3), bytearray(4)]
        same((os.readv(descriptor, small), bytes(small[0] + small[1])), (7, expected[5:12]))


@check
def sendfile_and_splice_out():
    content = pattern(SLOT + 300_000)
    write("f", content)
    one, two = socket.socketpair()
    child = os.fork()
    if child == 0:
        one.close()
        received = b""
        while part := two.recv(1 << 20):
            received += part
        os._exit(received != content[100:])
    two.close()
    with Open("f", os.O_RDONLY) as descriptor:
        offset = 100
        while offset < len(content):
            offset += os.sendfile(one.fileno(), descriptor, offset, len(content) - offset)
        one.close()
        same(os.waitpid(child, 0)[1], 0, "sendfile to a socket")
        with Open("copy", os.O_RDWR | os.O_CREAT) as target:
            offset = 0
            while offset < len(content):
                offset += os.sendfile(target, descriptor, offset, len(content) - offset)
        true(read("copy") == content, "sendfile to a file")
        source, target = os.pipe()
        same(os.splice(descriptor, target, 4096, offset_src=SLOT - 1000), 4096)
        same(os.read(source, 4096), content[SLOT - 1000:SLOT + 3096], "splice to a pipe")


@check
def splice_in_and_tee():
    source, target = os.pipe()
    os.write(target, b"from a pipe")
    with Open("f") as descriptor:
        os.write(descriptor, b"0123456789")
        same(os.splice(source, descriptor, 11, offset_dst=5), 11)
    same(read("f"), b"01234from a pipe")


@check
def copy_file_range_across_files():
    content = pattern(2 * SLOT + 500)
    write("a", content)
    write("b", b"B" * 100)
    with Open("a", os.O_RDONLY) as source, Open("b") as target:
        copied = 0
        while part := os.copy_file_range(source, target, len(content) * 2, offset_src=copied, offset_dst=copied):
            copied += part
        same(copied, len(content))
        true(read("b") == content, "whole")
        same(os.copy_file_range(source, target, 10, offset_src=len(content)), 0, "at the end")
        same(os.copy_file_range(source, target, 10, offset_src=len(content) + 1), 0, "past the end")
        same(os.copy_file_range(source, target, 1000, offset_src=SLOT - 1, offset_dst=3 * SLOT), 1000)
        same(os.fstat(target).st_size, 3 * SLOT + 1000)
        same(os.pread(target, 1001, 3 * SLOT - 1), b"\0" + content[SLOT - 1:SLOT + 999])
        os.lseek(source, 50, os.SEEK_SET), os.lseek(target, 0, os.SEEK_SET)
        same(os.copy_file_range(source, target, 25), 25)
        same((os.lseek(source, 0, os.SEEK_CUR), os.lseek(target, 0, os.SEEK_CUR)), (75, 25))
        same(os.pread(target, 26, 0), content[50:75] + content[25:26])
        same(os.copy_file_range(source, target, 0), 0)


@check
def copy_file_range_within_a_file():
    content = pattern(SLOT + 1000)
    write("f", content)
    with Open("f") as descriptor:
        same(os.copy_file_range(descriptor, descriptor, 1000, offset_src=10, offset_dst=SLOT + 500), 1000)
        same(os.pread(descriptor, 2000, SLOT + 500), content[10:1010])
        fails(EINVAL, os.copy_file_range, descriptor, descriptor, 100, offset_src=0, offset_dst=50)
        same(os.copy_file_range(descriptor, descriptor, 100, offset_src=0, offset_dst=100), 100)


@check
def copy_file_range_refusals():
    write("a", b"abc"), write("b"), os.mkdir("d")
    with Open("a", os.O_RDONLY) as source, Open("b", os.O_WRONLY) as target, Open("d", os.O_RDONLY) as folder:
        fails(EBADF, os.copy_file_range, target, source, 3)
        fails((EISDIR, EBADF), os.copy_file_range, folder, target, 3)
        fails(EINVAL, os.copy_file_range, source, os.pipe()[1], 3)
        with Open("b", os.O_WRONLY | os.O_APPEND) as appending:
            fails(EBADF, os.copy_file_range, source, appending, 3)


@check
def copy_file_range_of_holes():
    with Open("a") as source, Open("b") as target:
        os.pwrite(source, b"x", 2 * SLOT)
        os.pwrite(target, pattern(3 * SLOT), 0)
        copied = 0
        while copied < 2 * SLOT:
            copied += os.copy_file_range(source, target, 2 * SLOT - copied, offset_src=copied, offset_dst=copied)
        found = read("b")
        true(found == bytes(2 * SLOT) + pattern(3 * SLOT)[2 * SLOT:], "holes become zeros, the rest stays")


@check
def fallocate_grows():
    write("f", b"abc")
    with Open("f") as descriptor:
        fallocate(descriptor, 0, 0, 2)
        same(os.fstat(descriptor).st_size, 3)
        fallocate(descriptor, 0, 1, 10_000)
        same(os.fstat(descriptor).st_size, 10_001)
        fallocate(descriptor, KEEP_SIZE, 0, SLOT * 2)
        same(os.fstat(descriptor).st_size, 10_001)
        same(os.pread(descriptor, 20_000, 0), b"abc" + bytes(9_998))


@check
def fallocate_punches_holes():
    content = bytearray(pattern(2 * SLOT + 9_000))
    write("f", bytes(content))
    with Open("f") as descriptor:
        for offset, length in ((100, 50), (4096, 8192), (SLOT - 10, 20), (SLOT, SLOT), (2 * SLOT + 8_000, 1 << 20), (3 * SLOT, 10)):
            fallocate(descriptor, PUNCH_HOLE | KEEP_SIZE, offset, length)
            end = min(offset + length, len(content))
            if end > offset:
                content[offset:end] = bytes(end - offset)
            same(os.fstat(descriptor).st_size, len(content))
        true(os.pread(descriptor, len(content), 0) == bytes(content), "something else than zeros in the holes")


@check
def fallocate_zeroes_ranges():
    content = pattern(50_000)
    write("f", content)
    with Open("f") as descriptor:
        fallocate(descriptor, ZERO_RANGE | KEEP_SIZE, 49_000, 100_000)
        same(os.fstat(descriptor).st_size, 50_000)
        fallocate(descriptor, ZERO_RANGE, 100, 1_000)
        fallocate(descriptor, ZERO_RANGE, 60_000, 1_000)
        same(os.fstat(descriptor).st_size, 61_000)
        true(os.pread(descriptor, 70_000, 0) == content[:100] + bytes(1_000) + content[1_100:49_000] + bytes(12_000), "content")


@check
def fallocate_refusals():
    write("f", b"abc")
    with Open("f") as descriptor, Open("f", os.O_RDONLY) as reader:
        fails(EINVAL, fallocate, descriptor, 0, -1, 1)
        fails(EINVAL, fallocate, descriptor, 0, 0, 0)
        fails(EINVAL, fallocate, descriptor, 0, 0, -5)
        fails(EOPNOTSUPP, fallocate, descriptor, PUNCH_HOLE, 0, 1)
        fails(EOPNOTSUPP, fallocate, descriptor, 1 << 12, 0, 1)
        fails(EBADF, fallocate, reader, 0, 0, 10)
        fails(ESPIPE, fallocate, os.pipe()[1], 0, 0, 10)
    same(read("f"), b"abc")


@check(where="mount")
def fallocate_does_not_collapse_or_insert():
    write("f", b"x" * 8192)
    with Open("f") as descriptor:
        for mode in (COLLAPSE_RANGE, INSERT_RANGE, UNSHARE):
            fails(EOPNOTSUPP, fallocate, descriptor, mode, 0, 4096)
    same(os.stat("f").st_size, 8192)


@check
def seeking_data_and_holes():
    with Open("f") as descriptor:
        os.ftruncate(descriptor, 5 * SLOT)
        os.pwrite(descriptor, b"d" * 4096, 2 * SLOT)
        data = os.lseek(descriptor, 0, os.SEEK_DATA)
        true(0 < data <= 2 * SLOT, f"the first data are said to be at {data}")
        same(os.lseek(descriptor, 2 * SLOT + 10, os.SEEK_DATA), 2 * SLOT + 10)
        hole = os.lseek(descriptor, 2 * SLOT, os.SEEK_HOLE)
        true(2 * SLOT + 4096 <= hole <= 3 * SLOT, f"the hole after them at {hole}")
        same(os.lseek(descriptor, 0, os.SEEK_HOLE), 0)
        fails(ENXIO, os.lseek, descriptor, 3 * SLOT, os.SEEK_DATA)
        same(os.lseek(descriptor, 3 * SLOT, os.SEEK_HOLE), 3 * SLOT)
        fails(ENXIO, os.lseek, descriptor, 5 * SLOT, os.SEEK_DATA)
        fails(ENXIO, os.lseek, descriptor, 5 * SLOT, os.SEEK_HOLE)
        fails(ENXIO, os.lseek, descriptor, -1, os.SEEK_DATA)
    write("full", b"x" * 10_000)
    with Open("full") as descriptor:
        same(os.lseek(descriptor, 100, os.SEEK_DATA), 100)
        same(os.lseek(descriptor, 100, os.SEEK_HOLE), 10_000)
    write("empty")
    with Open("empty") as descriptor:
        fails(ENXIO, os.lseek, descriptor, 0, os.SEEK_DATA)


@check
def direct_reads_and_writes():
    buffer = mmap.mmap(-1, MIB)
    content = pattern(MIB)
    buffer[:] = content
    with Open("f", os.O_RDWR | os.O_CREAT | os.O_DIRECT) as direct, Open("f") as cached:
        for offset in (0, SLOT - 512 * 1024, 2 * SLOT):
            same(os.pwritev(direct, [buffer], offset), MIB)
            true(os.pread(cached, MIB, offset) == content, "what was written directly, through the cache")
        same(os.pwrite(cached, b"c" * 8192, 4096), 8192)
        back = mmap.mmap(-1, 16384)
        same(os.preadv(direct, [back], 0), 16384)
        same(bytes(back), content[:4096] + b"c" * 8192 + content[12288:16384], "what was written through the cache, directly")
        buffer[:4096] = b"d" * 4096
        same(os.pwritev(direct, [memoryview(buffer)[:4096]], 0), 4096)
        same(os.pread(cached, 4097, 0), b"d" * 4096 + b"c")
        same(os.preadv(direct, [back], 2 * SLOT + MIB), 0)


@check
def synchronous_writes():
    for flag in (os.O_SYNC, os.O_DSYNC):
        with Open("f", os.O_RDWR | os.O_CREAT | flag) as descriptor:
            same(os.write(descriptor, b"synced"), 6)
    with Open("f") as descriptor:
        os.fsync(descriptor), os.fdatasync(descriptor)
        system(libc.sync_file_range, c_int(descriptor), c_long(0), c_long(0), 7)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        same(os.pread(descriptor, 9, 0), b"synced")
        system(libc.syncfs, c_int(descriptor))
    with Open(".", os.O_RDONLY | os.O_DIRECTORY) as folder:
        os.fsync(folder), os.fdatasync(folder)


@check
def many_descriptors_of_one_file():
    write("f", b"0" * 100)
    descriptors = [os.open("f", os.O_RDWR) for _ in range(100)]
    for index, descriptor in enumerate(descriptors):
        os.pwrite(descriptor, b"%d" % (index % 10), index)
    for descriptor in descriptors:
        same(os.pread(descriptor, 100, 0), b"0123456789" * 10)
        os.close(descriptor)


@check
def a_position_is_shared_by_dup_and_fork():
    write("f", b"abcdef")
    with Open("f", os.O_RDONLY) as descriptor:
        os.read(descriptor, 2)
        same(os.read(os.dup(descriptor), 1), b"c")
        child = os.fork()
        if child == 0:
            os._exit(os.read(descriptor, 1) != b"d")
        same(os.waitpid(child, 0)[1], 0)
        same(os.read(descriptor, 9), b"ef")


@check
def temporary_files_without_a_name():
    """O_TMPFILE; FUSE file systems may refuse it (open(2): EOPNOTSUPP), and tempfile(3) then makes a name."""
    from harness import is_mount
    if is_mount:
        fails(EOPNOTSUPP, os.open, ".", os.O_TMPFILE | os.O_RDWR)
        return
    with Open(".", os.O_TMPFILE | os.O_RDWR) as descriptor:
        os.write(descriptor, b"x")
        same((os.fstat(descriptor).st_nlink, os.listdir(".")), (0, []))


@check
def nonblocking_and_flags():
    with Open("f") as descriptor:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND | os.O_NONBLOCK)
        os.pwrite(descriptor, b"a", 0), os.pwrite(descriptor, b"b", 0)
        same(os.pread(descriptor, 9, 0), b"ab")
