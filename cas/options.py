"""Options: what several verbs have on the command line, and what they are given for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from cas.errors import CasError

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from cas.output.console import Console
    from cas.shards import Shard
    from cas.surroundings import Surroundings


class AsPath(click.Path):
    """A path as click checks it, and as a `Path`; without loading that class for those who only want help.

    Whether it can be read is not checked: a file that cannot is no wrong usage, and the verb tells it by name.
    """

    def __init__(self, *, file_okay: bool = True, allow_dash: bool = False) -> None:
        super().__init__(file_okay=file_okay, allow_dash=allow_dash, readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from pathlib import Path

        return Path(super().convert(value, param, ctx))  # type: ignore[arg-type]


LONGEST_NUMBER = 6
FOLDER = AsPath(file_okay=False)
PATHS = click.argument("paths", nargs=-1, required=True, metavar="PATH…", type=AsPath())


def _standing_for(
    command: Callable[..., int], run: Callable[..., int], *options: Callable[..., Any]
) -> Callable[..., int]:
    """`run` in a command's place: with its name, its words and its options, after these of its own."""
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(options):
        option(run)
    return run


def with_surroundings(command: Callable[..., int], *, forms: Sequence[str] = ()) -> Callable[..., int]:
    """The options that every verb has; the verb gets `around` and `console` for them. `forms`: further `--output`."""

    def run(
        *,
        output: str,
        config_dir: Path | None,
        state_dir: Path | None,
        quiet: bool,
        verbose: bool,
        color: str,
        diagnostics: str,
        **given: Any,
    ) -> int:
        from pathlib import Path

        from cas import findings
        from cas.commands import refused
        from cas.output.console import Console, Form
        from cas.surroundings import read_surroundings

        plain = not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))
        colored = color == "always" or (color == "auto" and not plain)
        workflow = findings.in_workflow(diagnostics, os.environ)
        defuse = findings.obeyed(diagnostics, os.environ, (sys.stdout, sys.stderr))
        console = Console(
            out=sys.stdout,
            err=sys.stderr,
            form=Form(output),
            quiet=quiet,
            verbose=verbose,
            color=colored,
            workflow=defuse,
            shown=findings.view(diagnostics, Path.cwd, workflow=workflow, defuse=defuse),
        )
        try:
            return command(around=read_surroundings(config_dir, state_dir), console=console, **given)
        except CasError as error:
            return refused(run.__name__, error, console)
        finally:
            console.end()

    return _standing_for(
        command,
        run,
        click.option(
            "--output",
            type=click.Choice(["text", "json", "jsonl", *forms]),
            default="text",
            show_default=True,
            help="What standard output holds.",
        ),
        click.option(
            "--config-dir", type=FOLDER, help="Instead of ~/.config/cross-agent-comms; a HALT there counts still."
        ),
        click.option("--state-dir", type=FOLDER, help="Instead of ~/.local/state/cross-agent-comms."),
        click.option("--quiet", is_flag=True, help="Results and errors only."),
        click.option("--verbose", is_flag=True, help="Every event, a line each."),
        click.option(
            "--diagnostics",
            type=click.Choice(["auto", "text", "github"]),
            default="auto",
            help="How findings are shown; auto: for GitHub where GITHUB_ACTIONS is true.",
        ),
        click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Also: NO_COLOR."),
    )


def with_limits(command: Callable[..., int]) -> Callable[..., int]:
    """The options of the verbs that send; the verb gets `limits` for them."""

    def run(*, deadline: int | None, lock_timeout: int, parallel: int | None, **given: Any) -> int:
        from cas.run import Limits

        return command(limits=Limits(deadline=deadline, lock_timeout=lock_timeout, parallel=parallel), **given)

    return _standing_for(
        command,
        run,
        click.option(
            "--deadline", type=click.IntRange(1, 604_800), metavar="SECONDS", help="When the whole run has to end."
        ),
        click.option(
            "--parallel",
            type=click.IntRange(1, 1_000),
            metavar="N",
            help="How many hosts are delivered to at once (16).",
        ),
        click.option(
            "--lock-timeout",
            type=click.IntRange(0, 86_400),
            default=30,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for another run to the same inbox.",
        ),
    )


def with_engine(command: Callable[..., int]) -> Callable[..., int]:
    """The options that have workers deliver; the verb gets `engine` for them."""

    def run(*, engine: str, insecure_engine: bool, **given: Any) -> int:
        from cas.engines import Asked

        return command(engine=Asked(name=engine, insecure=insecure_engine), **given)

    return _standing_for(
        command,
        run,
        click.option(
            "--engine",
            default="local",
            show_default=True,
            metavar="ENGINE",
            help="Who delivers: this process, or a Dask cluster, dask://HOST:PORT or tls://HOST:PORT.",
        ),
        click.option("--insecure-engine", is_flag=True, help="Also a cluster without TLS."),
    )


def with_sealing(command: Callable[..., int]) -> Callable[..., int]:
    """The options that say whose seal a bundle needs; the verb gets `sealing` for them."""

    def run(*, sealed_by: tuple[str, ...], unsealed: bool, **given: Any) -> int:
        from cas.seals import Sealing

        if sealed_by and unsealed:
            raise click.UsageError("--sealed-by and --unsealed exclude each other")
        return command(sealing=Sealing(by=sealed_by, unsealed=unsealed), **given)

    return _standing_for(
        command,
        run,
        click.option(
            "--sealed-by",
            multiple=True,
            metavar="FINGERPRINT",
            help="Apply a bundle only with a seal by this key, or by one of several.",
        ),
        click.option("--unsealed", is_flag=True, help="Apply a bundle without such a seal, too: anyone can edit it."),
    )


def with_reports(command: Callable[..., int]) -> Callable[..., int]:
    """The option for reports of the verbs that send; they are written however the verb ends."""

    def run(*, report: tuple[str, ...], around: Surroundings, console: Console, **given: Any) -> int:
        if not report and not around.environment.get("GITHUB_STEP_SUMMARY"):
            return command(around=around, console=console, **given)
        from cas import reporting

        return reporting.reported(
            run.__name__, report, around, console, lambda: command(around=around, console=console, **given)
        )

    return _standing_for(
        command,
        run,
        click.option(
            "--report",
            multiple=True,
            metavar="FORM=FILE",
            help="Also write what came of it: junit, markdown, json or jsonl.",
        ),
    )


def with_choice(command: Callable[..., int]) -> Callable[..., int]:
    """The options of the verbs that read manifests; the verb gets `choice` for them."""

    def run(
        *,
        tags: tuple[str, ...],
        skip_tags: tuple[str, ...],
        only: tuple[str, ...],
        limit: tuple[str, ...],
        var: tuple[str, ...],
        vars_file: tuple[Path, ...],
        **given: Any,
    ) -> int:
        from cas.preparation import Choice
        from cas.selection import Selection

        selection = Selection(tags=_words(tags), skip_tags=_words(skip_tags), only=only, limit=limit)
        return command(choice=Choice(selection=selection, variables=var, variable_files=vars_file), **given)

    return _standing_for(
        command,
        run,
        click.option("--tags", multiple=True, metavar="TAGS", help="Only sends with one of these tags: a,b."),
        click.option("--skip-tags", multiple=True, metavar="TAGS", help="No sends with one of these tags: a,b."),
        click.option("--only", multiple=True, metavar="ID", help="Only this send, or this item or delivery of it."),
        click.option("--limit", multiple=True, metavar="PATTERN", help="Only destinations such as `laptop.*`."),
        click.option("--var", multiple=True, metavar="NAME=VALUE", help="The value of a variable."),
        click.option("--vars-file", multiple=True, type=AsPath(), metavar="FILE", help="Values of variables, in YAML."),
    )


def _words(given: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for one in given for word in one.split(",") if word)


def age(text: str, option: str) -> timedelta:
    from datetime import timedelta

    units = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not _whole(number):
        raise click.BadParameter("an age is a number and d, h, m or s, such as 30d", param_hint=option)
    return timedelta(seconds=int(number) * units[unit])


def shard_of(text: str) -> Shard:
    """The shard that `I/N` names."""
    from cas.shards import Shard

    number, _, of = text.partition("/")
    if not (_whole(number) and _whole(of) and 1 <= int(number) <= int(of)):
        raise click.BadParameter("a shard is I/N, such as 2/4: the second of four", param_hint="--shard")
    return Shard(number=int(number), of=int(of))


def _whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER
