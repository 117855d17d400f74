"""Registers checks and runs each in a process of its own, in a folder of its own, with a deadline."""
import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import time
import traceback

checks = []
is_mount = False
boxfs = None
libc = ctypes.CDLL(None, use_errno=True)

DEADLINE_SECONDS = 60


class Check:
    def __init__(self, function, where, seconds):
        self.function, self.where, self.seconds = function, where, seconds
        self.group = function.__module__
        self.name = f"{self.group}.{function.__name__}"


def check(function=None, *, where="both", seconds=DEADLINE_SECONDS):
    """Registers a check. where: "both", "mount" (a documented difference) or "disk"."""
    if function is None:
        return lambda function: check(function, where=where, seconds=seconds)
    checks.append(Check(function, where, seconds))
    return function


def name(number):
    return errno.errorcode.get(number, str(number))


def same(found, wanted, what=""):
    if found != wanted:
        def short(value):
            text = repr(value)
            return text if len(text) < 200 else text[:200] + "…"
        raise AssertionError(f"{what + ': ' if what else ''}{short(found)} instead of {short(wanted)}")


def true(condition, what):
    if not condition:
        raise AssertionError(what)


def fails(numbers, call, *arguments, **keywords):
    """The call must end with this errno (or one of these)."""
    numbers = numbers if isinstance(numbers, tuple) else (numbers,)
    wanted = " or ".join(name(number) for number in numbers)
    try:
        call(*arguments, **keywords)
    except OSError as error:
        if error.errno not in numbers:
            raise AssertionError(f"{name(error.errno)} instead of {wanted}") from None
    else:
        raise AssertionError(f"success instead of {wanted}")


def system(function, *arguments):
    """Calls libc; raises OSError as os does."""
    result = function(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def write(path, data=b"", mode=0o644):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        while data:
            data = data[os.write(descriptor, data):]
    finally:
        os.close(descriptor)


def read(path):
    with open(path, "rb", buffering=0) as file:
        return file.readall()


class Open:
    """A descriptor that is closed at the end of a with statement."""
    def __init__(self, path, flags=os.O_RDWR | os.O_CREAT, mode=0o644):
        self.descriptor = os.open(path, flags, mode)

    def __enter__(self):
        return self.descriptor

    def __exit__(self, *_):
        os.close(self.descriptor)


def in_child(function, *arguments):
    """Runs a function in a child and raises here what it raised there."""
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        try:
            function(*arguments)
            os._exit(0)
        except BaseException as error:
            os.write(target, describe(error).encode())
            os._exit(1)
    os.close(target)
    with os.fdopen(source, "rb") as pipe:
        message = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if status:
        raise AssertionError(message or f"the child ended with wait status {status}")


def describe(error):
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.endswith("harness.py")]
    place = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
    text = f"{name(error.errno)} ({error})" if isinstance(error, OSError) and error.errno else str(error) or type(error).__name__
    return f"{place}: {text}"


def run(check, folder):
    place = os.path.join(folder, check.name)
    started = time.monotonic()
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        os.setpgid(0, 0)
        try:
            os.mkdir(place)
            os.chdir(place)
            os.umask(0o022)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])      # who started this may have blocked some
            check.function()
            os._exit(0)
        except BaseException as error:
            os.write(target, describe(error).encode())
            os._exit(1)
    os.close(target)
    message = wait(child, source, check.seconds)
    shutil.rmtree(place, ignore_errors=True)
    return {"name": check.name, "passed": message is None, "seconds": round(time.monotonic() - started, 2), "message": message or ""}


def wait(child, source, seconds):
    """The child's message, None if it passed. At the deadline the child and all it started are killed."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            try:
                where = open(f"/proc/{child}/stack").read().split("\n")[0]
            except OSError:
                where = "?"
            os.killpg(child, signal.SIGKILL)
            os.close(source)
            return f"not done after {seconds} s (in {where})"
        time.sleep(0.002)
    os.set_blocking(source, False)
    try:
        message = os.read(source, 65536).decode()
    except BlockingIOError:
        message = ""
    os.close(source)
    if status == 0:
        return None
    return message or f"wait status {status}"
