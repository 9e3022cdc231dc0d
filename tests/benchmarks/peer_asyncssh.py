"""asyncssh: all hosts side by side, and on each connection all files."""

import asyncio
import json
import sys
from pathlib import Path

import asyncssh

order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


async def deliver(host: str, port: int, folder: str, user: str, key: str) -> None:
    async with (
        asyncssh.connect(host, port, username=user, client_keys=[key], known_hosts=order["known_hosts"]) as connection,
        connection.start_sftp_client() as sftp,
    ):
        await asyncio.gather(*(sftp.put(path, f"{folder}/") for path in order["files"]))


async def main() -> None:
    await asyncio.gather(*(deliver(*target) for target in order["targets"]))


asyncio.run(main())
