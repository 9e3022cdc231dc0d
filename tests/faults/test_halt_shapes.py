"""HALT in each shape, at each point, for every transport: exit 5 at once, and nothing published after."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from harness import points, report
from scene import Scene, Sender, contents, verdict
from support import Run, pairs

from cas.locks import held
from cas.transports.attempt import WINDOW

SECONDS = 2
WAYS = ("local", "sftp", "python", "rsync")
# Sets HALT right after the step that is named first has been done for the first time, in cas's own process.
DRIVER = """
import sys
from cas.transports.transport import Transport
from cas.cli import main
from test_halt_shapes import made
step, shape, path = sys.argv[1:4]
whole = getattr(Transport, step)
async def halted(*given):
    value = await whole(*given)
    made(shape, path)
    return value
setattr(Transport, step, halted)
sys.exit(main(sys.argv[4:]))
"""
# The same where the steps are done on the other machine: once all is claimed there, and leave to publish is asked for;
# or when word comes of the first file that is visible.
DRIVER_THERE = """
import sys
from cas.transports import orders, remote
from cas.cli import main
from test_halt_shapes import made
step, shape, path = sys.argv[1:4]
def before(whole):
    def halted(*given):
        made(shape, path)
        return whole(*given)
    return halted
if step == "claim":
    remote._Leave.give = before(remote._Leave.give)
else:
    orders.see = before(orders.see)
sys.exit(main(sys.argv[4:]))
"""
# Sets HALT once cas waits: for its next attempt, or for another run's lock.
WAITING = """
import sys
from cas.cli import main
from cas.surroundings import Signals
from test_halt_shapes import made
_, shape, path = sys.argv[1:4]
whole = Signals.pause
def halted(self, seconds):
    whole(self, 0.2)
    made(shape, path)
    whole(self, seconds)
Signals.pause = halted
sys.exit(main(sys.argv[4:]))
"""


def _text(path: Path) -> None:
    path.write_text("the release is wrong\n", encoding="utf-8")


def _empty(path: Path) -> None:
    path.touch()


def _control(path: Path) -> None:
    path.write_bytes(b"\x1b]0;x\x07\x1b[2J\r\n\x00\n")


def _undecodable(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x80")


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 34)


def _unreadable(path: Path) -> None:
    path.write_text("no one may read this", encoding="utf-8")
    path.chmod(0)


def _folder(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    folder = Path.cwd()
    os.chdir(path.parent)  # a socket's path holds 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(folder)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


SHAPES: dict[str, Callable[[Path], None]] = {
    "text": _text,
    "empty": _empty,
    "control-characters": _control,
    "undecodable": _undecodable,
    "huge": _huge,
    "unreadable": _unreadable,
    "folder": _folder,
    "fifo": _fifo,
    "socket": _socket,
    "dangling-link": _dangling,
    "looping-link": _loop,
    "link-to-a-device": _device,
}
PUBLISHED = {
    "before": (0, 0),
    "claim": (0, 0),
    "publish_signature": (0, 1),
    "publish_message": (1, 1),
    "waiting": (0, 0),
}
"""For each point, how many messages and how many signatures are there by then, of a lane of three."""


def made(shape: str, path: str | Path) -> None:
    """HALT in this shape, unless it is set already."""
    if not os.path.lexists(path):
        SHAPES[shape](Path(path))


def every() -> list[tuple[str, str, str]]:
    # There, publications are asked for so many at a time: a test of its own.
    there = {("python", "publish_signature"), ("python", "publish_message")}
    ways = [(way, point) for way in WAYS for point in PUBLISHED if (way, point) not in there]
    return [(way, point, shape) for shape in SHAPES for way, point in ways]


def halted(scene: Scene, sender: Sender, manifest: Path, way: str, point: str, shape: str) -> tuple[Run, float]:
    """A run that HALT stops at this point; the seconds that it took from then on."""
    halt = sender.home.config / "HALT"
    argv: tuple[str | Path, ...] = ("apply", manifest)
    if point == "before":
        made(shape, halt)
        run = sender.run(*argv)
    elif point != "waiting":
        run = sender.run(point, shape, halt, *argv, driver=DRIVER_THERE if way == "python" else DRIVER)
    elif way == "local":
        with locked(sender, scene.inbox(way, manifest.parent.name, sender)):
            run = sender.run(point, shape, halt, *argv, driver=WAITING)
    else:
        with socket.socket() as refusing:
            refusing.bind(("127.0.0.1", 0))
            sender.home.peers(scene.peers(refusing.getsockname()[1]))
            run = sender.run(point, shape, halt, *argv, driver=WAITING)
        sender.home.peers(scene.peers(scene.server.port))
    return run, time.time() - os.lstat(halt).st_ctime


def locked(sender: Sender, inbox: Path) -> AbstractContextManager[None]:
    """Another run holds the lock of this inbox."""
    return held([str(inbox)], sender.home.state, patience=0, pause=time.sleep, stop=lambda: None)


def cleared(halt: Path) -> None:
    if halt.is_dir() and not halt.is_symlink():
        halt.rmdir()
    else:
        halt.unlink()


@pytest.mark.parametrize(("way", "point", "shape"), points(every(), 14))
def test_halt_stops_all_sending_at_once_whatever_it_is(scene: Scene, way: str, point: str, shape: str):
    name = f"{way}-{point.replace('_', '-')}-{shape}"
    sender = scene.sender(f"h-{name}")
    sender.environment["PYTHONPATH"] += os.pathsep + os.pathsep.join(sys.path)
    inbox = scene.inbox(way, name, sender)
    manifest = sender.manifest(name, scene.address(way, name), 3, signed=scene.key.fingerprint, retries=3, backoff=30)

    run, seconds = halted(scene, sender, manifest, way, point, shape)

    names = pairs(inbox)
    messages = [one for one in names if one.endswith(".org")]
    after = len(messages) - PUBLISHED[point][0]
    report("HALT", points=1, published_after=after, late=int(seconds > SECONDS), other_exit_code=int(run.code != 5))
    assert run.code == 5, run.err
    assert "HALT" in run.err
    assert (len(messages), len(names) - len(messages)) == PUBLISHED[point]
    assert seconds < SECONDS

    cleared(sender.home.config / "HALT")
    again = sender.run("apply", manifest)

    assert again.code == 0, again.err
    assert verdict(inbox, contents(manifest), signed=True).sound


def test_halt_stops_the_code_on_the_other_machine_within_its_window(scene: Scene):
    sender = scene.sender("there")
    sender.environment["PYTHONPATH"] += os.pathsep + os.pathsep.join(sys.path)
    manifest = sender.manifest("m", scene.address("python", "there"), 3 * WINDOW, signed=scene.key.fingerprint)
    inbox = scene.inbox("python", "there", sender)

    run = sender.run("shown", "text", sender.home.config / "HALT", "apply", manifest, driver=DRIVER_THERE)
    then = pairs(inbox)
    time.sleep(1)

    messages = [name for name in then if name.endswith(".org")]
    assert run.code == 5, run.err
    assert 0 < len(messages) <= WINDOW
    assert pairs(inbox) == then
    report("HALT", points=1, published_after=0)
    (sender.home.config / "HALT").unlink()
    assert sender.run("apply", manifest).code == 0
    found = verdict(inbox, contents(manifest), signed=True)
    assert (found.lost, found.doubled, found.unsigned) == (0, 0, 0)
