"""What a peer says first on a peer link, by service: OFT2 for files, ODC2 for direct IMs. No state here.

File transfer, a header of 256 bytes or more: "OFT2" (or "OFT3": the same with sizes of 64 bits), u16 length
of the header, u16 type, cookie[8], counts, sizes, name. The sender of the file speaks first, whoever opened
the connection, with a prompt; the receiver's first word is an ack, "done" (it has the file already) or
"resume". Recorded from libpurple 2.12.1 and in public captures of AIM. The cookie is of no use here: in
prompts of libpurple and Miranda it is zero, in those of AIM it is not.

Get File uses the same header with types of its own; who speaks first depends on the client.

Direct IM, a header of 76 bytes: "ODC2", u16 76, u16 type 1, u16 subtype, u16 0, cookie[8] and more. The side
that opened the connection speaks first, and the listener closes it if the cookie is not that of the proposal
(libpurple 2.12.1): so clients that worked with it send it.
"""

from __future__ import annotations

from typing import Final, Literal

from nfreaim.core.greeting import Field, Greeting

Party = Literal["sender", "receiver"]
"""Of a file: what the peer outside is."""

_OFT: Final = Field(0, frozenset({b"OFT2", b"OFT3"}))
# The name stands at the end: beyond 63 bytes it makes the header longer. None has been seen that needs 2 KiB.
_OFT_LENGTH: Final = Field(4, frozenset(bytes([high]) for high in range(1, 8)))
_PROMPT: Final = frozenset({b"\x01\x01"})
_FROM_RECEIVER: Final = frozenset({b"\x02\x02", b"\x02\x04", b"\x02\x05"})
# Listing asked for, sent, received, acknowledged; file and directory wanted; then the transfer's own.
_GET_FILE: Final = frozenset(
    {b"\x11\x08", b"\x12\x09", b"\x12\x0a", b"\x12\x0b", b"\x12\x0c", b"\x12\x0e"} | _PROMPT | _FROM_RECEIVER
)
_ODC: Final = Field(0, frozenset({b"ODC2\x00\x4c\x00\x01"}))
_ODC_COOKIE: Final = 12


def greetings(service: str, cookie: bytes | None = None, peer: Party | None = None) -> tuple[Greeting, ...]:
    """What the peer may say first on a link for *service*; nothing where that is not known: no gate then.

    cookie  of the agreement (8 bytes); None where it is not known: any will do
    peer    whether the peer sends or receives the file; None where that cannot be told
    """
    if service == "send-file":
        types = {"sender": _PROMPT, "receiver": _FROM_RECEIVER, None: _PROMPT | _FROM_RECEIVER}[peer]
        return ((_OFT, _OFT_LENGTH, Field(6, types)),)
    if service == "get-file":
        return ((_OFT, _OFT_LENGTH, Field(6, _GET_FILE)),)
    if service == "direct-im":
        named = () if cookie is None else (Field(_ODC_COOKIE, frozenset({cookie})),)
        return ((_ODC, *named),)
    return ()
