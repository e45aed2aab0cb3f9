"""At which outside port a server inside is reached, and which forward it lacks."""

from __future__ import annotations

import pytest

from nfreaim.config import Config
from nfreaim.core.address import Endpoint
from nfreaim.host.check import servers_at_home
from nfreaim.host.home.forward_reader import ForwardReader
from nfreaim.host.home.forward_rules import OperatorForward

OUTSIDE, HOME = "203.0.113.1", "10.0.0.9"
RULES = frozenset(
    {
        OperatorForward("", 1863, Endpoint(HOME, 1863)),
        OperatorForward(OUTSIDE, 11864, Endpoint(HOME, 1864)),
        OperatorForward(OUTSIDE, 21864, Endpoint(HOME, 1864)),
        OperatorForward("203.0.113.7", 1865, Endpoint(HOME, 1865)),
        OperatorForward(OUTSIDE, 0, Endpoint("10.0.0.8", 0)),
    }
)


class Known(ForwardReader):
    """Rules that were read."""

    def __init__(self) -> None:
        self._known = RULES

    def look(self) -> None:
        pass


@pytest.mark.parametrize(
    ("server", "port"),
    [
        (Endpoint(HOME, 1863), 1863),
        (Endpoint(HOME, 1864), 11864),
        (Endpoint(HOME, 1865), None),  # of another outside address
        (Endpoint("10.0.0.8", 1864), None),  # all ports are no forward of this one
        (Endpoint("10.0.0.7", 1863), None),
    ],
)
def test_port_that_is_forwarded_to_exactly_that_server(server: Endpoint, port: int | None) -> None:
    assert Known().port_of(server, OUTSIDE) == port


def test_missing_forward_of_a_server_with_several_ports_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers_at_home, "read_now", lambda: list(RULES))
    assert list(servers_at_home._incomplete((1863, 1864))) == []
    (missing,) = servers_at_home._incomplete((1863, 1864, 1866))
    assert (missing.status, missing.remedy) == (
        "warn",
        "if 10.0.0.9 is a server of yours, forward port 1866 to 10.0.0.9:1866",
    )
    assert list(servers_at_home._incomplete((5190, 5191))) == []


def test_a_protocol_says_that_its_servers_need_all_ports() -> None:
    config = Config(ports={"oscar": (5190, 443), "msn": (1863, 1864)})
    needs = {spec.name for spec in config.helpers().values() if spec.ports_of_one_server}
    assert needs == {"msn"}
