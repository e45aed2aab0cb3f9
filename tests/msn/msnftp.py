"""MSNFTP: invitations as ``MSG`` payloads, and the lines and blocks of the peers' own connection.

Sources: hypothetic.org's description of file transfers, aMSN's protocol.tcl, Miranda's msn_ftold.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.msn.fields import Fields, Message, block, get, mime, take_block

INVITATION = "text/x-msmsgsinvite"
FILE_GUID = "{5D3E02AB-6190-11d3-BBBB-00C04F795683}"
MASK = 0x3141
"""PortX is the port XOR this."""
BLOCK = 2045
"""The longest block of a file, in bytes."""
GREETING = b"VER MSNFTP\r\n"
END = b"\1\0\0"
_LAST = (("Launch-Application", "FALSE"), ("Request-Data", "IP-Address:"))


def invitation(fields: Fields) -> Message:
    """A message of these fields."""
    return Message(mime(f"{INVITATION}; charset=UTF-8"), block(fields))


def fields_of(message: Message) -> Fields:
    """The fields of an invitation; ValueError if it is none."""
    if message.content_type != INVITATION:
        raise ValueError(f"no invitation: {message.content_type}")
    return take_block(message.body)[0]


def invite(cookie: int, name: str, size: int, reachable: bool = True) -> Message:
    """A file's sender asks whether it is wanted; *reachable*: it may be connected to."""
    fields = (
        ("Application-Name", "File Transfer"),
        ("Application-GUID", FILE_GUID),
        ("Invitation-Command", "INVITE"),
        ("Invitation-Cookie", str(cookie)),
        ("Application-File", name),
        ("Application-FileSize", str(size)),
    )
    return invitation(fields if reachable else (*fields, ("Connectivity", "N")))


def accept(cookie: int) -> Message:
    """The receiver wants it, and asks where to fetch it."""
    head = (("Invitation-Command", "ACCEPT"), ("Invitation-Cookie", str(cookie)))
    return invitation((*head, *_LAST))


@dataclass(frozen=True)
class Endpoint:
    """Where somebody listens, as the fields of an invitation say it.

    *internal* is the address on its own network, "" where the client does not tell; *internal_port* is the
    port there, 0 likewise. *extended* clients repeat the ports, disguised.
    """

    address: str
    port: int
    internal: str = ""
    internal_port: int = 0
    extended: bool = False

    def fields(self, cookie: int) -> Fields:
        """Those of the address, and AuthCookie *cookie*."""
        found = [("IP-Address", self.address)]
        found += [("IP-Address-Internal", self.internal)] if self.internal else []
        found.append(("Port", str(self.port)))
        found += [("PortX", str(self.port ^ MASK))] if self.extended else []
        found += [("PortX-Internal", str(self.internal_port ^ MASK))] if self.internal_port else []
        return (*found, ("AuthCookie", str(cookie)))

    @classmethod
    def of(cls, fields: Fields) -> Endpoint:
        """What these fields say; ValueError unless there are an address and a port."""
        address, port, hidden = get(fields, "IP-Address"), get(fields, "Port"), get(fields, "PortX")
        if address is None or port is None:
            raise ValueError(f"no address: {fields}")
        if hidden is not None and int(hidden) ^ MASK != int(port):
            raise ValueError(f"Port {port} and PortX {hidden} are not one port")
        inside = int(get(fields, "PortX-Internal") or MASK) ^ MASK
        return cls(address, int(port), get(fields, "IP-Address-Internal") or "", inside, hidden is not None)


def listening(cookie: int, endpoint: Endpoint, auth: int) -> Message:
    """The sender says where it listens, once it knows that the file is wanted."""
    head = (("Invitation-Command", "ACCEPT"), ("Invitation-Cookie", str(cookie)))
    return invitation((*head, *endpoint.fields(auth), *_LAST))


def sender_connect(cookie: int, endpoint: Endpoint, auth: int) -> Message:
    """The receiver says where it listens itself, because the sender cannot be reached."""
    rest = (("Sender-Connect", "TRUE"), ("Invitation-Command", "ACCEPT"), ("Invitation-Cookie", str(cookie)))
    return invitation((*endpoint.fields(auth), *rest, *_LAST))


def cancel(cookie: int, code: str) -> Message:
    """No, or no more."""
    head = (("Invitation-Command", "CANCEL"), ("Invitation-Cookie", str(cookie)))
    return invitation((*head, ("Cancel-Code", code)))


# --- the peers' own connection ---


def line(*words: object) -> bytes:
    """One of its lines."""
    return " ".join(str(word) for word in words).encode() + b"\r\n"


def blocks(content: bytes) -> bytes:
    """A file in blocks: 0, u16 LE length, bytes; and the one that ends it."""
    cut = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
    return b"".join(b"\0" + len(part).to_bytes(2, "little") + part for part in cut) + END
