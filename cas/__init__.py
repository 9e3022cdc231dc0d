"""Cross-agent send: declarative, signed messages between agents, by rename or over SSH."""

__version__ = "0.1.0"
