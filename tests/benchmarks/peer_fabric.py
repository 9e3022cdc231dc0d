"""Fabric, used plainly: a connection a host, `put` for each file; hosts side by side in threads."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fabric import Connection

order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


def deliver(target: tuple[str, int, str, str, str]) -> None:
    host, port, folder, user, key = target
    with Connection(host, user=user, port=port, connect_kwargs={"key_filename": key}) as connection:
        for path in order["files"]:
            connection.put(path, f"{folder}/")


with ThreadPoolExecutor(16) as pool:
    list(pool.map(deliver, order["targets"]))
