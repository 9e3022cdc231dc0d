"""`--engine` on the command line, with real Dask clusters: what is refused, in which words, and TLS."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, cluster
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support import ROOT, Forge, Home, Run, pairs

from cas import __version__
from cas.loopback import Key
from cas.watchman import Watchman

Cas = Callable[..., Run]
ELSEWHERE = "192.0.2.1"  # RFC 5737: nobody's


@pytest.fixture
def manifest(peer: Forge, gnupg: Key, home: Home, message: Callable[..., Path]) -> Path:
    """One message to forge, whose key all workers know."""
    home.peers(peer.toml(host_key=peer.server.host_key))
    message("hello.org")
    path = Path("m.yaml")
    path.write_text("{cas: 1, sends: [{id: hello, destination: forge.docs, message: hello.org}]}", encoding="utf-8")
    return path


def test_a_cluster_delivers_and_its_workers_are_told_of(cas: Cas, manifest: Path, peer: Forge, dask_cluster: Cluster):
    run = cas("apply", manifest, *dask_cluster.options_here)

    assert run.code == 0, run.err
    assert f"note: by 2 workers with 2 threads at {dask_cluster.engine}" in run.err
    assert run.out.startswith(f"sent: {peer.user}@127.0.0.1:")
    assert len(pairs(peer.inbox("docs"))) == 2


def test_what_failed_is_finished_by_a_cluster(cas: Cas, manifest: Path, peer: Forge, home: Home, dask_cluster: Cluster):
    home.peers(peer.toml(host_key="SHA256:" + "A" * 43))
    assert cas("apply", manifest, *dask_cluster.options_here).code == 3
    assert len(home.markers()) == 1
    home.peers(peer.toml(host_key=peer.server.host_key))

    run = cas("retry", "--all", *dask_cluster.options_here)

    assert (run.code, home.markers()) == (0, ()), run.err
    assert len(pairs(peer.inbox("docs"))) == 2


def test_with_json_the_words_go_to_stderr(cas: Cas, manifest: Path, dask_cluster: Cluster):
    run = cas("apply", manifest, *dask_cluster.options_here, "--output", "json")

    assert json.loads(run.out)["counts"]["delivered"] == 1
    assert "note: by 2 workers" in run.err


def test_a_run_leaves_nothing_in_the_cluster(cas: Cas, manifest: Path, dask_cluster: Cluster):
    cas("apply", manifest, *dask_cluster.options_here)

    assert left_in(dask_cluster) == {"tasks": 0, "plugins": 0, "variables": 0, "events": 0, "metadata": 0}


def left_in(there: Cluster) -> dict[str, int]:
    from distributed import Client

    def count(dask_scheduler: Any) -> dict[str, int]:
        return {
            "tasks": len(dask_scheduler.tasks),
            "plugins": sum(name.startswith("cas-") for name in dask_scheduler.worker_plugins),
            "variables": len(dask_scheduler.extensions["variables"].variables),
            "events": len(dask_scheduler.extensions["events"]._events),
            "metadata": len(dask_scheduler.task_metadata),
        }

    with Client(there.address, set_as_default=False) as client:
        return client.run_on_scheduler(count)


def test_who_watches_for_one_that_was_killed_comes_to_rest(dask_cluster: Cluster):
    """It stays with the workers, and each of its questions would go to the scheduler for good."""
    from distributed import Client

    def looking(dask_worker: Any) -> bool:
        return dask_worker.plugins["forsaken"].looking

    with Client(dask_cluster.address, set_as_default=False) as client:
        client.register_plugin(Watchman("forsaken", keeps_on=1.0))
        assert list(client.run(looking).values()) == [True, True]
        deadline = time.monotonic() + 30
        while any(client.run(looking).values()) and time.monotonic() < deadline:
            time.sleep(0.1)

        assert list(client.run(looking).values()) == [False, False]

        client.unregister_worker_plugin("forsaken")


def test_halt_is_found_before_any_cluster_is_asked(cas: Cas, manifest: Path, home: Home):
    home.halt("maintenance")

    run = cas("apply", manifest, "--engine", f"dask://{ELSEWHERE}:8786")

    assert run.code == 5


@pytest.mark.parametrize(
    "name",
    [
        "dask",
        "ray://127.0.0.1:1",
        "dask://",
        "dask://127.0.0.1",
        "dask://:8786",
        "tcp://127.0.0.1:8786",
        "",
        "dask://h:x",
    ],
)
def test_what_is_no_engine_is_wrong_usage(cas: Cas, manifest: Path, name: str):
    run = cas("apply", manifest, "--engine", name)

    assert run.code == 64
    assert f"`--engine {name}` is no engine" in run.err
    assert "dask://HOST:PORT" in run.err


@pytest.mark.parametrize("verb", ["apply", "retry"])
def test_a_cluster_on_another_machine_without_tls_is_refused(
    cas: Cas, manifest: Path, peer: Forge, home: Home, verb: str
):
    if verb == "retry":
        home.peers(peer.toml(host_key="SHA256:" + "A" * 43))
        assert cas("apply", manifest).code == 3

    run = cas(verb, manifest if verb == "apply" else "--all", "--engine", f"dask://{ELSEWHERE}:8786")

    assert run.code == 1
    assert "has no TLS" in run.err
    assert "--insecure-engine" in run.err
    assert "nothing was sent" in run.err


@pytest.mark.threat("local account", "run code as the user by the scheduler of a run")
@pytest.mark.parametrize(
    "address", ["127.0.0.1:8786", "127.9.9.9:8786", "[::1]:8786", "localhost:8786", "scheduler:8786"]
)
def test_a_cluster_without_tls_is_refused_on_loopback_too(cas: Cas, manifest: Path, address: str):
    run = cas("apply", manifest, "--engine", f"dask://{address}")

    assert (run.code, "error[engine-insecure]" in run.err) == (1, True)
    assert "nothing was sent" in run.err


def test_where_no_scheduler_answers_nothing_is_sent(cas: Cas, manifest: Path, peer: Forge):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens

        run = cas("apply", manifest, "--insecure-engine", "--engine", f"dask://127.0.0.1:{closed.getsockname()[1]}")

    assert run.code == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:" in run.err
    assert "nothing was sent" in run.err
    assert "Traceback" not in run.err
    assert not peer.inbox("docs").exists()


def test_a_cluster_without_workers_is_refused_and_with_some_of_another_cas_too(
    cas: Cas, manifest: Path, peer: Forge, tmp_path: Path
):
    other = tmp_path / "other" / "cross_agent_send-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: cross-agent-send\nVersion: 0.0.1\n", encoding="utf-8")

    with cluster(tmp_path / "cluster", workers=0) as there:
        empty = cas("apply", manifest, *there.options_here)
        with there.worker("old", PYTHONPATH=f"{other.parent}{os.pathsep}{ROOT}"):
            old = cas("apply", manifest, *there.options_here)

    assert (empty.code, old.code) == (1, 1)
    assert "has no workers" in empty.err
    assert f"has cas 0.0.1, and this is {__version__}; so it is with 1 of 2" in old.err
    assert "nothing was sent" in empty.err
    assert "nothing was sent" in old.err
    assert not peer.inbox("docs").exists()


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """A CA, and a certificate of it with its key."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def options(self) -> tuple[str, ...]:
        """As the programs of Dask take them."""
        files = ("--tls-ca-file", self.authority, "--tls-cert", self.certificate, "--tls-key", self.key)
        return ("--protocol", "tls", *map(str, files))

    @property
    def environment(self) -> dict[str, str]:
        """As Dask's configuration takes them, for who asks."""
        comm = "DASK_DISTRIBUTED__COMM__TLS__"
        return {
            f"{comm}CA_FILE": str(self.authority),
            f"{comm}CLIENT__CERT": str(self.certificate),
            f"{comm}CLIENT__KEY": str(self.key),
        }


def certificates(folder: Path) -> Certificates:
    """A new CA and what it signs."""
    folder.mkdir()
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
    now = datetime.now(UTC)

    def signed(name: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        return (
            x509.CertificateBuilder(ca_name, name, public, x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(ca_key, hashes.SHA256())
        )

    made = Certificates(authority=folder / "ca.pem", certificate=folder / "cert.pem", key=folder / "key.pem")
    encoding = serialization.Encoding.PEM
    made.authority.write_bytes(signed(ca_name, ca_key.public_key(), ca=True).public_bytes(encoding))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    made.certificate.write_bytes(signed(name, key.public_key(), ca=False).public_bytes(encoding))
    plain = serialization.NoEncryption()
    made.key.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    return made


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Certificates]]:
    folder = tmp_path_factory.mktemp("tls")
    made = certificates(folder / "ours")
    options = made.options
    with cluster(folder / "cluster", 1, options=options, scheduler_options=options) as there:
        yield there, made


def test_over_tls_a_cluster_delivers_to_who_has_a_certificate(
    cas_process: Callable[..., subprocess.Popen[str]], manifest: Path, peer: Forge, tls: tuple[Cluster, Certificates]
):
    there, ours = tls
    assert there.engine.startswith("tls://127.0.0.1:")

    process = cas_process(
        "apply", manifest, *there.options_here, env={**os.environ, "PYTHONPATH": str(ROOT), **ours.environment}
    )

    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith("sent: ")
    assert len(pairs(peer.inbox("docs"))) == 2


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another account")
def test_another_account_gives_no_work_to_a_cluster_with_tls(tls: tuple[Cluster, Certificates]):
    """It can reach the port on loopback, and has no certificate."""
    there, _ = tls
    script = """
import os, sys
from distributed import Client, Security
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for security in (None, Security.temporary()):
    address = sys.argv[1] if security else sys.argv[1].replace("tls://", "tcp://")
    try:
        with Client(address, security=security, timeout=5) as client:
            print(client.submit(os.getuid).result(timeout=5))
    except Exception:
        print("refused")
"""
    run = subprocess.run(
        [sys.executable, "-c", script, there.address], capture_output=True, text=True, timeout=100, check=False, cwd="/"
    )

    assert run.stdout.split() == ["refused", "refused"], run.stderr


@pytest.mark.parametrize("who", ["without a certificate", "with a stranger's", "without tls"])
def test_a_cluster_with_tls_takes_nothing_of_others(
    cas_process: Callable[..., subprocess.Popen[str]],
    manifest: Path,
    peer: Forge,
    tls: tuple[Cluster, Certificates],
    tmp_path: Path,
    who: str,
):
    there, ours = tls
    given: dict[str, str] = {}
    engine = there.engine
    if who == "with a stranger's":
        given = {
            **certificates(tmp_path / "theirs").environment,
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(ours.authority),
        }
    if who == "without tls":
        engine = engine.replace("tls://", "dask://")

    process = cas_process(
        "apply", manifest, "--insecure-engine", "--engine", engine, env={**os.environ, "PYTHONPATH": str(ROOT), **given}
    )

    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "no Dask scheduler answers" in err
    assert "nothing was sent" in err
    assert "Traceback" not in err
    assert not peer.inbox("docs").exists()


def test_a_local_cluster_with_tls_goes_as_its_page_says(manifest: Path, peer: Forge, home: Home, tmp_path: Path):
    page = (ROOT / "docs" / "how-to" / "scale.md").read_text(encoding="utf-8")
    (block,) = (one for one in page.split("```sh\n") if "openssl req" in one)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("cas", "cas"), ("dask", "dask")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    script = block.partition("```")[0].replace("8786", str(port)).replace("release.yaml", str(manifest))

    process = subprocess.Popen(
        ["bash", "-u", "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{programs}:{os.environ['PATH']}"},
        start_new_session=True,
    )
    try:
        process.wait(timeout=100)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    assert len(list(peer.inbox("docs").glob("*.org"))) == 1
