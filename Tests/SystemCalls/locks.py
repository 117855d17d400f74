"""flock(2) and fcntl(2) locks, between processes of one mount."""
import fcntl
import os
import signal
import struct
import time
from errno import *

from harness import check, fails, in_child, Open, same, true, write

OFD_SETLK = 37
FLOCK = "hhxxxxqqixxxx"     # struct flock of x86-64 and arm64


def record_lock(descriptor, command, kind, start=0, length=0):
    packed = struct.pack(FLOCK, kind, os.SEEK_SET, start, length, 0)
    return struct.unpack(FLOCK, fcntl.fcntl(descriptor, command, packed))


class Holder:
    """A process that runs `hold` and then waits to be ended."""
    def __init__(self, hold):
        source, target = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            hold()
            os.write(target, b"!")
            time.sleep(60)
            os._exit(0)
        os.close(target)
        same(os.read(source, 1), b"!", "the holder has its lock")
        os.close(source)

    def end(self):
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


kept = []      # descriptors that must live as long as their process


def opened(flags=os.O_RDWR):
    kept.append(os.open("f", flags))
    return kept[-1]


@check
def flock_between_processes():
    write("f")
    holder = Holder(lambda: fcntl.flock(opened(), fcntl.LOCK_EX))
    mine = opened()
    fails(EWOULDBLOCK, fcntl.flock, mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fails(EWOULDBLOCK, fcntl.flock, mine, fcntl.LOCK_SH | fcntl.LOCK_NB)
    holder.end()
    fcntl.flock(mine, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.flock(opened(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    fails(EWOULDBLOCK, fcntl.flock, opened(), fcntl.LOCK_EX | fcntl.LOCK_NB)


@check
def flock_waits_for_its_turn():
    write("f")
    mine = opened()
    fcntl.flock(mine, fcntl.LOCK_EX)
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        fcntl.flock(opened(), fcntl.LOCK_EX)
        os.write(target, b"mine")
        os._exit(0)
    os.set_blocking(source, False)
    time.sleep(0.2)
    fails(EAGAIN, os.read, source, 9)
    fcntl.flock(mine, fcntl.LOCK_UN)
    same(os.waitpid(child, 0)[1], 0)
    same(os.read(source, 9), b"mine")


@check
def record_locks_between_processes():
    write("f", b"x" * 100)
    holder = Holder(lambda: record_lock(opened(), fcntl.F_SETLK, fcntl.F_WRLCK, 10, 20))
    mine = opened()
    for command in (fcntl.F_SETLK, OFD_SETLK):
        fails((EAGAIN, EACCES), record_lock, mine, command, fcntl.F_RDLCK, 29, 1)
        record_lock(mine, command, fcntl.F_WRLCK, 30, 5)
        record_lock(mine, command, fcntl.F_WRLCK, 0, 10)
        record_lock(mine, command, fcntl.F_UNLCK)
    kind, _, start, length, process = record_lock(mine, fcntl.F_GETLK, fcntl.F_RDLCK, 0, 0)
    same((kind, start, length, process), (fcntl.F_WRLCK, 10, 20, holder.process))
    holder.end()
    record_lock(mine, fcntl.F_SETLK, fcntl.F_WRLCK)
    same(record_lock(mine, fcntl.F_GETLK, fcntl.F_WRLCK)[0], fcntl.F_UNLCK)


@check
def record_locks_go_with_any_close_and_open_description_locks_do_not():
    write("f")
    mine = opened()

    def others_may_lock():
        record_lock(opened(), fcntl.F_SETLK, fcntl.F_WRLCK)

    record_lock(mine, fcntl.F_SETLK, fcntl.F_WRLCK)
    fails_in_child(others_may_lock)
    os.close(os.open("f", os.O_RDONLY))
    in_child(others_may_lock)
    record_lock(mine, OFD_SETLK, fcntl.F_WRLCK)
    os.close(os.open("f", os.O_RDONLY))
    fails_in_child(others_may_lock)
    fails((EAGAIN, EACCES), record_lock, opened(), OFD_SETLK, fcntl.F_WRLCK)
    os.close(mine)
    in_child(others_may_lock)


def fails_in_child(function):
    in_child(lambda: fails((EAGAIN, EACCES), function))


class Alarm(Exception):
    pass


def interrupted(call, *arguments):
    def ring(*_):
        raise Alarm
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    started = time.monotonic()
    try:
        call(*arguments)
    except Alarm:
        true(time.monotonic() - started < 2, "the signal came through late")
    else:
        raise AssertionError("success instead of an interruption")


@check
def waiting_for_a_lock_is_interrupted_by_a_signal():
    write("f")
    holder = Holder(lambda: (fcntl.flock(opened(), fcntl.LOCK_EX), record_lock(opened(), fcntl.F_SETLK, fcntl.F_WRLCK)))
    interrupted(fcntl.flock, opened(), fcntl.LOCK_EX)
    interrupted(record_lock, opened(), fcntl.F_SETLKW, fcntl.F_WRLCK)
    holder.end()
    record_lock(opened(), fcntl.F_SETLKW, fcntl.F_WRLCK)


@check
def a_deadlock_is_told():
    write("f")
    mine = opened()
    record_lock(mine, fcntl.F_SETLK, fcntl.F_WRLCK, 0, 1)
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        other = opened()
        record_lock(other, fcntl.F_SETLK, fcntl.F_WRLCK, 1, 1)
        os.write(target, b"!")
        record_lock(other, fcntl.F_SETLKW, fcntl.F_WRLCK, 0, 1)
        os._exit(0)
    os.read(source, 1)
    time.sleep(0.2)
    fails(EDEADLK, record_lock, mine, fcntl.F_SETLKW, fcntl.F_WRLCK, 1, 1)
    record_lock(mine, fcntl.F_SETLK, fcntl.F_UNLCK)
    same(os.waitpid(child, 0)[1], 0)


@check
def lock_refusals():
    write("f")
    reader = opened(os.O_RDONLY)
    fails(EBADF, record_lock, reader, fcntl.F_SETLK, fcntl.F_WRLCK)
    fails(EBADF, record_lock, opened(os.O_WRONLY), fcntl.F_SETLK, fcntl.F_RDLCK)
    fails(EINVAL, record_lock, reader, fcntl.F_SETLK, 9)
