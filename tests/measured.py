"""Runs a command and says as JSON how it ended, its processor seconds and its most memory, in MB.

A process of its own, and a small one: until a child has replaced it, its parent's memory counts as the child's.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[_into("out", 1), _into("err", 2)])
    _, status, used = os.wait4(child, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))


def _into(name: str, stream: int) -> tuple[int, int, str, int, int]:
    return os.POSIX_SPAWN_OPEN, stream, name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600


if __name__ == "__main__":
    main()
