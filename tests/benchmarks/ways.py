"""The ways to deliver signed messages that cas is measured beside, each as its own documentation recommends it.

None of them claims, syncs, or keeps a ledger, and all but the first make `.org` visible in any order; they do less.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.scene import Job, Target

HERE = Path(__file__).resolve().parent
HOSTS_AT_ONCE = 16
Way = Callable[[Job], None]


def cas(job: Job) -> None:
    """`cas apply`, as it comes."""
    cas_apply(job)


def cas_apply(job: Job, *options: str) -> str:
    """Have a job's manifest applied, in its home."""
    manifest, home = cas_manifest(job)
    return job.scene.run(Path(sys.executable).with_name("cas"), "apply", manifest, *options, "--quiet", HOME=str(home))


def cas_manifest(job: Job) -> tuple[Path, Path]:
    """A manifest of one send a message, and a home without a ledger; port 0 stands for this machine."""
    home = job.folder / "home"
    config = home / ".config" / "cross-agent-comms"
    config.mkdir(parents=True)
    tables = [
        f'[peers.h{number}]\nhost = "{target.host}"\nport = {target.port}\nssh_user = "{target.peer.user}"\n'
        f'identity_file = "{target.peer.identity_file}"\nhost_key = "{target.peer.host_key}"\n'
        f'[projects.p{number}]\ninbox_path = "{target.folder}"\n'
        if target.port
        else f'[projects.p{number}]\ninbox_path = "{target.folder}"\n'
        for number, target in enumerate(job.targets)
    ]
    (config / "peers.toml").write_text("".join(tables), encoding="utf-8")
    addresses = [
        f"{'local' if target.port == 0 else f'h{number}'}.p{number}" for number, target in enumerate(job.targets)
    ]
    sends = [
        {"id": f"m{number}", "destination": addresses, "message": os.path.relpath(message, job.messages[0].parent)}
        for number, message in enumerate(job.messages)
    ]
    lines = [f"  - {json.dumps(send)}\n" for send in sends]
    manifest = job.messages[0].parent / "bench.yaml"
    sign = json.dumps({"key": job.scene.key.fingerprint})
    manifest.write_text(
        f"cas: 1\nsender: bench\ndefaults: {{sign: {sign}}}\nsends:\n" + "".join(lines), encoding="utf-8"
    )
    return manifest, home


def field(job: Job) -> None:
    """The script that people write: for each message gpg, then rsync twice, signature first."""
    for target in job.targets:
        for message in job.messages:
            signature, copy = job.scene.signed([message], job.folder, at_once=1)
            for path in (signature, copy):
                job.scene.run("rsync", "-a", "-e", _rsh(job, target), path, f"{target.host}:{target.folder}/")
                path.unlink()


def rsync_folder(job: Job) -> None:
    """gpg several at a time, then one rsync of all."""
    job.scene.signed(job.messages, job.folder)
    _for_each(
        job, lambda to: job.scene.run("rsync", "-a", "-e", _rsh(job, to), f"{job.folder}/", f"{to.host}:{to.folder}/")
    )


def sftp_batch(job: Job) -> None:
    """gpg several at a time, then OpenSSH's sftp with a batch file."""
    batch = job.scene.signed(job.messages, job.folder)

    def put(to: Target) -> None:
        file = job.folder / f"batch-{to.host}"
        file.write_text("".join(f"put {path} {to.folder}/\n" for path in batch), encoding="utf-8")
        job.scene.run("sftp", "-q", *to.ssh(job.scene.known_hosts), "-P", str(to.port), "-b", file, to.host)

    _for_each(job, put)


def tar_stream(job: Job) -> None:
    """gpg several at a time, then tar through ssh."""
    job.scene.signed(job.messages, job.folder)

    def put(to: Target) -> None:
        ssh = " ".join(("ssh", *to.ssh(job.scene.known_hosts), "-p", str(to.port), to.host))
        job.scene.run("sh", "-c", f"tar -C {job.folder} -cf - . | {ssh} tar -C {to.folder} -xf -")

    _for_each(job, put)


def fabric(job: Job) -> None:
    """gpg several at a time, then a Fabric connection a host, and `put` for each file."""
    _script(job, sys.executable, "peer_fabric.py")


def asyncssh(job: Job) -> None:
    """gpg several at a time, then asyncssh: all hosts and all files side by side."""
    _script(job, _bench_python(), "peer_asyncssh.py")


def ansible(job: Job) -> None:
    """gpg several at a time, then the copy module, 50 forks, pipelining."""
    batch = job.scene.signed(job.messages, job.folder)
    hosts = {
        f"h{number}": {
            "ansible_host": to.host,
            "ansible_port": to.port,
            "ansible_user": to.peer.user,
            "ansible_ssh_private_key_file": str(to.peer.identity_file),
            "ansible_ssh_common_args": " ".join(to.ssh(job.scene.known_hosts)),
            "ansible_python_interpreter": sys.executable,
            "inbox": str(to.folder),
        }
        for number, to in enumerate(job.targets)
    }
    (job.folder / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    copies = [{"copy": {"src": str(path), "dest": "{{ inbox }}/", "mode": "preserve"}} for path in batch]
    (job.folder / "play.json").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": copies}]))
    program = Path(_bench_python()).with_name("ansible-playbook")
    job.scene.run(
        program,
        "-i",
        job.folder / "hosts.json",
        "-f",
        "50",
        job.folder / "play.json",
        ANSIBLE_PIPELINING="1",
        LC_ALL="C.UTF-8",
    )


def pyinfra(job: Job) -> None:
    """gpg several at a time, then files.put."""
    batch = job.scene.signed(job.messages, job.folder)
    hosts = [
        (
            to.host,
            {
                "ssh_port": to.port,
                "ssh_user": to.peer.user,
                "ssh_key": str(to.peer.identity_file),
                "ssh_known_hosts_file": str(job.scene.known_hosts),
                "inbox": str(to.folder),
            },
        )
        for to in job.targets
    ]
    (job.folder / "inventory.py").write_text(f"hosts = {hosts!r}\n")
    puts = "".join(f"files.put(src={str(path)!r}, dest=host.data.inbox + {'/' + path.name!r})\n" for path in batch)
    (job.folder / "deploy.py").write_text(f"from pyinfra import host\nfrom pyinfra.operations import files\n{puts}")
    program = Path(_bench_python()).with_name("pyinfra")
    job.scene.run(
        program, "-y", job.folder / "inventory.py", job.folder / "deploy.py", folder=job.folder, LC_ALL="C.UTF-8"
    )


def gpg_alone(job: Job) -> None:
    """Nothing but the signatures, several at a time."""
    job.scene.signed(job.messages, job.folder)


def _script(job: Job, python: str, name: str) -> None:
    files = job.scene.signed(job.messages, job.folder)
    order = {
        "known_hosts": str(job.scene.known_hosts),
        "files": [str(path) for path in files],
        "targets": [[to.host, to.port, str(to.folder), to.peer.user, str(to.peer.identity_file)] for to in job.targets],
    }
    (job.folder / "order.json").write_text(json.dumps(order))
    job.scene.run(python, HERE / name, job.folder / "order.json")


def _bench_python() -> str:
    """The Python that has the peers; it is none of the project's."""
    return os.environ["CAS_BENCH_PYTHON"]


def _rsh(job: Job, to: Target) -> str:
    return " ".join(("ssh", *to.ssh(job.scene.known_hosts), "-p", str(to.port)))


def _for_each(job: Job, put: Callable[[Target], object]) -> None:
    with ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
        list(pool.map(put, job.targets))
