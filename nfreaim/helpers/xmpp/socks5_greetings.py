"""The first bytes of a peer on a bytestream: SOCKS5's (RFC 1928, section 3; XEP-0065).

The side that was told connects and speaks first: 05, the number of methods that it offers, and these. Method
0, no authentication, is the only one that XEP-0065 has, so it must be among them; a client that serves other
protocols, too, may offer 1 (GSSAPI) and 2 (user and password) beside it. Recorded of libpurple: 05 01 00.

The hash by which the listener tells the right peer comes in the peer's second message, after an answer.
"""

from __future__ import annotations

from itertools import permutations
from typing import Final

from nfreaim.core.greeting import Field, Greeting

_SEVERAL: Final = [methods for count in (2, 3) for methods in permutations((0, 1, 2), count) if 0 in methods]

GREETINGS: Final[tuple[Greeting, ...]] = tuple(
    (Field(0, frozenset({bytes([5, len(methods), *methods])})),) for methods in [(0,), *_SEVERAL]
)
