"""What Linux's system calls do on a local disk, as small named checks.

    python3 Tests/SystemCalls FOLDER [--mount] [--sets names,data,…] [--only TEXT] [--boxfs PROGRAM] [--list]

FOLDER lies on the file system under test. Without --mount it is a local disk, the oracle: a check that does not pass there is wrong
itself. With --mount the checks of what docs/SEMANTICS.md promises otherwise run too. Prints one line of JSON for each check:
{name, passed, seconds, message, place}; exits with 1 if one failed. Python 3.11, standard library only.
"""
import argparse
import json
import sys

import harness
import attributes, data, directories, large, locks, mappings, names, owners, programs      # noqa: F401, E401 (they register checks)


def main():
    parser = argparse.ArgumentParser(prog="SystemCalls")
    parser.add_argument("folder")
    parser.add_argument("--mount", action="store_true")
    parser.add_argument("--sets", default="names,data,mappings,locks,attributes,directories,programs")
    parser.add_argument("--only", default="")
    parser.add_argument("--boxfs", help="the command line, for checks that flush or drop caches")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    harness.is_mount, harness.boxfs = options.mount, options.boxfs
    sets = options.sets.split(",")
    failed = 0
    for check in harness.checks:
        if check.group not in sets or options.only not in check.name:
            continue
        if check.where == "mount" and not options.mount or check.where == "disk" and options.mount:
            continue
        if options.list:
            print(check.name)
            continue
        result = harness.run(check, options.folder)
        failed += not result["passed"]
        if "ENOTCONN" in result["message"]:
            sys.exit(f"{check.name}: the file system is gone")
        print(json.dumps(result), flush=True)
    sys.exit(failed > 0)


main()
