"""Sizes at which a careless design shows."""
import os
import subprocess
import time

import harness
from harness import check, Open, read, same, true, write
from data import pattern, MIB, SLOT


@check(seconds=150)
def a_folder_of_100_000_entries():
    count = 100_000
    times = []

    def step(what, action):
        started = time.monotonic()
        action()
        times.append(f"{what} {time.monotonic() - started:.1f} s")

    def create():
        os.mkdir("d")
        folder = os.open("d", os.O_RDONLY)
        for index in range(count):
            os.mknod(f"entry-{index}", 0o644, dir_fd=folder)

    def walk():
        with os.scandir("d") as entries:
            same(sum(entry.stat().st_nlink for entry in entries), count)

    def delete():
        for name in os.listdir("d"):
            os.unlink("d/" + name)
        os.rmdir("d")

    step("create", create)
    step("list", lambda: same(len(set(os.listdir("d"))), count))
    step("walk", walk)
    if harness.boxfs:
        subprocess.run([harness.boxfs, "cache", "drop", "."], check=True)
        step("walk again", walk)
    step("delete", delete)
    print("100,000 entries:", ", ".join(times), file=__import__("sys").stderr)


@check(seconds=120)
def a_full_file_over_4_gib():
    """Every byte is written or copied; places on both sides of 2^32 hold what was put there."""
    block = 64 * MIB
    size = (1 << 32) + 3 * block
    with Open("f") as descriptor:
        content = pattern(block)
        done = 0
        while done < (block if harness.boxfs else 2 * MIB):     # a local disk copies bytes, so the oracle stays sparse
            done += os.pwrite(descriptor, content[done:], done)
    if harness.boxfs:
        subprocess.run([harness.boxfs, "flush", "f"], check=True)   # what is sealed is shared instead of copied
        started = time.monotonic()
        with Open("f", os.O_RDONLY) as source, Open("g") as descriptor:
            for start in range(0, size, block):
                done = 0
                while done < block:
                    done += os.copy_file_range(source, descriptor, block - done, offset_src=done, offset_dst=start + done)
        true(time.monotonic() - started < 20, "copying took as long as writing: nothing was shared")
        os.rename("g", "f")
    else:
        os.truncate("f", size)
    places = [0, 1 << 31, (1 << 32) - 4, (1 << 32) + 12_345, size - 8] + [index * 97 * MIB + index for index in range(1, 44)]
    with Open("f") as descriptor:
        for place in places:
            same(os.pwrite(descriptor, b"%08d" % (place % 99_999_989), place), 8)
        same(os.fstat(descriptor).st_size, size)
    for _ in range(2):
        with Open("f", os.O_RDONLY) as descriptor:
            for place in places:
                same(os.pread(descriptor, 8, place), b"%08d" % (place % 99_999_989), f"at {place}")
            if harness.boxfs:
                for place in ((1 << 32) - 100, (1 << 32) + 2 * MIB, 3 * (1 << 30) + 17):
                    offset = place % block
                    same(os.pread(descriptor, 50, place), content[offset:offset + 50], f"at {place}")
        if harness.boxfs:
            subprocess.run([harness.boxfs, "flush", "f"], check=True)
            subprocess.run([harness.boxfs, "cache", "drop", "f"], check=True)
