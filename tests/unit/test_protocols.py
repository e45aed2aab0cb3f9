"""Protocols by name: which are read, on which ports, and what their sections of the configuration limit.

The table has two made-up protocols, so that nothing here depends on a real one.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from nfreaim import protocols
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.helper import HelperFactory, HelperSpec, Service
from nfreaim.errors import ConfigError
from nfreaim.protocols import EVERYBODY, Section


def unused() -> HelperFactory:
    raise AssertionError("nobody reads")


LOUD = HelperSpec(
    "loud",
    (1000, 1001),
    unused,
    services={"shout": Service(), "ring": Service(cap="rings"), "bell": Service(cap="rings")},
    switches={"may_ring": ("ring", "bell")},
    caps={"rings": 3},
)
QUIET_S = HelperSpec(
    "quiet",
    (2000,),
    unused,
    services={"hum": Service(default=False), "sigh": Service(default=False), "note": Service()},
    switches={"may_hum": ("hum",)},
    service_name=lambda text: text.lower().replace("-", ""),
)


@pytest.fixture(autouse=True)
def two_protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "HELPERS", (LOUD, QUIET_S))


def limited(names: str, sections: protocols.Sections | None = None, **settings: object) -> PinholePolicy:
    policy = PinholePolicy(**settings)  # type: ignore[arg-type]
    return protocols.limited(policy, names.split(), sections or {})


@pytest.mark.parametrize(
    ("options", "ports"),
    [
        ("loud", {"loud": (1000, 1001)}),
        ("loud quiet", {"loud": (1000, 1001), "quiet": (2000,)}),
        ("quiet:7,8 loud", {"quiet": (7, 8), "loud": (1000, 1001)}),
        ("quiet:65535", {"quiet": (65535,)}),
        ("quiet:1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", {"quiet": tuple(range(1, 16))}),
    ],
)
def test_options_name_protocols_and_perhaps_their_ports(
    options: str, ports: dict[str, tuple[int, ...]]
) -> None:
    assert protocols.chosen(options.split()) == ports


def test_ports_that_no_option_names_are_those_of_the_section() -> None:
    sections = {"quiet": Section(ports=(5, 6)), "loud": Section()}
    assert protocols.chosen(["quiet", "loud"], sections) == {"quiet": (5, 6), "loud": (1000, 1001)}
    assert protocols.chosen(["quiet:9"], sections) == {"quiet": (9,)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("silent", "there is no protocol 'silent'; known are loud, quiet"),
        (":7", "there is no protocol ''"),
        ("loud:", "protocol loud: '' is no port; write loud:N[,N...]"),
        ("loud:0", "protocol loud: '0' is no port"),
        ("loud:65536", "protocol loud: '65536' is no port"),
        ("loud:7,,8", "protocol loud: '' is no port"),
        ("loud:+7", "protocol loud: '+7' is no port"),
        ("loud:\u0667", "is no port"),
        ("loud loud:7", "protocol loud is given twice"),
        ("loud:7 quiet:8,7", "port 7 is given to loud and to quiet"),
        ("quiet:1001 loud", "port 1001 is given to quiet and to loud"),
        ("quiet:1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", "protocol quiet: 16 ports; from 1 to 15 fit"),
    ],
)
def test_options_that_make_no_sense(options: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        protocols.chosen(options.split())


def test_each_port_leads_to_its_protocol() -> None:
    assert protocols.by_port({"loud": (1, 2), "quiet": (3,)}) == {1: LOUD, 2: LOUD, 3: QUIET_S}


def test_caps_are_those_of_the_section_or_the_usual_ones_and_of_read_protocols_only() -> None:
    assert limited("loud").caps == {"ring": ("rings", 3), "bell": ("rings", 3)}
    assert limited("loud", {"loud": Section(caps={"rings": 9})}).caps["bell"] == ("rings", 9)
    assert limited("quiet", {"loud": Section(caps={"rings": 9})}).caps == {}


@pytest.mark.parametrize(
    ("hosts", "may"),
    [
        (EVERYBODY, {"10.0.0.5": True, "10.0.0.6": True}),
        (frozenset({"10.0.0.5"}), {"10.0.0.5": True, "10.0.0.6": False}),
        (frozenset(), {"10.0.0.5": False, "10.0.0.6": False}),
    ],
)
def test_switch_governs_its_services_for_the_hosts_it_names(
    hosts: frozenset[str] | None, may: dict[str, bool]
) -> None:
    sections = {"loud": Section(switches={"may_ring": hosts}), "quiet": Section(switches={"may_hum": hosts})}
    policy = limited("loud quiet", sections)
    for service in ("ring", "bell", "hum"):
        assert {host: policy.refuses(service, host) is None for host in may} == may
    assert policy.refuses("shout", "10.0.0.6") is None


def test_service_that_is_off_by_default_is_on_once_somebody_allows_it() -> None:
    assert limited("loud quiet").off == {"hum", "sigh"}
    assert limited("loud").off == frozenset()
    assert limited("quiet", allow_services=frozenset({"sigh"})).off == {"hum"}
    assert limited("quiet", {"quiet": Section(switches={"may_hum": EVERYBODY})}).off == {"sigh"}
    assert limited("quiet").refuses("hum", "10.0.0.5") is not None


def test_section_of_a_protocol_that_is_not_read_limits_nothing() -> None:
    assert limited("quiet", {"loud": Section(switches={"may_ring": frozenset()})}).only_for == {}


def test_service_is_called_what_its_protocol_calls_it() -> None:
    assert protocols.service_name("Shout") == "shout"
    assert protocols.service_name("No-Te") == "note"


def test_service_that_nobody_knows_is_refused_where_a_protocol_lists_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert limited("loud").refuses("whisper", "10.0.0.5") is None
    closed = [replace(spec, closed=spec.name == "loud") for spec in (LOUD, QUIET_S)]
    monkeypatch.setattr(protocols, "HELPERS", tuple(closed))
    policy = limited("loud quiet")
    assert policy.refuses("ring", "10.0.0.5") is None
    reason = policy.refuses("whisper", "10.0.0.5")
    assert reason == 'service whisper is not known; to allow it, write also = ["whisper"] in [services]'
    assert limited("loud", also_services=frozenset({"whisper"})).refuses("whisper", "10.0.0.5") is None
    both = limited("loud", also_services=frozenset({"whisper"}), deny_services=frozenset({"whisper"}))
    assert both.refuses("whisper", "10.0.0.5") == "service whisper is switched off in the configuration"
    # A list of allowed services means what it did: these and no others, known or not.
    listed = limited("loud", allow_services=frozenset({"whisper"}))
    assert listed.refuses("whisper", "10.0.0.5") is None
    assert listed.refuses("ring", "10.0.0.5") == "service ring is switched off in the configuration"
    more = limited("loud", allow_services=frozenset({"bell"}), also_services=frozenset({"ring"}))
    assert [more.serves(each) for each in ("ring", "bell", "whisper")] == [True, True, False]
    assert limited("loud quiet", also_services=frozenset({"sigh"})).off == {"hum"}
