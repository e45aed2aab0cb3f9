"""Offers: what becomes of the messages that say where somebody listens, and when their pinholes end.

Who offers listens. So what leaves must name the router, with a pinhole behind it, and what arrives and names
a pinhole of ours comes from the same network and must name the host again. Of the endpoints in a message only
the sender's own count; proxies, other interfaces, names and IPv6 stay, and so does the order, because the
receiver tries one after the other. A client's message is edited in whole or left. Left are those for UDP: a
pinhole is for TCP, so the peer would reach the listener, say so, and wait in vain for what comes next.

A server on our side relays its users' messages without a look at the addresses in them, and stamps only who
they are from. So there its word must be good (``Nat.expect`` asks), both users must be its own, and the
pinhole is for the very peer whose connection is read: the one who is told. Ports of SOCKS proxies are left
there, because these answer to the same first bytes.

The peer answers an XEP-0065 message with an error, or with the jid of what it has reached. In Jingle it says
so in a message of its own, and either side ends the session.
"""

from __future__ import annotations

from typing import Final, Literal

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.announced import Own, not_own, own
from nfreaim.core.helper import Action, Expectation, Nat, Refused, Report
from nfreaim.core.reach import unreachable
from nfreaim.core.tcp.offsets import Edit
from nfreaim.helpers.xmpp.socks5_greetings import GREETINGS
from nfreaim.helpers.xmpp.stanzas import Context, Found, Message, Stanza, named
from nfreaim.layers.xml_stream import Tag, XmlStream

SERVICE: Final = "xmpp-file"
LONGEST_MESSAGE: Final = 8192
"""Bytes from the start of a query or transport to its end; longer ones are left. Recorded: 200."""

_NAMES_NONE: Final = {  # by whether it leaves, and whether the server is inside
    (True, False): "names no endpoint of its sender",
    (True, True): "names no inside host",
    (False, False): "names no pinhole of this router",
}
# Of SOCKS servers in general, and of Tor's: whoever has an account there could name one of any inside host.
_PROXIES: Final = frozenset({1080, 9050, 9150})
_REMEMBERED: Final = 16  # agreements of one flow; as many pinholes as it may have, and some to spare


def outgoing(nat: Nat) -> Direction:
    """The direction in which offers of inside hosts leave."""
    return Direction.REPLY if nat.server_inside else Direction.ORIGINAL


class Offers:
    """Those of one flow."""

    __slots__ = ("_agreed",)

    def __init__(self) -> None:
        self._agreed: dict[bytes, tuple[bytes, ...]] = {}  # by agreement, the names that its message had

    def saw(self, direction: Direction, message: Message, tag: Tag, nat: Nat) -> None:
        """A child of a message of endpoints, or of answers to one."""
        found = message.read(tag)
        if found is not None:
            message.first = message.first or found.endpoint
            if concerns(found, direction, nat):
                message.found.append(found)
        elif direction is outgoing(nat) or not self._agreed:
            return
        elif tag.name == b"candidate-used":
            self._accepted(message.names[1], nat)
        elif tag.name == b"candidate-error":
            self._withdraw(message.names[1], "the peer reached none of the endpoints", nat)

    def decide(self, direction: Direction, context: Context, end: int, nat: Nat) -> list[Edit]:
        """A message of endpoints has come to its *end*, which is a stream offset: the edits that it needs."""
        message, stanza, out = context.message, context.stanza, direction is outgoing(nat)
        if message is None or message.first is None or stanza is None or not context.offering:
            return []
        if (not out and nat.server_inside) or not nat.may_read(direction):
            return []
        nat.count("proposals")
        changes: dict[Endpoint, Endpoint] = {}
        reason = _flaw(message, stanza, end, direction, nat)
        if not reason and out:
            changes, reason = self._expect(message, nat)
        elif not reason:
            insides = {found.endpoint: nat.inside_of(found.endpoint) for found in message.found}
            changes = {announced: inside for announced, inside in insides.items() if inside}
            reason = "pinhole of this router"
        _report(message, message.first, changes, out, reason, nat)
        return _edits(message.found, changes)

    def answered(self, direction: Direction, stanza: Stanza, nat: Nat) -> None:
        """An iq has come to its end, which may be the answer to an offer."""
        if direction is outgoing(nat) or not self._agreed:
            return
        name = named(b"stanza", stanza.ident, stanza.party)
        if stanza.kind == b"error":
            self._withdraw(name, "the peer could not connect, or would not", nat)
        elif stanza.kind == b"result" and stanza.used:
            self._accepted(name, nat)

    def session_over(self, session: bytes, nat: Nat) -> None:
        """A session of Jingle is ended."""
        self._withdraw(session, "the session has ended", nat)

    def _expect(self, message: Message, nat: Nat) -> tuple[dict[Endpoint, Endpoint], str]:
        """Have pinholes opened for all that the message names of its sender, or for nothing.

        Of what a server inside relays it is not known which addresses are the sender's. He names those of all
        his interfaces, of which some are in networks of his own; so what is refused there is left alone. The
        same holds for the outside address, because another rule may forward the port already.
        """
        changes: dict[Endpoint, Endpoint] = {}
        opened: list[bytes] = []
        refusal, reason, partly = "", "host of the inside networks", nat.server_inside
        for announced in dict.fromkeys(found.endpoint for found in message.found):
            try:
                whose = Own(announced, None) if nat.server_inside else own(announced, nat)
                agreement = named(message.names[1], str(whose.inside).encode())
                known = agreement in self._agreed
                changes[announced] = self._open(agreement, whose, message, nat)
            except Refused as refused:
                refusal = refusal or str(refused)
                if nat.server_inside or announced.address != nat.inside.address:
                    partly = True
                    continue
                partly = False
                break
            reason = reason if nat.server_inside else whose.reason
            if not known:
                opened.append(agreement)
        if refusal and not (partly and changes):
            for agreement in opened:
                del self._agreed[agreement]
                nat.withdraw(agreement, "the message that names it is left")
            return {}, refusal
        while len(self._agreed) > _REMEMBERED:
            del self._agreed[next(iter(self._agreed))]
        return changes, reason

    def _open(self, agreement: bytes, whose: Own, message: Message, nat: Nat) -> Endpoint:
        """Have one pinhole opened; what to announce. Raises Refused."""
        inside = whose.inside
        if nat.server_inside and inside.port in _PROXIES:
            raise Refused("names a port of SOCKS proxies")
        peer = nat.outside.address if nat.server_inside else None
        outside = nat.expect(
            Expectation(agreement, SERVICE, inside, peer, greetings=GREETINGS, announced=whose.outside)
        )
        unwritten = any(found.port is None and found.endpoint == whose.announced for found in message.found)
        if unwritten and outside.port != inside.port:
            if agreement not in self._agreed:
                nat.withdraw(agreement, "it cannot be announced")
            raise Refused("its port is not written, and is not free outside")
        self._agreed[agreement] = message.names
        return outside

    def _withdraw(self, name: bytes, reason: str, nat: Nat) -> None:
        for agreement in [agreement for agreement, names in self._agreed.items() if name in names]:
            del self._agreed[agreement]
            nat.withdraw(agreement, reason)

    def _accepted(self, name: bytes, nat: Nat) -> None:
        for agreement, names in self._agreed.items():
            if name in names:
                nat.accepted(agreement)


def concerns(found: Found, direction: Direction, nat: Nat) -> bool:
    """Whether an endpoint has to be said otherwise, as far as its address tells."""
    endpoint = found.endpoint
    if direction is not outgoing(nat):
        return not nat.server_inside and nat.inside_of(endpoint) is not None
    if nat.server_inside:
        return nat.is_home(endpoint.address)
    return endpoint.address == nat.inside.address or (found.own and nat.is_ours(endpoint.address))


def hold(direction: Direction, context: Context, stream: XmlStream, end: int, nat: Nat) -> int | None:
    """From which offset on an edit could concern what has come of a message; None: nowhere yet.

    *end* is the offset behind what has come of *stream*.
    """
    message = context.message
    if message is None or not context.offering or end - message.at > LONGEST_MESSAGE or message.datagrams:
        return None
    if message.found:
        return None if message.more else message.found[0].start
    relevant = direction is outgoing(nat) or (nat.has_pinholes() and not nat.server_inside)
    item, head = b"<" + message.item, stream.head
    begins = head and stream.depth == message.depth and (item.startswith(head) or head.startswith(item))
    return stream.at if relevant and begins else None


def _flaw(message: Message, stanza: Stanza, end: int, direction: Direction, nat: Nat) -> str:
    """Why a message has to be left, whatever the router says; "" if nothing is wrong with it."""
    out = direction is outgoing(nat)
    if not message.found:
        first = message.first
        if out and not nat.server_inside and first is not None and unreachable(first.address):
            return not_own(first.address, nat)
        return _NAMES_NONE[out, nat.server_inside]
    if message.datagrams:
        return "is for UDP"
    if message.more:
        return "names too many endpoints"
    if end - message.at > LONGEST_MESSAGE:
        return "is too long"
    if out and nat.server_inside and not stanza.local:
        return "is from a user of another server"
    if not nat.editable(direction, message.found[0].start):
        return "its addresses had left before its end came"
    return ""


def _edits(all_found: list[Found], changes: dict[Endpoint, Endpoint]) -> list[Edit]:
    edits: list[Edit] = []
    for host, port, before in ((found.host, found.port, found.endpoint) for found in all_found):
        after = changes.get(before)
        if after is None:
            continue
        new = [(host, after.address.encode())] + ([(port, b"%d" % after.port)] if port else [])
        edits += [Edit(old.at, old.end, text) for old, text in new if old.value != text]
    return sorted(edits, key=lambda edit: edit.start)


def _report(
    message: Message, first: Endpoint, changes: dict[Endpoint, Endpoint], out: bool, reason: str, nat: Nat
) -> None:
    before = next((found.endpoint for found in message.found), first)
    way: Literal["out", "in"] = "out" if out else "in"
    done: Action = "rewritten" if out else "mapped-back"
    action: Action = done if changes else "left"
    nat.count(action.replace("-", "_"))
    after = changes.get(before, before)
    nat.report(Report(way, SERVICE, 0, message.names[1], before, after, action=action, reason=reason))
