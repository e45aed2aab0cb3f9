"""All attacks, by what it takes to play them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["short", "long", "flood"]


@dataclass(frozen=True)
class Attack:
    """A script of this package. *words* and *environment* make a short one of one that takes long.

    kind  short: about 10 s at most, and played as a test; long: more, or it measures time, or regular lab
          tests play the same; flood: as many packets as one process sends, which wants both CPUs
    """

    name: str
    kind: Kind
    words: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        given = [f"{name}={value}" for name, value in self.environment.items()]
        return " ".join([*given, self.name, *self.words])


ATTACKS = (
    Attack("caps_by_addresses", "short"),
    Attack("followed_client", "short"),
    Attack("followed_collapse", "short"),
    Attack("gate_full", "short"),
    Attack("gate_fuzz", "short", words=("10000",)),
    Attack("half_open_lockout", "short", environment={"LATER": "0"}),
    Attack("inside_server_any_host", "short"),
    Attack("log_flood", "short"),
    Attack("odd_hosts", "short"),
    Attack("router_user_server", "short"),
    Attack("silent_strangers", "short"),
    Attack("stranger_cancels", "short"),
    Attack("web_first_bytes", "short"),
    Attack("beyond_the_pinhole", "long"),
    Attack("cpu_frames", "long"),
    Attack("gate_fuzz", "long"),
    Attack("half_open_lockout", "long"),
    Attack("memory_per_flow", "long"),
    Attack("other_host_option19", "long"),
    Attack("other_host_resets", "long"),
    Attack("replaced_session", "long"),
    Attack("session_hole_outlives", "long"),
    Attack("cpu_stall", "flood"),
    Attack("gate_flood", "flood"),
    Attack("junk_flood", "flood"),
    Attack("junk_flood_outside", "flood"),
)
