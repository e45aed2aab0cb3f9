"""Sample: a session of a few messages, in which a client signs on, offers something and withdraws it.

A self-test plays it through a running daemon, with sockets of its own at both ends. A protocol that has one
names it in its HelperSpec.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nfreaim.core.address import Direction, Endpoint


class Sample(Protocol):
    """One session. Its messages are asked for in the order in which they are sent."""

    @property
    def greeting(self) -> bytes:
        """What a peer that follows the offer says first."""

    def sign_on(self) -> Sequence[tuple[Direction, bytes]]:
        """What both ends say until the client may offer something, with who says it."""

    def offer(self, inside: Endpoint) -> bytes:
        """The client's message that a peer may connect to *inside*."""

    def announced(self, message: bytes) -> Endpoint:
        """The endpoint in a message of ``offer``, perhaps edited. Raises ValueError if it is none."""

    def withdrawal(self) -> bytes:
        """The client's message that the offer no longer stands."""
