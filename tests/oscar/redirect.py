"""Messages that name another server, as text in TLV 0x0005: "host:port" or "host".

SNAC(17,03) and (01,05); (01,12) with a list of families before the TLVs (u16 count, u16 each); channel 4.
"""

from __future__ import annotations

from tests.golden import load
from tests.oscar.flap import resized
from tests.oscar.snac import LOGIN, LOGIN_REPLY, MIGRATION, SERVICE_REQUEST, Kind, snac_frame
from tests.oscar.tlv import tlv

SERVER_NAME, COOKIE = 0x0005, 0x0006
REDIRECTS = ("login-reply", "service-redirect", "icq-flap-login-reply")
"""The golden ones."""
NAMED, HOME = b"203.0.113.9:5190", b"10.0.0.9:5190"
"""What those name, and a server inside."""


def redirect(tlvs: bytes, kind: Kind = LOGIN_REPLY, extra: bytes = b"") -> bytes:
    """A frame of the server with these bytes behind the header and *extra*, a whole extra block."""
    return snac_frame(kind, tlvs, number=0x66, request=2, extra=extra)


def migration(tlvs: bytes, families: bytes = b"\0\2\0\4\0\x13", extra: bytes = b"") -> bytes:
    """SNAC(01,12)."""
    return redirect(families + tlvs, MIGRATION, extra)


def naming(text: bytes, name: str = "login-reply") -> bytes:
    """A golden redirect that names another server, put together by nothing but counting."""
    return renamed(load()[name].data, NAMED, text)


def renamed(frame: bytes, old: bytes, new: bytes) -> bytes:
    """*frame* with another text in its TLVs 0x0005, all lengths right."""
    assert tlv(SERVER_NAME, old) in frame
    return resized(frame[:6] + frame[6:].replace(tlv(SERVER_NAME, old), tlv(SERVER_NAME, new)))


ASKED = {
    "login-reply": snac_frame(LOGIN),
    "service-redirect": snac_frame(SERVICE_REQUEST, b"\0\x18"),
    "icq-flap-login-reply": b"",
}
"""What a client sends before the server answers with one of the golden ones; of the last one its sign-on."""
AT_HOME = tuple(naming(HOME, name) for name in REDIRECTS)
"""The golden ones, of a server inside."""
