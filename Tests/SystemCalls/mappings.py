"""mmap(2) of files."""
import mmap
import os
import signal

from harness import check, Open, read, same, true, write
from data import pattern, SLOT


@check
def a_shared_mapping_is_seen_by_other_descriptors():
    write("f", bytes(SLOT + 8192))
    with Open("f") as descriptor, Open("f") as other:
        with mmap.mmap(descriptor, SLOT + 8192) as memory:
            memory[SLOT - 2:SLOT + 2] = b"edge"
            same(os.pread(other, 4, SLOT - 2), b"edge", "before msync")
            memory.flush()
            os.pwrite(other, b"other", 100)
            same(memory[100:105], b"other", "a write through another descriptor")
    same(read("f")[SLOT - 2:SLOT + 2], b"edge")


@check
def a_mapping_outlives_its_descriptor():
    write("f", b"a" * 4096)
    descriptor = os.open("f", os.O_RDWR)
    memory = mmap.mmap(descriptor, 4096)
    os.close(descriptor)
    memory[0:1] = b"z"
    os.unlink("f")
    memory[1:2] = b"y"
    memory.flush()
    same(memory[:3], b"zya")
    memory.close()


@check
def changes_through_a_mapping_are_kept_without_msync():
    write("f", b"a" * 4096)
    with Open("f") as descriptor:
        memory = mmap.mmap(descriptor, 4096)
    memory[10:13] = b"map"
    memory.close()
    same(read("f")[9:14], b"amapa")
    with Open("f") as descriptor:
        os.fsync(descriptor)


@check
def a_private_mapping_stays_private():
    write("f", b"a" * 4096)
    with Open("f") as descriptor:
        memory = mmap.mmap(descriptor, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        memory[0:1] = b"p"
        same((memory[:2], os.pread(descriptor, 2, 0)), (b"pa", b"aa"))
        memory.close()


def ended_by(function):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        function()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@check
def beyond_the_end_is_a_bus_error():
    with Open("f") as descriptor:
        os.ftruncate(descriptor, 100_000)
        memory = mmap.mmap(descriptor, 100_000)
        os.ftruncate(descriptor, 5_000)
        same(ended_by(lambda: memory[8_191]), 0, "the rest of the last page")
        same(memory[8_191], 0)
        same(ended_by(lambda: memory[8_192]), -signal.SIGBUS, "a read beyond it")
        same(ended_by(lambda: memory.__setitem__(90_000, 1)), -signal.SIGBUS, "a write beyond it")
        os.ftruncate(descriptor, 100_000)
        same(memory[90_000], 0, "after growing again")
        memory.close()


@check
def what_is_written_after_the_end_of_a_mapped_page_does_not_appear():
    with Open("f") as descriptor:
        os.write(descriptor, b"x" * 100)
        memory = mmap.mmap(descriptor, 100)
        child = os.fork()
        if child == 0:
            import ctypes
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            ctypes.memset(address + 100, ord("y"), 100)
            os._exit(0)
        os.waitpid(child, 0)
        memory.flush()
        memory.close()
        os.ftruncate(descriptor, 300)
        same(os.pread(descriptor, 300, 0), b"x" * 100 + bytes(200))


@check
def a_mapped_hole_and_two_processes():
    with Open("f") as descriptor:
        os.ftruncate(descriptor, 2 * SLOT)
        memory = mmap.mmap(descriptor, 2 * SLOT)
        child = os.fork()
        if child == 0:
            memory[SLOT + 1:SLOT + 4] = b"kid"
            os._exit(0)
        same(os.waitpid(child, 0)[1], 0)
        same(memory[SLOT:SLOT + 5], b"\0kid\0")
        memory.flush()
        same(os.pread(descriptor, 5, SLOT), b"\0kid\0")
        memory.close()


@check
def random_writes_through_a_mapping():
    content = bytearray(pattern(SLOT + 100_000))
    write("f", bytes(content))
    with Open("f") as descriptor:
        memory = mmap.mmap(descriptor, len(content))
        for index in range(500):
            at = index * 8_011 % (len(content) - 10)
            memory[at:at + 9] = content[at:at + 9] = b"%09d" % index
        memory.flush()
        memory.close()
    true(read("f") == bytes(content), "the file differs from what was written into the mapping")
