"""The starter: what a new project begins with, as text: a manifest, a message's body and a peers.toml. Pure."""

from __future__ import annotations

import re

SCHEMA = ".manifest.schema.json"
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)
# What some reader of YAML takes for something other than text.
NO_TEXT = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def manifest(*, sender: str, message: str, signed: bool) -> str:
    """A manifest of one send, to the sender's own inbox on this machine, with comments that teach the language."""
    return MANIFEST.format(
        schema=SCHEMA,
        sender=_with(
            f"sender: {_scalar(sender)}", "the project that sends; without this, the one in whose folder it is"
        ),
        sign=MANIFEST_SIGNED if signed else MANIFEST_UNSIGNED,
        destination=_with(f"    destination: local.{sender}", "<machine>.<project>: `local` is this machine"),
        message=_with(f"    message: {message}", "a path below this folder; the file goes byte for byte"),
    )


def body(sender: str) -> str:
    """What the first message says."""
    return BODY.format(sender=sender)


def _with(text: str, comment: str) -> str:
    return f"{text:<34} # {comment}"


def _scalar(text: str) -> str:
    return text if PLAIN.fullmatch(text) and text.lower() not in NO_TEXT else f'"{text}"'


MANIFEST = """\
# yaml-language-server: $schema={schema}
#
# A manifest says which messages are to be where.
#
#   cas validate cas.yaml    what is wrong with it: all of it, with line and column
#   cas plan cas.yaml        what would be sent; sends nothing
#   cas apply cas.yaml       sends what is not there yet; again: unchanged
#
# By its first line an editor that speaks yaml-language-server checks it as you type. After an update of cas:
#   cas schema manifest > {schema}

cas: 1                             # the version of this format
name: First messages               # what this is for
{sender}

# What holds for every send that does not say otherwise.
defaults:
{sign}
  retry: {{retries: 3, backoff: [5, 30, 120], timeout: 30}}   # between machines; in seconds

sends:
  # An item for each message. Its id is a name of your own, and stands in every report.
  - id: hello
{destination}
{message}

  # The same message may go to several, and a send may say what the defaults say. `laptop` needs a table
  # [peers.laptop] in ~/.config/cross-agent-comms/peers.toml, and the message has to be there.
  # - id: announce
  #   destination: [local.docs, laptop.docs]
  #   message: messages/announce.org       # to make it: cas new messages/announce.org --type progress
  #   sign: false
  #   retry: {{retries: 0}}

  # One send for each item of a list, a map or the files of a folder. `{{{{ … }}}}` is Jinja2; `item` is the item. A
  # message may also stand here, as its text and what its frontmatter is made from, or come from a `template`.
  # - id: stage
  #   for_each: [build, test, publish]
  #   destination: local.docs
  #   after: hello                         # only when that one is delivered
  #   when: item != 'publish'              # only where this holds
  #   message:
  #     conversation: first-stages
  #     type: progress
  #     sequence: "{{{{ loop.index }}}}"
  #     body: |
  #       * Stage {{{{ item }}}} is done

  # All that a manifest can say: cas schema manifest
"""
MANIFEST_SIGNED = """\
  sign: true                       # by gpg's default key; or {key: FINGERPRINT}; or false, for testing"""
MANIFEST_UNSIGNED = """\
  # There was no key to sign with. To make one: gpg --quick-generate-key NAME. Then take the next line out:
  # signed is the default, by gpg's default key, or {key: FINGERPRINT}.
  sign: false"""

BODY = """\
* Hello from {sender}
This message goes from {sender} to {sender}, to see that it arrives. What stands below the frontmatter, after the blank
line, is yours: any text, of any length.
"""

# A line that begins with `#` and no space is an example: take the `#` away.
PEERS = """\
# peers.toml says who is where. Without a table below, the only machine is `local`: this one.
# A line that begins with `#` and no space is an example: take the `#` away, and change it.
#
# For an editor that speaks Taplo:  cd to this folder;  cas schema peers > peers.schema.json
# Then make this the first line:    #:schema ./peers.schema.json

# Another machine: this one makes `laptop.docs` a destination. An empty table will do: SSH knows the rest.
#[peers.laptop]
#host = "laptop.tailnet.ts.net"      # default: the machine's name, as SSH knows it
#ssh_user = "agent"                  # default: SSH's own configuration, then you
#port = 22
#identity_file = "~/.ssh/id_ed25519"
#transport = "auto"                  # or python, sftp, rsync
#host_key = "SHA256:eKw5bA6h3N4oviifK3jVVrhzME2gA3X3vkN0DUfl2TA"   # instead of known_hosts; from: ssh-keygen -l

# Where a project reads, on whichever machine. Default: ~/projects/<project>/inbox/from-agents
#[projects.docs]
#inbox_path = "~/docs/inbox"

# Names for several destinations; one group may hold another.
#[groups]
#reviewers = ["laptop.docs", "local.docs"]
#everyone = ["@reviewers", "local.builder"]

# What is refused, whatever a manifest says.
#[policy]
#require_signed = true
#require_durable = true              # where the other side cannot sync to disk
#max_deliveries = 100                # of one run
#max_bytes = 1048576                 # of one message
#seals = ["5CA7F1CE5E8E605E770C0236B4B61A2737D6A700"]  # one of these keys has to seal a bundle
#senders = "listed"                  # trust only senders that [senders] lists
#keyring = "~/.config/cross-agent-comms/agents.gpg"    # the only keys that verify
#machines = ["laptop"]               # what others call this machine

# Whose signature speaks for a project.
#[senders.builder]
#keys = ["5CA7F1CE5E8E605E770C0236B4B61A2737D6A700"]
"""
