"""LANs of one router that may not meet: their hosts are told outside endpoints, as anybody outside is."""

from __future__ import annotations

import pytest

from nfreaim.config import Config, parse
from nfreaim.errors import ConfigError
from nfreaim.host.check import networks
from tests.oscar.icq import ARRIVAL, STATUS
from tests.oscar.messages import OUT, OWN, proposal
from tests.oscar.rendezvous import PORT, REQUESTER_IP
from tests.oscar.tlv import tlv
from tests.oscar.values import put, u16
from tests.unit.oscar_wires import PROPOSAL, beside, wire_of

OFFER = proposal(tlv(REQUESTER_IP, OUT) + tlv(PORT, u16(5190)), subtype=7)


@pytest.mark.parametrize("host", ["10.0.0.5", "10.0.0.6"], ids=["who offers", "who is told"])
def test_an_offer_to_a_host_of_an_isolated_lan_stays_as_outside_peers_get_it(host: str) -> None:
    alice = wire_of()
    alice.client(PROPOSAL)
    amy = beside(alice)
    assert amy.server(OFFER) == OFFER.replace(OUT, OWN)
    alice.router.kernel.isolated = {host}
    assert amy.server(OFFER) == OFFER


def test_a_contact_in_an_isolated_lan() -> None:
    alice = wire_of()
    alice.client(STATUS)
    amy = beside(alice)
    assert amy.server(ARRIVAL) == put(ARRIVAL, (37, OWN), (78, OWN))
    alice.router.kernel.isolated = {"10.0.0.6"}
    assert amy.server(ARRIVAL) == ARRIVAL


@pytest.mark.parametrize(
    ("text", "isolated"),
    [
        ("", False),
        ("isolated_lans = true", True),
        ("isolated_lans = false", False),
        ('isolated_lans = ["br-guest", "iot"]', ("br-guest", "iot")),
    ],
)
def test_the_setting(text: str, isolated: object) -> None:
    assert parse(text, "F").isolated_lans == isolated


@pytest.mark.parametrize("value", ["1", '"br-guest"', '["br guest"]'])
def test_what_is_no_such_setting(value: str) -> None:
    with pytest.raises(ConfigError, match=r"isolated_lans.*must be true, false or a list of interface names"):
        parse(f"isolated_lans = {value}", "F")


def told(isolated: bool | tuple[str, ...], *lans: str) -> list[str]:
    return [str(it) for it in networks.isolation(Config(lan=lans, isolated_lans=isolated, file="F"))]


def test_what_check_says() -> None:
    assert told(False, "lan") == []
    (line,) = told(False, "lan", "guest")
    assert line.startswith("hint hosts on lan and guest are told each other's LAN addresses")
    assert line.endswith("write isolated_lans = true in F")
    assert told(True, "lan", "guest") == [
        "ok   hosts on lan, guest are told no address of another inside interface"
    ]
    assert told(("guest",), "lan", "guest") == [
        "ok   hosts on guest are told no address of another inside interface"
    ]
    assert told(("gast",), "lan", "guest")[0] == (
        "warn isolated_lans names gast, which is no inside interface"
        ' -> write one of ["lan", "guest"] instead in F'
    )
    assert told(("guest+",), "lan", "guest0") == [
        "ok   hosts on guest+ are told no address of another inside interface"
    ]
    assert "one inside interface alone" in told(True, "lan")[0]
