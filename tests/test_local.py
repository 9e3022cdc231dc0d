"""This machine's files: what `~` is, what is never replaced or followed, and what each error is told as."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cas.errors import CasError, TransferError
from cas.transports.files import LARGEST_READ, Kind
from cas.transports.local import LocalFiles
from cas.transports.transport import Transport

ROOT = Path(__file__).resolve().parent.parent


class Place:
    """A folder that is the home, and `do`, which raises what an operation raised."""

    def __init__(self, path: Path) -> None:
        self.path, self.files = path, LocalFiles(path)

    def do(self, operation: Coroutine[Any, Any, Any]) -> Any:
        (result,) = self.files.run([operation])
        if isinstance(result, CasError):
            raise result
        return result


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def failure(act: Callable[[], object]) -> TransferError:
    with pytest.raises(TransferError) as refused:
        act()
    return refused.value


# Where


@pytest.mark.parametrize(
    ("path", "absolute"),
    [("~", "{home}"), ("~/a/b", "{home}/a/b"), ("/a", "/a"), ("~other/a", "~other/a"), ("/a/~/b", "/a/~/b")],
)
def test_a_tilde_at_the_beginning_is_the_home(place: Place, path: str, absolute: str):
    assert place.files.absolute(path) == absolute.format(home=place.path)


# Looking


def test_what_stands_is_told_without_following_links(place: Place):
    (place.path / "file").touch()
    (place.path / "folder").mkdir()
    (place.path / "link").symlink_to("folder")
    (place.path / "dangling").symlink_to("nowhere")
    os.mkfifo(place.path / "pipe")

    names = ("file", "folder", "link", "dangling", "pipe", "nothing")

    assert place.files.run(place.files.kind(f"~/{name}") for name in names) == [
        Kind.FILE,
        Kind.FOLDER,
        Kind.OTHER,
        Kind.OTHER,
        Kind.OTHER,
        None,
    ]


def test_nothing_is_read_where_nothing_stands(place: Place):
    assert place.do(place.files.read("~/nothing")) is None


@pytest.mark.parametrize("target", ["file", "nowhere", "link"])
def test_a_link_is_not_read(place: Place, target: str):
    (place.path / "file").write_text("secret")
    (place.path / "link").symlink_to(target)

    assert failure(lambda: place.do(place.files.read("~/link"))).permanent


@pytest.mark.timeout(20)
def test_a_pipe_makes_no_reader_wait(place: Place):
    os.mkfifo(place.path / "pipe")

    assert place.do(place.files.read("~/pipe")) in (b"", None)


def test_a_folder_is_no_file_to_read(place: Place):
    assert failure(lambda: place.do(place.files.read("~"))).permanent


def test_a_file_without_end_is_read_so_far_and_no_further(place: Place):
    with (place.path / "large").open("wb") as file:
        file.truncate(LARGEST_READ * 4)

    assert len(place.do(place.files.read("~/large"))) == LARGEST_READ


# Making


def test_a_file_is_made_whole(place: Place):
    content = os.urandom(3 << 20)

    assert place.do(place.files.create("~/new", content)) is True
    assert (place.path / "new").read_bytes() == content


@pytest.mark.parametrize("shape", ["file", "folder", "link", "dangling link"])
def test_what_stands_is_not_replaced_by_a_new_file(place: Place, shape: str):
    _put(place.path / "new", shape)

    assert place.do(place.files.create("~/new", b"ours")) is False
    assert _stands(place.path / "new", shape)
    assert not (place.path / "nowhere").exists()


@pytest.mark.parametrize("shape", ["file", "folder", "link", "dangling link"])
def test_what_stands_is_not_replaced_by_a_new_folder(place: Place, shape: str):
    _put(place.path / "new", shape)

    assert place.do(place.files.make_folder("~/new")) is False
    assert _stands(place.path / "new", shape)


@pytest.mark.parametrize("shape", ["file", "folder", "link", "dangling link"])
def test_what_stands_is_not_replaced_by_a_second_name(place: Place, shape: str):
    (place.path / "source").write_text("ours")
    _put(place.path / "new", shape)

    assert place.do(place.files.link("~/source", "~/new")) is False
    assert _stands(place.path / "new", shape)


@pytest.mark.parametrize("shape", ["file", "folder", "link", "dangling link"])
def test_what_stands_is_not_replaced_by_a_file_that_moves(place: Place, shape: str):
    (place.path / "source").write_text("ours")
    _put(place.path / "new", shape)

    assert place.do(place.files.move("~/source", "~/new")) is False
    assert _stands(place.path / "new", shape)
    assert (place.path / "source").read_text() == "ours"


def test_a_folder_that_is_not_empty_is_not_replaced_by_one_that_moves(place: Place):
    for name in ("source", "new"):
        (place.path / name).mkdir()
        (place.path / name / name).touch()

    assert place.do(place.files.move_folder("~/source", "~/new")) is False
    assert os.listdir(place.path / "new") == ["new"]
    assert os.listdir(place.path / "source") == ["source"]


def test_a_file_that_is_gone_does_not_move(place: Place):
    assert place.do(place.files.move("~/gone", "~/new")) is False
    assert not (place.path / "new").exists()


def test_a_file_does_not_move_into_a_folder_that_is_missing(place: Place):
    (place.path / "source").write_text("ours")

    assert failure(lambda: place.do(place.files.move("~/source", "~/missing/new"))).permanent
    assert (place.path / "source").read_text() == "ours"


def test_of_many_who_move_one_file_at_once_one_does(place: Place):
    for number in range(50):
        (place.path / f"source{number}").touch()
        done: list[bool] = []
        gate = threading.Barrier(4)

        def move(number: int, gate: threading.Barrier, done: list[bool]) -> None:
            files = LocalFiles(place.path)
            gate.wait(10)
            done += files.run([files.move(f"~/source{number}", f"~/new{number}")])

        threads = [threading.Thread(target=move, args=(number, gate, done)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)

        assert sorted(done) == [False, False, False, True]


def test_a_link_to_a_link_does_not_follow_it(place: Place):
    (place.path / "secret").write_text("secret")
    (place.path / "source").symlink_to("secret")

    place.do(place.files.link("~/source", "~/new"))

    assert (place.path / "new").is_symlink()


def test_what_is_gone_is_removed_already(place: Place):
    place.do(place.files.remove("~/gone"))
    place.do(place.files.remove_folder("~/gone"))


def test_a_folder_that_is_not_empty_is_not_removed(place: Place):
    (place.path / "folder").mkdir()
    (place.path / "folder" / "foreign").touch()

    failure(lambda: place.do(place.files.remove_folder("~/folder")))

    assert (place.path / "folder" / "foreign").exists()


def test_a_link_to_a_folder_is_removed_as_a_link(place: Place):
    (place.path / "folder").mkdir()
    (place.path / "link").symlink_to("folder")

    place.do(place.files.remove("~/link"))

    assert os.listdir(place.path) == ["folder"]


# On disk


def test_a_folder_that_can_be_synced_says_nothing(place: Place):
    place.do(place.files.sync("~"))

    assert place.files.durable is True


def test_a_file_system_that_cannot_sync_is_no_error_and_is_said(place: Place):
    # What the kernel makes up has no disk.
    place.do(place.files.sync("/proc"))

    assert place.files.durable is False


def test_a_folder_that_is_missing_cannot_be_synced(place: Place):
    assert failure(lambda: place.do(place.files.sync("~/missing"))).permanent


# Errors


@pytest.mark.parametrize(
    ("path", "words", "code"),
    [
        ("~/file/new", "not a directory: `~/file/new`", "file-operation-failed"),
        ("~/missing/new", "no such file or directory: `~/missing/new`", "file-operation-failed"),
        ("~/" + "x" * 300, "file name too long", "file-operation-failed"),
        ("~/" + "x/" * 3_000 + "x", "file name too long", "file-operation-failed"),
        ("~/loop/new", "too many levels of symbolic links", "file-operation-failed"),
    ],
    ids=["file as folder", "missing folder", "long name", "long path", "loop"],
)
def test_an_error_says_what_and_where_and_no_retry_mends_it(place: Place, path: str, words: str, code: str):
    (place.path / "file").touch()
    (place.path / "loop").symlink_to("loop")

    for operation in (place.files.create(path, b""), place.files.make_folder(path)):
        error = failure(lambda operation=operation: place.do(operation))

        assert (error.code, error.permanent) == (code, True)
        assert str(error).startswith(words)


def test_what_may_not_be_written_says_who_can_mend_it(place: Place):
    # Not even root makes a folder there.
    error = failure(lambda: place.do(place.files.make_folder("/sys/new")))

    assert (error.code, error.permanent) == ("no-permission", True)
    assert error.hint


def test_a_folder_that_others_may_not_read_is_told(tmp_path: Path):
    # Root may read all: another user does not.
    (tmp_path / "closed").mkdir(mode=0)
    code = """
        import os, sys
        from pathlib import Path
        from cas.transports.local import LocalFiles
        files = LocalFiles(Path(sys.argv[1]))
        os.chdir("/")
        if os.geteuid() == 0:
            os.setgroups([]), os.setgid(65534), os.setuid(65534)
        (error,) = files.run([files.names("~/closed")])
        print(error.code, error.permanent)
    """

    assert _ran(code, tmp_path) == "no-permission True\n"


def test_a_disk_that_is_full_leaves_nothing_and_says_so(tmp_path: Path):
    # The limit on a file's size stands in for the disk: the write stops in the middle.
    code = """
        import os, sys
        from pathlib import Path
        from cas.transports.local import LocalFiles
        from cas.transports.transport import Envelope, Transport
        transport = Transport(LocalFiles(Path(sys.argv[1])))
        transport.run([transport.prepare("~/inbox")])
        fields = dict(identity="a" * 32, inbox="~/inbox", name="n", sender="s", digest="d", time="t", signature=b"s")
        (error,) = transport.stage([Envelope(content=lambda: b"x" * (3 << 20), **fields)])
        left = os.listdir(sys.argv[1] + "/inbox/.tmp.cas")
        print(type(error).__name__, error.permanent, str(error).partition(":")[0], left)
    """

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    assert _ran(code, tmp_path, before=limited) == "TransferError True file too large []\n"


# Where the kernel lacks renameat2


def test_without_a_rename_that_refuses_the_contract_holds_all_the_same(tmp_path: Path):
    code = """
        import ctypes, errno, os, platform, struct, sys
        from pathlib import Path
        number = {"x86_64": 316, "aarch64": 276}[platform.machine()]
        load, equal, give = 0x20, 0x15, 0x06
        program = b"".join(struct.pack("HBBI", *line) for line in (
            (load, 0, 0, 0), (equal, 0, 1, number), (give, 0, 0, 0x00050000 | errno.ENOSYS), (give, 0, 0, 0x7FFF0000)))
        held = ctypes.create_string_buffer(program)
        c = ctypes.CDLL(None, use_errno=True)
        assert c.prctl(38, 1, 0, 0, 0) == 0
        filter = struct.pack("HP", 4, ctypes.addressof(held))
        assert c.prctl(22, 2, filter, 0, 0) == 0, os.strerror(ctypes.get_errno())
        assert c.renameat2(-100, b"/", -100, b"/", 1) == -1 and ctypes.get_errno() in (errno.ENOSYS, errno.EINVAL)

        from cas.transports.local import LocalFiles
        home = Path(sys.argv[1])
        files = LocalFiles(home)
        (home / "one").write_text("one"), (home / "two").write_text("two")
        print(files.run([files.move("~/one", "~/two"), files.move("~/gone", "~/new"), files.move("~/one", "~/new")]))
        print({path.name: path.read_text() for path in sorted(home.iterdir())})
    """

    assert _ran(code, tmp_path) == "[False, False, True]\n{'new': 'one', 'two': 'two'}\n"


# Running


def test_each_task_gives_its_own_result(place: Place):
    (place.path / "file").touch()

    first, second, third = place.files.run(
        [place.files.kind("~/file"), place.files.names("~/missing"), place.files.kind("~/nothing")]
    )

    assert (first, third) == (Kind.FILE, None)
    assert isinstance(second, TransferError)


def test_a_bug_in_a_task_is_no_result(place: Place):
    async def bug() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        place.files.run([bug()])


def test_closing_leaves_the_files_usable(place: Place):
    transport = Transport(place.files)
    transport.abort()

    assert place.do(place.files.kind("~")) is Kind.FOLDER


def test_a_new_folder_has_the_mode_that_is_asked_for(place: Place):
    place.do(place.files.make_folder("~/ours", mode=0o700))

    assert stat.S_IMODE((place.path / "ours").stat().st_mode) == 0o700


def _put(path: Path, shape: str) -> None:
    match shape:
        case "file":
            path.write_text("foreign")
        case "folder":
            path.mkdir()
        case "link":
            path.with_name("target").write_text("foreign")
            path.symlink_to("target")
        case _:
            path.symlink_to("nowhere")


def _stands(path: Path, shape: str) -> bool:
    match shape:
        case "file":
            return path.read_text() == "foreign" and path.stat().st_nlink == 1
        case "folder":
            return path.is_dir() and not path.is_symlink() and os.listdir(path) == []
        case "link":
            return path.is_symlink() and path.read_text() == "foreign"
        case _:
            return path.is_symlink() and os.readlink(path) == "nowhere"


def _ran(code: str, home: Path, before: Callable[[], None] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), home],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT)},
        preexec_fn=before,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
