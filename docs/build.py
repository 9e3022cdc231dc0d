"""The documentation as a site, by Sphinx and MyST: ./do docs. Every link has to hold; nothing comes from elsewhere.

The pages stand as they are in the repository, where their links hold too. What lies beside this folder and is led to is
taken in: the README as the first page, the changelog, how to contribute, playbooks and schemas.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
FOLDERS = ("playbooks", "schemas")
KINDS = {"How to": "how-to", "Reference": "reference", "Explanation": "explanation"}
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def main(target: str) -> int:
    """Build the site into a folder; the exit code of Sphinx, for which each warning is an error."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        shutil.copytree(ROOT / "docs", source, dirs_exist_ok=True)
        for name in FOLDERS:
            shutil.copytree(ROOT / name, source / name)
        for page in (*OUTSIDE, *(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))):
            text = _moved((ROOT / page).read_text(encoding="utf-8"), page)
            (source / _place(page)).write_text(text, encoding="utf-8")
        with (source / "index.md").open("a", encoding="utf-8") as index:
            index.writelines(_contents())
        return subprocess.run(
            [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(source), target], check=False
        ).returncode


def _place(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return OUTSIDE.get(path, path.removeprefix("docs/"))


def _moved(text: str, page: str) -> str:
    """A page's text, with each link where its file lies in the site; a link to a folder is none there."""

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), found[1]))
        here = posixpath.dirname(_place(page)) or "."
        return f"]({posixpath.relpath(_place(target), here)}{found[2] or ''})"

    return "".join(piece if piece.startswith("```") else LINK.sub(link, piece) for piece in FENCE.split(text))


def _contents() -> Iterator[str]:
    """The pages of each kind, for the side of every page."""
    pages = {caption: sorted((ROOT / "docs" / name).glob("*.md")) for caption, name in KINDS.items()}
    trees = {caption: [f"{path.parent.name}/{path.stem}" for path in paths] for caption, paths in pages.items()}
    for caption, some in {
        "Start": ["tutorial"],
        **trees,
        "Project": ["agents/SKILL", "changes", "contributing", "security"],
    }.items():
        yield "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *some, "```", ""])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
