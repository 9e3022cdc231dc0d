"""The command line: arguments into requests, errors into exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cas import __version__, cli_mail, cli_upkeep, completing
from cas.errors import ExitCode
from cas.options import (
    FOLDER,
    PATHS,
    AsPath,
    age,
    shard_of,
    with_choice,
    with_engine,
    with_limits,
    with_reports,
    with_sealing,
    with_surroundings,
)
from cas.signals import Interrupted, raised

if TYPE_CHECKING:
    from pathlib import Path

    from cas.engines import Asked
    from cas.output.console import Console
    from cas.preparation import Choice
    from cas.run import Limits
    from cas.seals import Sealing
    from cas.surroundings import Surroundings

EPILOG = (
    "Exit codes: 0 sent, 1 error, 2 destination not found, 3 delivery failed, 4 frontmatter, 5 HALT, 6 plan refused,"
    " 10 something to send, 64 wrong usage, 128+n signal n."
)

MESSAGE_TYPES = ("request", "progress", "query", "pushback", "complete", "release", "escalate")


def main(argv: Sequence[str] | None = None) -> int:
    """Run cas with these arguments (default: the process's own); gives the exit code."""
    _stand_in_for_closed_streams()
    try:
        with raised():
            return int(cas.main(args=argv, prog_name="cas", standalone_mode=False) or 0)
    except click.ClickException as error:
        _say_usage_error(error, *(sys.argv[1:] if argv is None else argv)[:1])
        return ExitCode.USAGE
    except Interrupted as interruption:
        sys.stderr.write(f"interrupted by {interruption.signal.name}: no delivery was under way\n")
        return 128 + interruption.signal
    finally:
        _let_go_of_closed_pipes()


def _stand_in_for_closed_streams() -> None:
    """Started without standard streams: a file that is opened later must not become one of them."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _say_usage_error(error: click.ClickException, verb: str = "") -> None:
    """As click does; what it quotes of the command line is made safe to print. What would have sent says it did not."""
    from cas.commands import SENDING
    from cas.findings import obeyed
    from cas.output.annotations import defused
    from cas.output.visible import visible

    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # a group without a verb: help, and nothing quoted
        error.show(sys.stderr)
        return
    words = visible(error.format_message())
    words = defused(words) if obeyed("auto", os.environ, (sys.stdout, sys.stderr)) else words
    click.UsageError(words, ctx=getattr(error, "ctx", None)).show(sys.stderr)
    if verb in SENDING:
        sys.stderr.write("nothing was sent\n")


def _let_go_of_closed_pipes() -> None:
    """What Python would still flush at its end must not turn an outcome into an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, message="cas %(version)s")
def cas() -> None:
    """Send signed messages between agents, as manifests declare them.

    \b
    cas send local.docs hello.org       one message now
    cas plan release.yaml               what would be sent
    cas apply release.yaml              send it; again: only what is missing
    """


@cas.command()
@click.argument("destination", shell_complete=completing.destinations)
@click.argument("message", metavar="MESSAGE_FILE")
@click.option("--no-sign", is_flag=True, help="Send without a signature; for testing.")
@click.option("--key", metavar="KEYID", help="The key that signs, instead of gpg's default one.")
@click.option(
    "--retries", type=click.IntRange(0, 100), metavar="N", help="Retries between machines (3), after 5, 30, 120 s."
)
@click.option("--sender", metavar="NAME", help="Who sends, instead of the project of the working folder.")
@with_surroundings
@with_reports
@with_limits
def send(
    destination: str,
    message: str,
    *,
    no_sign: bool,
    key: str | None,
    retries: int | None,
    sender: str | None,
    limits: Limits,
    around: Surroundings,
    console: Console,
) -> int:
    """Send one message now. DESTINATION is <machine>.<project>; MESSAGE_FILE may be `-`.

    \b
    cas send local.docs hello.org
    cas send laptop.docs hello.org --key 5CA7F1CE5E8E605E770C0236B4B61A2737D6A700
    generate | cas send laptop.docs -
    """
    from cas import commands
    from cas.manifest import Retry, Sign
    from cas.preparation import SendRequest

    if no_sign and key is not None:
        raise click.UsageError("--no-sign and --key exclude each other")
    request = SendRequest(
        destination=destination,
        message=message,
        sign=None if no_sign else Sign(key=key),
        retry=Retry() if retries is None else Retry(retries=retries),
        sender=sender,
    )
    return commands.send(request, limits, around, console)


@cas.command()
@PATHS
@click.option("--each", is_flag=True, help="Each manifest by itself; YAML without the key `cas` is passed over.")
@with_surroundings
@with_choice
def validate(paths: tuple[Path, ...], *, each: bool, choice: Choice, around: Surroundings, console: Console) -> int:
    """Check manifests: all that can be known offline, all at once."""
    from cas import commands

    return commands.validate(paths, choice, around, console, each=each)


@cas.command()
@PATHS
@click.option(
    "-o", "file", metavar="FILE", help="Write the plan into FILE, which must not exist; `-`: standard output."
)
@click.option(
    "--bundle",
    metavar="FILE",
    type=AsPath(),
    help="Sign now, and write plan, messages and signatures into FILE: to be applied where no key is.",
)
@click.option("--seal-with", multiple=True, metavar="KEY", help="Seal the bundle with this key too.")
@click.option(
    "--at", metavar="TIME", help="The plan's clock, as 2026-11-23T01:31:33Z. Else SOURCE_DATE_EPOCH, else now."
)
@click.option("--ttl", default="24h", show_default=True, metavar="AGE", help="When it expires: 24h, 30m; 0 for never.")
@click.option("--diff", is_flag=True, help="What is new, in full; with an older plan among PATH, what has changed.")
@click.option("--detailed-exitcode", is_flag=True, help="End with 10 where there is something to send.")
@with_surroundings
@with_choice
def plan(
    paths: tuple[Path, ...],
    *,
    file: str | None,
    bundle: Path | None,
    seal_with: tuple[str, ...],
    at: str | None,
    ttl: str,
    diff: bool,
    detailed_exitcode: bool,
    choice: Choice,
    around: Surroundings,
    console: Console,
) -> int:
    """Show what `apply` would send, or write it into a plan file. Sends nothing, connects to nothing.

    \b
    cas plan release.yaml                            what would be sent
    cas plan release.yaml -o release.plan            to be applied later
    cas plan release.yaml --bundle release.bundle    the same, signed already
    cas plan release.yaml --diff release.plan        what has changed since
    """
    from cas import planning

    if file is not None and bundle is not None:
        raise click.UsageError("-o and --bundle exclude each other: a bundle holds the plan")
    if str(bundle) == "-":
        raise click.UsageError("--bundle takes a file: standard output is no place for what may be sent by any reader")
    if seal_with and bundle is None:
        raise click.UsageError("--seal-with is for a bundle: --bundle FILE")
    request = planning.PlanRequest(
        paths=paths,
        file=file,
        bundle=bundle,
        seal_with=seal_with,
        at=at,
        ttl=None if ttl == "0" else age(ttl, "--ttl"),
        diff=diff,
        detailed=detailed_exitcode,
    )
    return planning.plan(request, choice, around, console)


@cas.command()
@click.argument("plan", type=AsPath())
@with_surroundings
def show(plan: Path, *, around: Surroundings, console: Console) -> int:
    """Show a plan file, also one that has expired or that a later cas has made."""
    from cas import planning

    return planning.show(plan, around, console)


@cas.command()
@PATHS
@click.option("--root", type=FOLDER, help="Where the files are that a plan was made from; else the working folder.")
@click.option("--shard", metavar="I/N", help="Of a plan, the hosts of one shard of so many: 2/4 is the second of four.")
@with_surroundings
@with_reports
@with_choice
@with_limits
@with_engine
@with_sealing
def apply(
    paths: tuple[Path, ...],
    *,
    root: Path | None,
    shard: str | None,
    choice: Choice,
    limits: Limits,
    engine: Asked,
    sealing: Sealing,
    around: Surroundings,
    console: Console,
) -> int:
    """Deliver what manifests declare, or what a plan says. Again: only what is missing.

    \b
    cas apply release.yaml
    cas apply release.plan    all of it, if it still holds; else nothing, code 6
    cas apply release.plan --shard 2/4
    cas apply release.bundle --sealed-by FINGERPRINT
    """
    from cas import commands

    given = commands.OfPlan(root=root, shard=shard_of(shard) if shard else None, sealing=sealing)
    return commands.apply(paths, choice, limits, around, console, given=given, engine=engine)


@cas.command()
@PATHS
@click.option("--root", required=True, type=FOLDER, help="The tree: empty, or made here; or of the same plan.")
@click.option("--inputs", type=FOLDER, help="Where the files are that a plan was made from; else the working folder.")
@with_surroundings
@with_reports
@with_choice
@with_limits
@with_sealing
def rehearse(
    paths: tuple[Path, ...],
    *,
    root: Path,
    inputs: Path | None,
    choice: Choice,
    limits: Limits,
    sealing: Sealing,
    around: Surroundings,
    console: Console,
) -> int:
    """Do what `apply` would, with all of it, into a tree with a folder for each destination. Sends nothing.

    \b
    cas rehearse release.plan --root /tmp/rehearsal
    """
    from cas import rehearsal
    from cas.commands import OfPlan

    return rehearsal.rehearse(
        paths, choice, limits, around, console, root=root, given=OfPlan(inputs=inputs, sealing=sealing)
    )


@cas.command()
@click.argument("name")
@with_surroundings
def schema(name: str, *, around: Surroundings, console: Console) -> int:
    """Print a JSON Schema, such as `manifest`."""
    from cas import commands

    del around
    return commands.schema(name, console)


@cas.command()
@click.argument("folder", default=".", type=FOLDER)
@with_surroundings
def init(folder: Path, *, around: Surroundings, console: Console) -> int:
    """Write a first manifest and a message into FOLDER, and a peers.toml where there is none. They work as they are.

    \b
    cas init             here
    cas init outbox      in a folder, which is made
    """
    from cas import authoring

    return authoring.init(folder, around, console)


@cas.command()
@click.argument("file", required=False, type=AsPath(allow_dash=True))
@click.option("--type", "kind", type=click.Choice(MESSAGE_TYPES), help="By default request, or what suits a reply.")
@click.option("--conversation", metavar="ID", help="By default the file's name and the day, as review-20261123.")
@click.option("--sequence", type=click.IntRange(0, 999_999_999), metavar="N", help="By default 1, or the next one.")
@click.option("--reply-to", type=AsPath(), metavar="MESSAGE_FILE", help="Go on with this message's conversation.")
@click.option("--to", metavar="DESTINATION", help="For whom it is, written into the text: <machine>.<project>.")
@click.option("--body", metavar="BODY_FILE", help="What it says: a file, or `-` for standard input.")
@with_surroundings
def new(
    file: Path | None,
    *,
    kind: str | None,
    conversation: str | None,
    sequence: int | None,
    reply_to: Path | None,
    to: str | None,
    body: str | None,
    around: Surroundings,
    console: Console,
) -> int:
    """Write a message's frontmatter into FILE, which must not exist; without FILE, or for `-`, to standard output.

    \b
    cas new review.org --type request
    cas new answer.org --reply-to hello.org
    generate | cas new --body - | cas send local.docs -
    """
    from cas import authoring

    if conversation is not None and reply_to is not None:
        raise click.UsageError("--conversation and --reply-to exclude each other: a reply goes on with a conversation")
    request = authoring.NewMessage(
        file=None if file is None or str(file) == "-" else file,
        conversation=conversation,
        type=kind,
        sequence=sequence,
        reply_to=reply_to,
        to=to,
        body=body,
    )
    return authoring.new(request, around, console)


@cas.command()
@click.argument("codes", nargs=-1, metavar="[CODE…]")
@with_surroundings
def explain(codes: tuple[str, ...], *, around: Surroundings, console: Console) -> int:
    """Say what a finding's code means, with an example, and what mends it. Without CODE: list all.

    \b
    cas explain                what codes there are
    cas explain unknown-key    what this one means
    """
    from cas import commands

    del around
    return commands.explain(codes, console)


@cas.command()
@with_surroundings
def demo(*, around: Surroundings, console: Console) -> int:
    """Show cas at work, with a throw-away key, an inbox here and one behind an sshd of its own. Leaves nothing."""
    from cas import commands

    return commands.demo(around, console)


@cas.command()
@click.option(
    "--by",
    type=click.Choice(["destination", "conversation", "run"]),
    default="destination",
    show_default=True,
    help="What is counted together.",
)
@click.option("--peers", "everywhere", is_flag=True, help="Also whether HALT is set on each peer, over SSH.")
@click.argument("ledgers", nargs=-1, metavar="[LEDGER…]", type=AsPath())
@click.option("--merge", is_flag=True, help="Put these ledgers, or state folders, together, instead of this machine's.")
@click.option("--plan", type=AsPath(), metavar="PLAN", help="With --merge: what of this plan nobody has delivered.")
@click.option("--detailed-exitcode", is_flag=True, help="With --plan: end with 10 where something is not delivered.")
@with_surroundings
def status(
    ledgers: tuple[Path, ...],
    *,
    by: str,
    everywhere: bool,
    merge: bool,
    plan: Path | None,
    detailed_exitcode: bool,
    around: Surroundings,
    console: Console,
) -> int:
    """Show what was delivered from here, and what is open.

    \b
    cas status
    cas status --merge shard-*/ledger.sqlite --plan release.plan
    """
    from cas import upkeep

    if merge != bool(ledgers):
        raise click.UsageError("--merge and LEDGER go together")
    if plan and not merge:
        raise click.UsageError("--plan goes with --merge")
    if detailed_exitcode and not plan:
        raise click.UsageError("--detailed-exitcode goes with --plan")
    request = upkeep.StatusRequest(by=by, everywhere=everywhere, ledgers=ledgers, plan=plan, detailed=detailed_exitcode)
    return upkeep.status(request, around, console)


@cas.command()
@click.argument("markers", nargs=-1, metavar="[MARKER…]", type=AsPath())
@click.option("--all", "everything", is_flag=True, help="All that is open.")
@click.option("--anew", is_flag=True, help="Give up what stands in the inbox, and deliver as something new.")
@with_surroundings
@with_reports
@with_limits
@with_engine
def retry(
    markers: tuple[Path, ...],
    *,
    everything: bool,
    anew: bool,
    limits: Limits,
    engine: Asked,
    around: Surroundings,
    console: Console,
) -> int:
    """Finish what failed, was halted or was cut off. Without arguments: list it.

    \b
    cas retry            what is open
    cas retry --all      finish it, under the names that it has
    """
    from cas import upkeep

    if everything and markers:
        raise click.UsageError("--all and MARKER exclude each other")
    if anew and not (everything or markers):
        raise click.UsageError("--anew goes with MARKER or --all")
    return upkeep.retry(
        markers, everything=everything, anew=anew, limits=limits, engine=engine, around=around, console=console
    )


@cas.command()
@click.option("--older-than", required=True, metavar="AGE", help="Such as 30d, 12h or 90m.")
@with_surroundings
def prune(*, older_than: str, around: Surroundings, console: Console) -> int:
    """Clear old rows, receipts and markers. A manifest applied again after that is delivered again."""
    from cas import upkeep

    return upkeep.prune(age(older_than, "--older-than"), around, console)


for verb in (*cli_mail.VERBS, *cli_upkeep.VERBS):
    cas.add_command(verb)
