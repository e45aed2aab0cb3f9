"""Offered: what inside hosts have offered to peers in messages that left as they came.

No pinhole was opened for such an offer. But its peer may come all the same, when the server wrote the
router's address into the message: to a pinhole that another offer of the same port has. Without a pinhole he
would be refused at once, and his client would try another way; reset amid a connection it gives up. So the
peer gate lets in who says what was offered there, and a peer who claims the pinhole does not have it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.index import AgreementKey, Entry
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.greeting import Greeting, GreetingsOf
from nfreaim.core.helper import ANY_PORT, Expectation

_STRANGERS: Final = 16
_PER_HOST: Final = 32
_HOSTS: Final = 1024


class Offer(NamedTuple):
    """One of them: what its peer may say first, at which port, until when."""

    greetings: tuple[Greeting, ...]
    port: int
    until: float


class Offered:
    """The latest of each inside host, and of so many hosts."""

    def __init__(self, policy: PinholePolicy) -> None:
        self.policy = policy
        self._of: dict[str, dict[tuple[AgreementKey, int], Offer]] = {}

    def left(self, flow: FlowId, wanted: Expectation, now: float) -> None:
        """What *wanted* says was offered by a message of *flow*, which leaves as it came.

        What the operator switched off counts for nothing. Nor does a service whose first bytes are not known,
        or its offer would switch off the gate for all others.
        """
        policy, inside = self.policy, wanted.inside
        if not policy.verify_peers or policy.refuses(wanted.service, inside.address):
            return
        if wanted.greetings and wanted.unverified not in policy.deny_services:
            offer = Offer(wanted.greetings, inside.port, now + policy.lifetime)
            self._add((flow, wanted.agreement), inside, offer)

    def found(self, pinhole: Pinhole, greetings: GreetingsOf, now: float) -> None:
        """An earlier daemon left *pinhole*. Of what its host offered then, nothing else was kept."""
        policy, host = self.policy, pinhole.inside.address
        for name in (policy.known or frozenset()) - policy.caps.keys():
            first = greetings(pinhole.protocol, name)
            if first and not policy.refuses(name, host):
                wanted = Expectation(name.encode(), name, Endpoint(host, ANY_PORT), greetings=first)
                self.left(pinhole.flow, wanted, now)

    def over(self, agreement: AgreementKey, entry: Entry) -> None:
        """*agreement* gives its place in *entry* to another one, as it seems to be over."""
        greetings = entry.greetings.get(agreement, ())
        if greetings:
            inside = entry.pinhole.inside
            self._add(agreement, inside, Offer(greetings, inside.port, entry.agreements[agreement]))

    def _add(self, agreement: AgreementKey, inside: Endpoint, offer: Offer) -> None:
        """One more at *inside*; the same agreement at the same port again replaces what it offered."""
        known = self._of.pop(inside.address, {})
        self._of[inside.address] = known
        known.pop((agreement, inside.port), None)
        known[agreement, inside.port] = offer
        if len(known) > _PER_HOST:
            del known[next(iter(known))]
        if len(self._of) > _HOSTS:
            del self._of[next(iter(self._of))]

    def forget(self, agreement: AgreementKey, host: str) -> None:
        """*agreement* of the inside *host* is over, or has a pinhole of its own."""
        self._drop(host, lambda key: key == agreement)

    def forget_flow(self, flow: FlowId) -> None:
        """*flow* is over."""
        self._drop(flow.client.address, lambda key: key[0] == flow)

    def greetings(self, inside: Endpoint) -> list[Greeting]:
        """What may be said first at *inside* because of them."""
        return [one for offer in self._at(inside) for one in offer.greetings]

    def awaited(self, entry: Entry) -> int:
        """How many peer addresses have to come through *entry* before it admits nobody else.

        One for each agreement or offer where the first bytes tell a peer from a stranger. Else a stranger
        that comes first must not shut the peer out.
        """
        pinhole = entry.pinhole
        others = sum(one.port != ANY_PORT for one in self._at(pinhole.inside)) if pinhole.verify else 0
        awaited = len(entry.agreements) + others
        return awaited if pinhole.verify or pinhole.peers else max(awaited, _STRANGERS)

    def expire(self, now: float) -> None:
        """Forget those that are past their end."""
        for host, known in list(self._of.items()):
            self._keep(host, {key: one for key, one in known.items() if one.until > now})

    def _at(self, inside: Endpoint) -> Iterator[Offer]:
        """Those at *inside*, or at whatever port of its host."""
        offers = self._of.get(inside.address, {}).values()
        return (one for one in offers if one.port in (inside.port, ANY_PORT))

    def _drop(self, host: str, which: Callable[[AgreementKey], bool]) -> None:
        if host in self._of:
            self._keep(host, {key: one for key, one in self._of[host].items() if not which(key[0])})

    def _keep(self, host: str, offers: dict[tuple[AgreementKey, int], Offer]) -> None:
        if offers:
            self._of[host] = offers
        else:
            del self._of[host]
