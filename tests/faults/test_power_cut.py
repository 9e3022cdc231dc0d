"""A power cut at any call of the sender: what was said to be delivered is there, and signed."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from disks import Disk, Survives, can_mount, copied, mounted, new_image
from harness import none_wrong, points, report
from receivers import Habit, Receiver, judged
from scene import Scene, Sender, Verdict, contents
from strace import CHANGING, SYNCING, Call, calls, killed, traced
from support import Home, Run, pairs

from cas.receiver import good_signature

MESSAGES = 2
CUTS = 100
MANIFEST = Path("m", "m.yaml")
CHANGES = re.compile("(?:" + "|".join((*CHANGING, *SYNCING)) + r")\(")
SAID = re.compile(r"^(?:sent|unchanged): .*/([^/\n]+)$", re.MULTILINE)
SAID_IN_A_TRACE = re.compile(r'write\(1<[^>]*>, "((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    name: str
    struck: bool
    said: tuple[str, ...]
    present: tuple[str, ...]
    bad: tuple[str, ...]
    next: Run
    verdict: Verdict

    @property
    def missing(self) -> list[str]:
        """What was said to be delivered, and is gone."""
        return [file for name in self.said for file in (name, f"{name}.asc") if file not in self.present]

    @property
    def wrong(self) -> str:
        """What went wrong, or nothing. A cut may leave the signature in a receipt."""
        found = [
            reason
            for bad, reason in (
                (not self.struck, "the cut did not come"),
                (self.missing, f"lost after it was said to be delivered: {self.missing}"),
                (self.bad, f"without a good signature: {self.bad}"),
                (self.next.code, f"then exit code {self.next.code}: {self.next.err}"),
                (not self.verdict.sound, str(self.verdict)),
            )
            if bad
        ]
        return f"{self.name}: {'; '.join(found)}" if found else ""


def judge(name: str, results: Sequence[Result]) -> None:
    report(
        name,
        points=len(results),
        struck=sum(one.struck for one in results),
        lost_after_delivered=sum(bool(one.missing) for one in results),
        unsigned=sum(bool(one.bad) for one in results),
        lost=sum(one.verdict.lost for one in results),
        doubled=sum(one.verdict.doubled for one in results),
    )
    none_wrong(results)


def found(
    scene: Scene,
    sender: Sender,
    manifest: Path,
    name: str,
    said: Sequence[str],
    *,
    struck: bool,
    more: Sequence[str | Path] = (),
) -> Result:
    """What lies there after a cut, and what the next run makes of it."""
    inbox = sender.home.inbox("docs")
    present = pairs(inbox)
    messages = [file for file in present if file.endswith(".org")]
    bad = tuple(file for file in messages if good_signature(inbox / file, scene.key.gnupghome) is None)
    with Receiver(inbox=inbox, habit=Habit.IDLE) as receiver:
        then = sender.run("apply", manifest, *more)
    return Result(
        name=name,
        struck=struck,
        said=tuple(said),
        present=present,
        bad=bad,
        next=then,
        verdict=judged(receiver, contents(manifest)),
    )


def lines_of(trace: Path) -> list[str]:
    return trace.read_text(encoding="ascii").splitlines()


def said_in(line: str) -> list[str]:
    """The names that one call told standard output."""
    match = SAID_IN_A_TRACE.match(line)
    return SAID.findall(bytes.fromhex(match[1].replace("\\x", "")).decode()) if match else []


def moments(lines: Sequence[str], home: Path) -> list[int]:
    """Behind which calls a cut can make a difference: those that change something in a home, or say something."""
    place = "".join(f"\\x{byte:02x}" for byte in os.fsencode(home))
    return [
        number
        for number, line in enumerate(lines)
        if (place in line and CHANGES.match(line) and "O_RDONLY" not in line) or said_in(line)
    ]


@pytest.mark.parametrize("survives", Survives, ids=lambda survives: survives.name.lower())
def test_on_a_disk_that_keeps_no_more_than_was_synced(scene: Scene, survives: Survives):
    sender = scene.sender(f"model-{survives.name.lower()}")
    manifest = sender.manifest("m", "local.docs", MESSAGES, signed=scene.key.fingerprint)
    disk, trace = Disk(sender.home.path), scene.folder / f"{survives.name}.trace"
    run = traced(sender, trace, "apply", manifest, whole=True)
    assert run.code == 0, run.err
    lines, said, results = lines_of(trace), [], []
    chosen = set(points(moments(lines, sender.home.path), 8))

    for number, line in enumerate(lines):
        disk.apply(line)
        said += said_in(line)
        if number in chosen:
            disk.leave(sender.home.path, survives)
            results.append(found(scene, sender, manifest, f"behind {number}: {line[:300]}", said, struck=True))

    assert len(said) == MESSAGES
    judge(f"power cut, model: {survives.value}", results)


@pytest.mark.parametrize("survives", Survives, ids=lambda survives: survives.name.lower())
def test_what_a_killed_run_left_is_on_disk_before_the_next_one_speaks_of_it(scene: Scene, survives: Survives):
    """Killed between a rename and its sync: the next run sees a message that is published, and may be gone tomorrow."""
    sender = scene.sender(f"twice-{survives.name.lower()}")
    manifest = sender.manifest("m", "local.docs", MESSAGES, signed=scene.key.fingerprint)
    trace = scene.folder / f"twice-{survives.name}.trace"
    start = Disk(sender.home.path)
    assert traced(sender, trace, "apply", manifest).code == 0
    called = [call for call in calls(trace) if call.changes and call.touches("/docs")]
    first = next(number for number, call in enumerate(called) if call.name in ("link", "linkat"))
    results = []

    for call in points(called[first:], 6):
        start.leave(sender.home.path, Survives.SYNCED)
        disk = Disk(sender.home.path)
        traced(sender, trace, "apply", manifest, inject=f"{call.name}:signal=KILL:when={call.number}", whole=True)
        struck, lines = killed(trace), lines_of(trace)
        then = traced(sender, trace, "apply", manifest, whole=True)
        assert then.code == 0, then.err
        for line in [*lines, *lines_of(trace)]:
            disk.apply(line)
        disk.leave(sender.home.path, survives)
        said = SAID.findall(then.out)
        assert len(said) == MESSAGES
        results.append(found(scene, sender, manifest, f"after a kill at {call}", said, struck=struck))

    judge("power cut after a kill and the next run", results)


def cut(scene: Scene, blank: Path, call: Call, *, apart: bool) -> Result:
    """Ends the sender at a call, and the disk with it. `apart`: its state is on another disk, which goes on."""
    place, image = scene.folder / "disk", scene.folder / "cut.image"
    copied(blank, image)
    sender = on_disk(scene)
    name = f"{call.name}-{call.number}" + ("-apart" if apart else "")
    trace, state = scene.folder / f"{name}.trace", scene.folder / f"{name}-state" / "as" / "deep"
    argv = ("apply", MANIFEST, *(("--state-dir", state) if apart else ()))
    with mounted(image, place):
        run = traced(sender, trace, *argv, inject=f"{call.name}:signal=KILL:when={call.number}")
        copied(image, scene.folder / "left.image")
    with mounted(scene.folder / "left.image", place):
        return found(
            scene,
            sender,
            sender.project / MANIFEST,
            f"{name}: {call}",
            SAID.findall(run.out),
            struck=killed(trace),
            more=argv[2:],
        )


def on_disk(scene: Scene) -> Sender:
    """The user whose home is on the image, wherever it is mounted now."""
    (scene.folder / "elsewhere").mkdir(exist_ok=True)
    made = scene.sender(f"elsewhere/{len(os.listdir(scene.folder / 'elsewhere'))}")
    home = Home(path=scene.folder / "disk" / "home")
    return replace(made, home=home, environment={**made.environment, "HOME": str(home.path)})


def blank_image(scene: Scene) -> tuple[Path, list[Call]]:
    """A disk with a home on which nothing has been sent yet; and the calls of a delivery there."""
    place, image, trace = scene.folder / "disk", scene.folder / "blank.image", scene.folder / "clean.trace"
    new_image(image)
    with mounted(image, place):
        made = replace(scene, folder=place).sender("home")
        made.manifest("m", "local.docs", MESSAGES, signed=scene.key.fingerprint)
    copied(image, scene.folder / "clean.image")
    sender = on_disk(scene)
    with mounted(scene.folder / "clean.image", place):
        run = traced(sender, trace, "apply", MANIFEST)
        assert run.code == 0, run.err
    here = sender.home.state, sender.home.projects / "docs"
    return image, [call for call in calls(trace) if (call.changes and call.touches(*here)) or call.says]


def ext4_cuts(scene: Scene) -> list[Result]:
    blank, found_calls = blank_image(scene)
    near = [call for call in found_calls if call.touches("/docs") or call.says]
    cuts = [(call, False) for call in found_calls] + [(call, True) for call in near]
    step = max(1, len(cuts) // CUTS)
    return [cut(scene, blank, call, apart=apart) for call, apart in points(cuts[::step], 6)]


def test_on_an_ext4_that_was_copied_while_it_was_mounted(scene: Scene):
    """Where this user may mount nothing, the model alone has to do: the report then counts no ext4."""
    if not can_mount(scene.folder):
        assert os.geteuid() or not Path("/dev/loop-control").exists(), "root has loop devices, but cannot mount an ext4"
        return

    judge("power cut, ext4", ext4_cuts(scene))
