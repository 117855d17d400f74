"""Listing folders, also while they change."""
import os
import stat
from ctypes import c_char_p, c_long, c_void_p, cast, c_uint64, c_uint16, c_ubyte, POINTER, Structure, c_char
import ctypes
from errno import *

from harness import check, fails, libc, Open, same, true, write


class Entry(Structure):
    """struct dirent of readdir(3) on 64-bit Linux."""
    _fields_ = [("inode", c_uint64), ("offset", c_long), ("length", c_uint16), ("type", c_ubyte), ("name", c_char * 256)]


libc.opendir.restype = libc.readdir.restype = c_void_p
libc.telldir.restype = c_long
for function in (libc.readdir, libc.telldir, libc.rewinddir, libc.closedir):
    function.argtypes = [c_void_p]
libc.seekdir.argtypes = [c_void_p, c_long]


class Listing:
    def __init__(self, path):
        self.stream = libc.opendir(os.fsencode(path))
        true(self.stream, "opendir failed")

    def next(self):
        address = libc.readdir(self.stream)
        return cast(address, POINTER(Entry)).contents if address else None

    def names(self):
        names = []
        while entry := self.next():
            names.append(os.fsdecode(entry.name))
        return names

    def tell(self):
        return libc.telldir(self.stream)

    def seek(self, position):
        libc.seekdir(self.stream, position)

    def rewind(self):
        libc.rewinddir(self.stream)


def fill(folder, count):
    os.mkdir(folder)
    for index in range(count):
        os.mknod(f"{folder}/n{index:05}")


@check
def dot_and_dotdot_and_types():
    os.makedirs("d/sub")
    write("d/file"), os.symlink("x", "d/link"), os.mkfifo("d/pipe")
    listing = Listing("d")
    entries = {}
    while entry := listing.next():
        entries[os.fsdecode(entry.name)] = (entry.type, entry.inode)
    same({name: kind for name, (kind, _) in entries.items()}, {".": 4, "..": 4, "sub": 4, "file": 8, "link": 10, "pipe": 1})
    same((entries["."][1], entries[".."][1], entries["file"][1]), tuple(os.lstat(path).st_ino for path in ("d", ".", "d/file")))


@check
def positions_come_back():
    fill("d", 500)
    listing = Listing("d")
    positions, order = [], []
    while True:
        position = listing.tell()
        entry = listing.next()
        if not entry:
            break
        positions.append(position)
        order.append(os.fsdecode(entry.name))
    same(len(set(order)), 502)
    for index in (0, 1, 2, 250, 499, 501, 3):
        listing.seek(positions[index])
        same(os.fsdecode(listing.next().name), order[index])
    listing.rewind()
    same(listing.names(), order)


@check
def a_listing_while_entries_are_removed():
    """No name twice, no removed name after its removal in what is read anew, every other name once."""
    fill("d", 3000)
    listing = Listing("d")
    seen = [os.fsdecode(listing.next().name) for _ in range(500)]
    half = listing.tell()
    gone = [f"n{index:05}" for index in range(0, 3000, 2)]
    for name in gone:
        os.unlink(f"d/{name}")
    seen += listing.names()
    same(len(seen), len(set(seen)))
    same({f"n{index:05}" for index in range(1, 3000, 2)} - set(seen), set())
    listing.seek(half)
    again = listing.names()
    true(set(again) <= set(seen), "seekdir brings names that were not there")
    listing.rewind()
    same(set(listing.names()), {".", ".."} | {f"n{index:05}" for index in range(1, 3000, 2)})


@check
def removing_everything_while_reading():
    fill("d", 3000)
    listing = Listing("d")
    count = 0
    while entry := listing.next():
        name = os.fsdecode(entry.name)
        if name not in (".", ".."):
            os.unlink(f"d/{name}")
            count += 1
    same(count, 3000)
    os.rmdir("d")


@check
def a_listing_while_entries_come():
    fill("d", 1000)
    listing = Listing("d")
    seen = [os.fsdecode(listing.next().name) for _ in range(300)]
    for index in range(1000):
        os.mknod(f"d/m{index:05}")
    os.rename("d/n00001", "d/renamed")
    seen += listing.names()
    same(len(seen), len(set(seen)))
    same({f"n{index:05}" for index in range(2, 1000)} - set(seen), set())
    same(len(os.listdir("d")), 2000)


@check
def two_listings_of_one_folder():
    fill("d", 300)
    one, two = Listing("d"), Listing("d")
    first = [os.fsdecode(one.next().name) for _ in range(100)]
    whole = two.names()
    same(len(whole), 302)
    same(set(first + one.names()), set(whole))


@check
def a_removed_name_stays_removed():
    """readdirplus must not bring a name back that was removed since the listing was taken."""
    fill("d", 200)
    listing = Listing("d")
    listing.next()
    for index in range(200):
        os.unlink(f"d/n{index:05}")
    listing.names()
    for index in range(200):
        fails(ENOENT, os.stat, f"d/n{index:05}")
    for index in range(200):
        write(f"d/n{index:05}", b"new")
        same(os.stat(f"d/n{index:05}").st_size, 3)


@check
def removing_a_tree():
    for index in range(30):
        os.makedirs(f"t/{index % 5}/{index}/deep")
        write(f"t/{index % 5}/{index}/deep/file", b"x")
    import shutil
    shutil.rmtree("t")
    same(os.listdir("."), [])
