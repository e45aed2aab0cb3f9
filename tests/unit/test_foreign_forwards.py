"""Other people's forwards, read from the output of iptables-legacy-save and nft."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.pinholes import foreign_forwards
from nfreaim.host.pinholes.foreign_forwards import ForeignForward, ForeignForwards, forwarded


@pytest.mark.parametrize(
    ("rule", "ports"),
    [
        ("-A PREROUTING -i wan -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.9", [range(80, 81)]),
        ("-A PREROUTING -p tcp -m tcp --dport 6000:6010 -j DNAT --to 10.0.0.9", [range(6000, 6011)]),
        (
            "-A PREROUTING -p tcp -m multiport --dports 80,443,8000:8100 -j REDIRECT --to-ports 1",
            [range(80, 81), range(443, 444), range(8000, 8101)],
        ),
        ('iifname "wan" tcp dport 80 dnat to 10.0.0.9:8080', [range(80, 81)]),
        ("tcp dport 80-90 counter packets 0 bytes 0 dnat ip to 10.0.0.9", [range(80, 91)]),
        (
            "tcp dport { 80, 443, 8000-8100 } redirect to :3128",
            [range(80, 81), range(443, 444), range(8000, 8101)],
        ),
        ("-A PREROUTING -i wan -j DNAT --to-destination 10.0.0.9", [range(0)]),  # nothing can be avoided
        ('iifname "wan" dnat ip to tcp dport map @forwards', [range(0)]),
        ('counter packets 0 bytes 0 xt target "DNAT"', [range(0)]),
        ("tcp dport 80 redirect", [range(80, 81)]),
        ("dnat ip addr . port to tcp dport map { 80 : 10.0.0.9 . 8080 }", [range(0)]),
        ("-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT", []),
        # What accepts that which others have translated: fw4's own rule, and ours in its chain.
        ("ct mark & 0x02000000 == 0x02000000 ct status dnat accept", []),
        ('ct status dnat accept comment "!fw4: Accept port forwards"', []),
        ("-A FORWARD -m conntrack --ctstate RELATED,DNAT -j ACCEPT", []),
        ("icmp type redirect drop", []),
        ('iifname "wan" jump redirect', []),
        ("-A OUTPUT -p tcp -m tcp --sport 80 -j DNAT --to-destination 10.0.0.9", []),
        (
            '-A NFREAIM -p tcp -m tcp --dport 5190 -m comment --comment "nfreaim out=x" -j DNAT --to 10.0.0',
            [],
        ),
    ],
)
def test_ports_of_translating_rules_and_no_others(rule: str, ports: list[range]) -> None:
    assert [found.ports for found in forwarded(f"*nat\n{rule}\nCOMMIT\n")] == ports


def test_rules_of_our_own_tables_are_no_forwards_of_others() -> None:
    """They name no ports, so they would count as rules for all."""
    rule = "dnat ip to ip daddr . tcp dport map @nfreaim_any"
    tables = "".join(
        f"table {name} {{\n\tchain pre {{\n\t\t{rule}\n\t}}\n}}\n"
        for name in ("ip nfreaim", "ip nfreaim_guard7")
    )
    assert forwarded(tables) == []
    others = "table inet nfreaim {\n\tchain pre {\n\t\ttcp dport 80 dnat to 10.0.0.9\n\t}\n}\n"
    assert [found.ports for found in forwarded(tables + others + tables)] == [range(80, 81)]


def test_the_legacy_table_is_asked_for_only_where_it_is() -> None:
    """The program makes the table that it lists, and every packet would pass it from then on."""
    legacy = ("iptables-legacy-save", "-t", "nat")
    assert legacy not in foreign_forwards._programs(legacy=False)
    assert legacy in foreign_forwards._programs(legacy=True)


@pytest.mark.parametrize(
    ("rule", "takes"),
    [
        ("-A MINIUPNPD -p tcp -m tcp --dport 5200 -j DNAT --to-destination 10.0.0.6:5200", True),
        ("-A MINIUPNPD -p tcp -m tcp --dport 5200 -j DNAT --to-destination 10.0.0.5:5200", True),
        ("-A MINIUPNPD -p udp -m udp --dport 5200 -j DNAT --to-destination 10.0.0.6:5200", False),
        ("-A MINIUPNPD -p tcp -m tcp --dport 5201 -j DNAT --to-destination 10.0.0.6:5200", False),
        ("-A a -d 203.0.113.1/32 -p tcp -m tcp --dport 5200 -j DNAT --to-destination 10.0.0.6", True),
        ("-A a -d 203.0.113.0/24 -p tcp -m tcp --dport 5200 -j DNAT --to-destination 10.0.0.6", True),
        ("-A a -d 203.0.113.2/32 -p tcp -m tcp --dport 5200 -j DNAT --to-destination 10.0.0.6", False),
        ("-A a ! -d 203.0.113.2/32 -p tcp -m tcp --dport 5200 -j DNAT --to-destination 10.0.0.6", True),
        ("-A a -i wan -p tcp -m tcp --dport 5000:5999 -j DNAT --to-destination 10.0.0.6", True),
        ("-A a -i lan -p tcp -m tcp --dport 5000:5999 -j REDIRECT --to-ports 3128", False),
        ('iif "wan" ip daddr 203.0.113.1 tcp dport 5200 dnat to 10.0.0.6:5200', True),
        ('iifname "lan" tcp dport 5200 redirect to :3128', False),
        # As miniupnpd 2.3.1 with nftables makes them, and nft 1.0.6 prints them:
        ('iif "wan" @nh,72,8 0x6 th dport 5200 dnat ip to 10.0.0.6:5200', True),
        ('iif "wan" @nh,72,8 0x11 th dport 5200 dnat ip to 10.0.0.6:5200', False),
        ('iif "wan" ip protocol udp th dport 5200 dnat ip to 10.0.0.6:5200', False),
        ('iif "wan" meta l4proto udp th dport 5200 dnat ip to 10.0.0.6:5200', False),
        ("ip daddr { 203.0.113.1, 203.0.113.2 } tcp dport { 80, 5200 } dnat to 10.0.0.6", True),
        ("ip daddr 203.0.113.2 tcp dport 5200 dnat to 10.0.0.6", False),
    ],
)
def test_a_forward_is_in_the_way_of_what_would_come_to_it(rule: str, takes: bool) -> None:
    outside = Endpoint("203.0.113.1", 5200)
    assert any(found.takes(outside, ["lan"]) for found in forwarded(f"{rule} \n")) is takes


@pytest.mark.parametrize(
    "text",
    ["for nfreaim out", 'x\\" nfreaim out', "-p udp", "udp dport 1", "-d 10.0.0.0.1 of old", "-i lan "],
)
@pytest.mark.parametrize(
    "rule",
    [
        '-A a -p tcp -m comment --comment "{}" -m tcp --dport 5200 -j DNAT --to-destination 10.0.0.6',
        'tcp dport 5200 dnat to 10.0.0.6 comment "{}"',
    ],
)
def test_what_a_comment_says_changes_nothing(rule: str, text: str) -> None:
    """Programs put there what they were told, and UPnP has hosts describe what they ask for."""
    (found,) = forwarded(f"{rule.format(text)}\n")
    assert found.takes(Endpoint("203.0.113.1", 5200), ["lan"])


@pytest.mark.parametrize(
    ("rule", "may"),
    [
        ("-A PREROUTING -i wan -j DNAT --to-destination 10.0.0.9", True),
        ("-A PREROUTING -d 203.0.113.1/32 -i wan -j DNAT --to-destination 10.0.0.9", True),
        ("-A PREROUTING -d 203.0.113.2/32 -i wan -j DNAT --to-destination 10.0.0.9", False),
        ('iifname "wan" dnat ip to tcp dport map @forwards', True),
        ("-A PREROUTING -p tcp -m tcp --dport 5200 -j DNAT --to-destination 10.0.0.9", True),
        ("-A PREROUTING -p tcp -m tcp --dport 5201 -j DNAT --to-destination 10.0.0.9", False),
        ("-A PREROUTING -i wan -p udp -j DNAT --to-destination 10.0.0.9", False),
        ("-A OUTPUT -j DNAT --to-destination 10.0.0.9", False),
        ("-A POSTROUTING -o wan -j MASQUERADE", False),
    ],
)
def test_a_rule_without_a_port_is_in_nobodys_way_but_may_have_the_port(rule: str, may: bool) -> None:
    outside = Endpoint("203.0.113.1", 5200)
    found = forwarded(f"{rule}\n")
    assert any(one.may_take(outside) for one in found) is may
    if "dport 520" not in rule:
        assert not any(one.takes(outside, ["lan"]) for one in found)


def test_program_that_is_missing_fails_or_hangs_counts_as_no_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        foreign_forwards, "_programs", lambda legacy: (("no-such-program",), ("false",), ("sleep", "60"))
    )
    monkeypatch.setattr(foreign_forwards, "_TIMEOUT_S", 0.1)
    assert foreign_forwards.foreign_forwards() == []


class Read:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch, self.version, self.now = patch, 0, 0.0
        self.forwards = ForeignForwards(lambda: self.now)
        patch.setattr(self.forwards._tables, "others", lambda table: b"%d" % self.version)
        patch.setattr(foreign_forwards, "generation", lambda: None)
        self.say()

    def say(self, *ports: str, seen: bool = True) -> None:
        """From now on these ports are forwarded; *seen*: the tables look otherwise than before."""
        rules = "\n".join(f"-A a -p tcp --dport {port} -j DNAT --to-destination 10.0.0.9" for port in ports)
        self.patch.setattr(foreign_forwards, "_programs", lambda legacy: (("echo", rules),))
        self.version += seen

    def looked(self, seconds: float) -> bool:
        """Whether a look after so many seconds, and those that follow at once, find anything new."""
        self.now += seconds
        told = self.forwards.look()
        while self.forwards.busy:
            told |= self.forwards.look()
        return told


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """Forwards of a ruleset that is what ``say`` said last, and of a kernel that changes with it."""
    now = Read(monkeypatch)
    yield now
    now.forwards.close()


def test_refresh_forgets_what_is_gone(read: Read) -> None:
    read.say("80:82")
    read.forwards.refresh()
    assert [port for port in range(79, 84) if read.forwards.has(port)] == [80, 81, 82]
    read.say()
    read.forwards.refresh()
    assert not read.forwards.has(80)


def test_a_forward_that_was_made_a_moment_ago_is_known_to_who_asks(read: Read) -> None:
    assert read.looked(0.0)
    read.say("5200")
    read.now += 0.2
    assert read.forwards.has(5200)
    assert read.looked(2.0), "what was read for a question is told, too"
    assert not read.looked(2.0)


def test_rules_are_read_again_when_they_have_changed_and_now_and_then_without_a_sign(read: Read) -> None:
    assert read.looked(0.0)
    read.say("5200", seen=False)
    assert not read.looked(2.0)
    assert not read.forwards.has(5200)
    assert read.looked(30.0)
    assert read.forwards.has(5200)
    read.say("5201")
    assert not read.looked(0.1), "not more often than every other second"
    assert read.looked(2.0)
    assert read.forwards.takes(Endpoint("203.0.113.1", 5201), ())


def test_many_questions_at_once_look_at_the_rules_once(read: Read) -> None:
    looks: list[str] = []

    def others(table: str) -> bytes:
        looks.append(table)
        return b"1"

    read.patch.setattr(read.forwards._tables, "others", others)
    for _ in range(3):
        assert [port for port in range(40000, 41000) if read.forwards.has(port)] == []
        read.now += 0.2
    assert len(looks) <= 2 * 3


def test_rules_that_take_long_to_read_are_read_more_seldom(read: Read) -> None:
    """Packets wait meanwhile, and a host may have made thousands of them."""
    read.forwards.refresh()
    began = read.now
    reading = [0.0]

    def others(table: str) -> bytes:
        read.now += 0.25
        reading[0] += 0.25
        return b"%f" % read.now

    read.patch.setattr(read.forwards._tables, "others", others)
    while read.now < began + 60.0:
        read.now += 0.05
        read.forwards.has(5200)
    assert 15.0 <= reading[0] <= 18.0


def test_question_costs_no_more_where_thousands_of_ports_are_forwarded(read: Read) -> None:
    """Hosts have as many forwarded as they like (UPnP), and a whole range is asked about for a pinhole."""

    class Counted(list[ForeignForward]):
        looks = 0

        def __iter__(self) -> Iterator[ForeignForward]:
            self.looks += 1
            return super().__iter__()

    known = Counted(ForeignForward(range(port, port + 2)) for port in range(2000, 60000, 4))
    read.patch.setattr(foreign_forwards, "foreign_forwards", lambda: known)
    read.forwards.refresh()
    found = [port for port in range(1990, 2010) if read.forwards.has(port)]
    assert found == [2000, 2001, 2004, 2005, 2008, 2009]
    assert known.looks <= 3


def test_what_a_program_began_to_read_before_a_question_does_not_count(read: Read) -> None:
    read.forwards.refresh()
    read.say("5200")
    read.now += 2.0
    read.forwards.look()
    assert read.forwards.busy
    read.say("5201")
    read.now += 0.2
    assert read.forwards.has(5201)
    while read.forwards.busy:
        read.forwards.look()
    assert read.forwards.has(5201)
    assert not read.forwards.has(5200)


def test_a_program_that_hangs_is_told_and_tried_again(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_forwards, "_TIMEOUT_S", 0.0)
    monkeypatch.setattr(foreign_forwards, "_programs", lambda legacy: (("sleep", "60"),))
    read.forwards.look()
    with pytest.raises(BackendError):
        read.looked(0.1)
    monkeypatch.undo()
    read.patch.setattr(foreign_forwards, "generation", lambda: None)
