"""The command line of the other end: what has arrived here."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from cas import completing
from cas.options import FOLDER, AsPath, age, with_surroundings

if TYPE_CHECKING:
    from pathlib import Path

    from cas.output.console import Console
    from cas.surroundings import Surroundings

FILES = click.argument("files", nargs=-1, required=True, metavar="FILE…", type=AsPath())
PROJECT = click.argument("project", required=False, shell_complete=completing.projects)


@click.command()
@PROJECT
@click.option("--all", "everything", is_flag=True, help="Also what is archived.")
@click.option("--unverified", is_flag=True, help="Only what has no signature that counts.")
@click.option("--thread", metavar="CONVERSATION", help="Only this conversation.")
@click.option("--no-verify", is_flag=True, help="Do not ask gpg: quick, where thousands have arrived.")
@partial(with_surroundings, forms=["hook"])
def inbox(
    project: str | None,
    *,
    everything: bool,
    unverified: bool,
    thread: str | None,
    no_verify: bool,
    around: Surroundings,
    console: Console,
) -> int:
    """Show what has arrived for PROJECT, by default that of the working folder: by conversation, with whose signature.

    \b
    cas inbox                          for the project one is in
    cas inbox docs --thread rel-1.4    one conversation
    cas inbox --unverified             what nobody should act on
    cas inbox --output hook            for an agent's SessionStart hook, which gives JSON with `cwd` on standard input
    """
    from cas import mail
    from cas.output.console import Form

    if console.form is Form.HOOK:
        from cas import hook

        return hook.inbox(project, around, console)

    if unverified and no_verify:
        raise click.UsageError("--unverified and --no-verify exclude each other")
    look = mail.Look(project=project, thread=thread, all=everything, unverified=unverified, verify=not no_verify)
    return mail.look(look, around, console)


@click.command()
@FILES
@click.option("--from", "key", metavar="FINGERPRINT", help="The key that has to have signed; all 40 digits of it.")
@with_surroundings
def verify(files: tuple[Path, ...], *, key: str | None, around: Surroundings, console: Console) -> int:
    """Check the signature of each message: one, good, by a key that is known and valid. Else the exit code is 1.

    Where peers.toml has [senders.<project>], it has to be by one of that project's keys.

    \b
    cas verify inbox/from-agents/*.org
    cas verify hello.org --from 5CA7F1CE5E8E605E770C0236B4B61A2737D6A700
    """
    from cas import mail

    return mail.verify(files, key, around, console)


@click.command()
@click.argument("file", type=AsPath())
@with_surroundings
def read(file: Path, *, around: Surroundings, console: Console) -> int:
    """Show a message, with control characters made visible, and say who signed it."""
    from cas import mail

    return mail.show(file, around, console)


@click.command()
@FILES
@with_surroundings
def archive(files: tuple[Path, ...], *, around: Surroundings, console: Console) -> int:
    """Put messages away, each with its signature, into the folder `processed` in their inbox. Replaces nothing."""
    from cas import mail

    del around
    return mail.archive(files, console)


@click.command()
@PROJECT
@click.option("--new", is_flag=True, help="Leave out what is there already.")
@click.option("--once", is_flag=True, help="End with the first message; with code 1 if none comes in time.")
@click.option("--timeout", metavar="AGE", help="End after so long: 90s, 5m, 1h.")
@with_surroundings
def watch(
    project: str | None, *, new: bool, once: bool, timeout: str | None, around: Surroundings, console: Console
) -> int:
    """Print each message of an inbox when it has come; with `--output jsonl`, a line of JSON each, for hooks.

    \b
    cas watch --output jsonl
    cas watch docs --new --once --timeout 10m    wait for an answer
    """
    from cas import watch

    seconds = None if timeout is None else age(timeout, "--timeout").total_seconds()
    return watch.watch(watch.Wanted(project=project, new=new, once=once, seconds=seconds), around, console)


@click.command()
@click.option("--allow-apply", is_flag=True, help="Also offer the tool apply, for plans that were made here.")
@click.option(
    "--project", "projects", multiple=True, metavar="NAME", help="Whose inbox, and as whom; else the working folder's."
)
@click.option("--root", type=FOLDER, help="Plan from what lies below; else below the working folder.")
@with_surroundings
def mcp(
    *, allow_apply: bool, projects: tuple[str, ...], root: Path | None, around: Surroundings, console: Console
) -> int:
    """Serve an agent over the Model Context Protocol, on standard input and output: plan, inbox, read, verify, status.

    \b
    pip install 'cross-agent-send[mcp]'
    cas mcp --allow-apply
    """
    from cas import tools

    del console
    options = ("--config-dir", str(around.config), "--state-dir", str(around.state))
    return tools.serve(around, options, projects=projects, root=root, allow_apply=allow_apply)


VERBS = (inbox, verify, read, archive, watch, mcp)
