"""NftFirewall: pinholes as elements of maps of our nftables table, by which its rules translate.

Opening, closing, narrowing or widening a pinhole is one transaction on the maps: packets see the pinhole as
it was or as it is. An element names the inside endpoint, so nothing has to be made ahead for a host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import Forward
from nfreaim.host.netfilter.nft_maps import ForwardMap, PinElement, PinMaps
from nfreaim.host.pinholes import pin_record
from nfreaim.host.pinholes.kernel_firewall import KernelFirewall, end_in, joined
from nfreaim.marks import DEFAULT, Marks


class NftFirewall(KernelFirewall):
    """See KernelFirewall."""

    def __init__(self, clock: Callable[[], float], marks: Marks = DEFAULT) -> None:
        super().__init__(clock, marks)
        self._maps = PinMaps()
        self._forwards = ForwardMap()
        self._inside_of: dict[Endpoint, Endpoint] = {}

    def close_sockets(self) -> None:
        super().close_sockets()
        self._maps.close()
        self._forwards.close()

    # --- core.firewall.pinhole.Firewall ---

    def open(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        self.foreign_marks.require()
        now = self._clock()
        old = [] if earlier is None else self._elements(earlier, now)
        self._maps.change(self._elements(pinhole, now), old)
        self._leases.written(pinhole, now)
        self._inside_of[pinhole.outside] = pinhole.inside

    def close(self, pinhole: Pinhole) -> None:
        self._leases.gone(pinhole.outside)
        self._maps.change((), self._elements(pinhole, self._clock()))
        self._inside_of.pop(pinhole.outside, None)

    def list(self) -> list[Pinhole]:
        found = joined(
            pinhole
            for it in self._maps.entries()
            if (pinhole := pin_record.read(it.comment, it.outside, it.peer, it.verify, it.inside))
        )
        for pinhole in found:
            self._inside_of[pinhole.outside] = pinhole.inside
        return found

    def prepare(self, host: str) -> None:
        """Nothing takes long here."""

    def upkeep(self) -> None:
        """Nothing is put off here."""

    # --- start and stop ---

    def behind(self, outside: Endpoint) -> Endpoint | None:
        return self._inside_of.get(outside)

    def set_forwards(self, forwards: Sequence[Forward]) -> None:
        self._forwards.replace(forwards)

    def forwards(self) -> Sequence[Forward]:
        return self._forwards.entries()

    def clear(self) -> None:
        self._forwards.replace(())

    # --- KernelFirewall ---

    def _write_again(self, due: Sequence[Pinhole], now: float) -> set[Endpoint]:
        elements = [element for pinhole in due for element in self._elements(pinhole, now)]
        return {element.outside for element in self._maps.renew(elements)}

    def _ends(self) -> Mapping[Endpoint, float]:
        now = self._clock()
        return {it.outside: end_in(it.seconds, now) for it in self._maps.entries()}

    def _elements(self, pinhole: Pinhole, now: float) -> Sequence[PinElement]:
        """The pinhole's elements, as they are written now: one for each peer, or one for everybody."""
        seconds = self._leases.seconds(pinhole, now)
        record = pin_record.written(pinhole, with_inside=False)
        return [
            PinElement(pinhole.outside, peer, pinhole.inside, seconds, pinhole.verify, record)
            for peer in pinhole.peers or ("",)
        ]
