"""A long run: thousands of messages, a reader checks each pair as it appears; memory and descriptors stay level."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import points, report
from scene import ROOT, Scene, contents, ended, verdict

ROUNDS = 10
# Applies one manifest after the other in one process, and tells memory and open descriptors after each.
SENDER = """
import contextlib, io, json, os, resource, sys
from cas.cli import main
for manifest in sys.argv[1:]:
    words = io.StringIO()
    with contextlib.redirect_stdout(words):
        code = main(["apply", manifest, "--output", "json", "--quiet"])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"code": code, "memory": memory, "descriptors": len(os.listdir("/proc/self/fd"))}
    print(json.dumps(found), flush=True)
    if code:
        sys.exit(words.getvalue())
"""
# Looks at an inbox until it is told to end. Of every message that it sees, the signature has to be there already, and
# the bytes have to be some that were sent; gpg is asked for one in so many.
READER = """
import hashlib, json, os, sys
from pathlib import Path
from cas.receiver import good_signature
inbox, expected, every, end = Path(sys.argv[1]), set(json.loads(Path(sys.argv[2]).read_text())), *sys.argv[3:5]
seen, bad, verified = set(), [], 0
last = False
while True:
    last = os.path.exists(end)  # then one more look, at all that is there
    visible = [name for name in os.listdir(inbox) if name[0] != "."] if inbox.is_dir() else []
    names = {name for name in visible if name.endswith(".org")}
    for name in sorted(names - seen):
        seen.add(name)
        content, signature = (inbox / name).read_bytes(), (inbox / f"{name}.asc")
        if hashlib.sha256(content).hexdigest() not in expected:
            bad.append(f"{name}: other bytes")
        elif not signature.exists() or not signature.read_bytes().endswith(b"-----END PGP SIGNATURE-----\\n"):
            bad.append(f"{name}: no whole signature")
        elif len(seen) % int(every) == 0:
            verified += 1
            if good_signature(inbox / name, Path(os.environ["GNUPGHOME"])) is None:
                bad.append(f"{name}: a bad signature")
    if last:
        break
print(json.dumps({"seen": len(seen), "verified": verified, "bad": bad}))
"""


@contextmanager
def reading(inbox: Path, expected: Path, every: int, environment: dict[str, str]) -> Iterator[dict[str, object]]:
    """A reader for as long as the block runs; what it found is filled in at the end."""
    end = expected.with_name("end")
    command = [sys.executable, "-c", READER, str(inbox), str(expected), str(every), str(end)]
    process = subprocess.Popen(
        command, env={**environment, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    found: dict[str, object] = {}
    try:
        yield found
    finally:
        end.touch()
        run = ended(process)
    assert run.code == 0, run.err
    found |= json.loads(run.out)


@pytest.mark.parametrize(
    ("way", "many", "few"),
    [("local", 10_000, 300), ("sftp", 2_000, 100), ("python", 2_000, 100)],
    ids=["local", "sftp", "python"],
)
def test_a_long_run_brings_every_pair_whole_and_keeps_nothing(scene: Scene, way: str, many: int, few: int):
    count = points(many, few)
    sender = scene.sender(f"home-{way}")
    inbox = scene.inbox(way, way, sender)
    manifests = [
        sender.manifest(
            f"m{number}",
            scene.address(way, way),
            count // ROUNDS,
            conversations=[f"talk-{number}-{lane}" for lane in range(5)],
            signed=scene.key.fingerprint,
        )
        for number in range(ROUNDS)
    ]
    sent = [content for made in manifests for content in contents(made)]
    expected = sender.home.path / "expected.json"
    expected.write_text(json.dumps([hashlib.sha256(content).hexdigest() for content in sent]), encoding="utf-8")

    with reading(inbox, expected, max(1, count // 100), sender.environment) as read:
        run = sender.run(*manifests, driver=SENDER, timeout=3000)

    assert run.code == 0, run.err
    rounds = [json.loads(line) for line in run.out.splitlines()]
    found = verdict(inbox, sent, signed=True)
    bad = read["bad"]
    assert isinstance(bad, list)
    report(f"soak {way}", messages=count, bad=len(bad), lost=found.lost, doubled=found.doubled)
    assert bad == []
    assert read["seen"] == count
    assert found.sound, found
    memory = [one["memory"] for one in rounds]
    # The first rounds load what Python loads but once.
    assert memory[-1] < memory[2] * 1.15, memory
    assert len({one["descriptors"] for one in rounds[1:]}) == 1, rounds
