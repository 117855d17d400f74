"""Running programs that lie on the file system."""
import os
import shutil
import signal
import subprocess
import time
from errno import *

from harness import check, fails, Open, read, same, true, write


@check
def a_running_program_is_busy_and_may_be_replaced():
    shutil.copy("/bin/sleep", "program")
    process = subprocess.Popen(["./program", "30"])
    try:
        time.sleep(0.1)
        fails(ETXTBSY, os.open, "program", os.O_WRONLY)
        fails(ETXTBSY, os.truncate, "program", 0)
        shutil.copy("/bin/true", "new")
        os.rename("new", "program")
        same(subprocess.run(["./program"]).returncode, 0)
        same(process.poll(), None, "the running program ended")
    finally:
        process.kill()
        process.wait()


@check
def a_program_open_for_writing_cannot_run():
    shutil.copy("/bin/true", "program")
    with Open("program", os.O_RDWR):
        fails(ETXTBSY, subprocess.run, ["./program"])
    same(subprocess.run(["./program"]).returncode, 0)


@check
def scripts_and_modes():
    write("script", b"#!/bin/sh\necho \"$1\"\n")
    fails(EACCES, subprocess.run, ["./script"])
    os.chmod("script", 0o755)
    same(subprocess.run(["./script", "hello"], capture_output=True).stdout, b"hello\n")


@check
def programs_run_while_they_are_replaced():
    for index in range(20):
        shutil.copy("/bin/true" if index % 2 else "/bin/false", "next")
        os.rename("next", "program")
        same(subprocess.run(["./program"]).returncode, 1 - index % 2)
