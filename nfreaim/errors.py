"""The failures that have a name; the class says whose fault it was.

This module defines exceptions and nothing else.
"""


class ConfigError(Exception):
    """The operator's fault: a setting that cannot be used. The text names file, key and allowed values."""


class BackendError(Exception):
    """The machine's fault: firewall, conntrack or queue refused. The text names cause and remedy."""


class Malformed(Exception):
    """The peer's fault: bytes that are not the protocol. Ends the reading of one flow, inside the engine."""


class Foreign(Malformed):
    """The flow was never this protocol: its first bytes say so. It leaves the queue for good."""
