"""The command line of who keeps it running: HALT, peers, what is wrong here, completion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cas import completing
from cas.options import with_surroundings

if TYPE_CHECKING:
    from cas.output.console import Console
    from cas.surroundings import Surroundings

EVERYWHERE = click.option("--peers", "everywhere", is_flag=True, help="Also on every peer, over SSH.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("reason", nargs=-1)
@EVERYWHERE
@YES
@with_surroundings
def halt(reason: tuple[str, ...], *, everywhere: bool, yes: bool, around: Surroundings, console: Console) -> int:
    """Stop all sending at once, here or everywhere; REASON is shown to whoever tries. What stands is left.

    \b
    cas halt deploy freeze until Monday
    cas halt --peers --yes wrong manifest
    """
    from cas import stopping

    return stopping.halt(" ".join(reason) or None, everywhere=everywhere, yes=yes, around=around, console=console)


@click.command()
@EVERYWHERE
@YES
@with_surroundings
def resume(*, everywhere: bool, yes: bool, around: Surroundings, console: Console) -> int:
    """Lift HALT; say what stood there, and what is left to finish."""
    from cas import stopping

    return stopping.resume(everywhere=everywhere, yes=yes, around=around, console=console)


@click.group()
def peers() -> None:
    """Who is where, and whether they can be reached."""


@peers.command(name="list")
@with_surroundings
def list_(*, around: Surroundings, console: Console) -> int:
    """List the peers that peers.toml names."""
    from cas import peers

    return peers.list_peers(around, console)


@peers.command()
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=completing.peers)
@with_surroundings
def check(names: tuple[str, ...], *, around: Surroundings, console: Console) -> int:
    """Try the way to each peer: name, port, host key, login, SFTP, inboxes, clock, HALT. By default to all.

    \b
    cas peers check
    cas peers check laptop
    """
    from cas import peers

    return peers.check(names, around, console)


@peers.command()
@click.argument("name", shell_complete=completing.peers)
@click.option("--fingerprint", metavar="SHA256:…", help="What the host's owner says; then nobody is asked.")
@with_surroundings
def trust(name: str, *, fingerprint: str | None, around: Surroundings, console: Console) -> int:
    """Show a peer's host key, and have it known once you have compared it.

    \b
    cas peers trust laptop
    cas peers trust laptop --fingerprint SHA256:eKw5bA6h3N4oviifK3jVVrhzME2gA3X3vkN0DUfl2TA
    """
    from cas import trust

    return trust.trust(name, fingerprint, around, console)


@click.command()
@with_surroundings
def doctor(*, around: Surroundings, console: Console) -> int:
    """Find out what is wrong on this machine, and what mends it. Changes nothing. With code 1 for an error."""
    from cas import doctor

    return doctor.examine(around, console)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print what has a shell complete verbs, options, peers, projects and groups.

    \b
    cas completion bash > ~/.local/share/bash-completion/completions/cas
    cas completion zsh > ~/.zfunc/_cas
    cas completion fish > ~/.config/fish/completions/cas.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind
    cas = click.get_current_context().find_root().command
    click.echo(kind(cas, {}, "cas", "_CAS_COMPLETE").source())
    return 0


VERBS = (halt, resume, peers, doctor, completion)
