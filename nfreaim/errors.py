"""Exceptions; the class says whether the operator, the machine or the peer caused the failure."""


class ConfigError(Exception):
    """The operator's fault: a setting that cannot be used. The text names file, key and allowed values."""


class BackendError(Exception):
    """The machine's fault: firewall, conntrack or queue refused. The text names cause and remedy."""


class AbsentError(BackendError):
    """What was asked about is not there: a daemon, or the rules. The text names the remedy."""


class Malformed(Exception):
    """The peer's fault: bytes that contradict the protocol. The engine then reads the flow no further."""


class Foreign(Malformed):
    """The flow is of another protocol, as its first bytes show. The engine takes it out of the queue."""
