"""`kernel_helpers`: the kernel's own helpers do what plain NAT does not, and come and go with our rules.

One network for all: alice behind router A, the registrar at 203.0.113.9, bob outside.
"""

from __future__ import annotations

import itertools
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from tests.lab import kernel_sets, sip
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, SERVER, WAN, Lab
from tests.lab.scene import Scene, eventually, nfreaim

SETTINGS = 'kernel_helpers = { sip = [5060, "203.0.113.20:5080"], ftp = [21] }\n'
ALICE, OUTSIDE = ADDRESS["alice"], WAN["A"]
_ports = itertools.count(5100, 10)


@dataclass
class Line:
    """The network, and the registrar's socket."""

    made: Scene
    registrar: socket.socket
    open: ExitStack = field(default_factory=ExitStack)

    def udp(self, node: str, port: int = 0) -> socket.socket:
        return self.open.enter_context(sip.udp(self.made.lab, node, ADDRESS[node], port))

    def phone(self) -> tuple[socket.socket, int]:
        """A phone with a port of its own, so that no test meets an earlier one's connections."""
        port = next(_ports)
        return self.udp("alice", port), port

    def sent(self, phone: socket.socket, message: bytes) -> bytes:
        """What the registrar gets when the phone sends *message*."""
        phone.sendto(message, (SERVER, sip.PORT))
        return sip.received(self.registrar)


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with Lab() as lab, sip.udp(lab, "server", SERVER, sip.PORT) as registrar:
        made = Line(Scene(lab), registrar)
        with made.open:
            yield made


@pytest.fixture(scope="module")
def helped(line: Line) -> Line:
    """The same with a daemon that assigns the helpers. Tests that need plain NAT come first."""
    line.made.restart(settings=SETTINGS)
    return line


def test_without_the_key_nothing_is_rewritten_and_no_call_comes_in(line: Line) -> None:
    phone, port = line.phone()
    register = sip.request("REGISTER", ALICE, port)
    assert line.sent(phone, register) == register
    caller = line.udp("server")
    assert not sip.arrives(caller, (OUTSIDE, port), phone, expected=False)
    media = line.udp("alice", port + 2)
    invite = sip.request("INVITE", ALICE, port, sip.session(ALICE, sip.AUDIO, port + 2))
    assert line.sent(phone, invite) == invite
    assert not sip.arrives(caller, (OUTSIDE, port + 2), media, expected=False)


def test_a_call_comes_in_from_any_port_of_the_registrar_once_the_phone_has_registered(helped: Line) -> None:
    phone, port = helped.phone()
    came = helped.sent(phone, sip.request("REGISTER", ALICE, port))
    assert f" {OUTSIDE}:{port};" in sip.header(came, "Via")
    assert sip.header(came, "Contact") == f"<sip:alice@{OUTSIDE}:{port}>"
    helped.registrar.sendto(sip.answer(came), (OUTSIDE, port))
    assert f"@{ALICE}:{port}" in sip.received(phone).decode()
    assert sip.arrives(helped.udp("server"), (OUTSIDE, port), phone)
    assert not sip.arrives(helped.udp("bob"), (OUTSIDE, port), phone, expected=False)


def test_a_call_has_its_audio_from_the_registrar(helped: Line) -> None:
    phone, port = helped.phone()
    media = helped.udp("alice", port + 2)
    body = sip.session(ALICE, sip.AUDIO, port + 2)
    came = helped.sent(phone, sip.request("INVITE", ALICE, port, body))
    outside = body.replace(ALICE, OUTSIDE)
    assert came.decode().endswith(f"\r\nContent-Length: {len(outside)}\r\n\r\n{outside}")
    assert not sip.arrives(helped.udp("bob"), (OUTSIDE, port + 2), media, expected=False), "direct media"
    assert sip.arrives(helped.udp("server"), (OUTSIDE, port + 2), media)


def test_a_message_is_rewritten_in_its_headers_and_its_text_stays(helped: Line) -> None:
    phone, port = helped.phone()
    came = helped.sent(phone, sip.request("MESSAGE", ALICE, port, f"I am {ALICE}:{port}"))
    assert came.decode().endswith(f"\r\n\r\nI am {ALICE}:{port}")
    assert came.decode().count(f"{OUTSIDE}:{port}") == 2


def test_the_path_of_msrp_stays_private(helped: Line) -> None:
    phone, port = helped.phone()
    body = sip.session(ALICE, sip.AUDIO + sip.TEXT, port + 2)
    came = helped.sent(phone, sip.request("INVITE", ALICE, port, body)).decode()
    assert f"c=IN IP4 {OUTSIDE}\r\n" in came
    assert f"a=path:msrp://{ALICE}:{port + 2}/x;tcp\r\n" in came


def test_a_helper_for_one_server_is_given_to_no_other(helped: Line) -> None:
    phone, port = helped.phone()
    for node, expected in (("bob", OUTSIDE), ("server", ALICE)):
        proxy = helped.udp(node, 5080)
        phone.sendto(sip.request("REGISTER", ALICE, port), (ADDRESS[node], 5080))
        assert f"@{expected}:{port}" in sip.header(sip.received(proxy), "Contact"), node


def test_sip_over_tcp_is_never_touched(helped: Line) -> None:
    with socket_in(helped.made.lab, "server") as listener, socket_in(helped.made.lab, "alice") as phone:
        listener.bind((SERVER, sip.PORT))
        listener.listen(1)
        phone.connect((SERVER, sip.PORT))
        register = sip.request("REGISTER", ALICE, phone.getsockname()[1], transport="TCP")
        phone.sendall(register)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(4096) == register


def test_active_ftp_works(helped: Line) -> None:
    lab = helped.made.lab
    with (
        socket_in(lab, "server") as listener,
        socket_in(lab, "alice") as client,
        socket_in(lab, "alice") as data,
    ):
        listener.bind((SERVER, 21))
        listener.listen(1)
        data.bind((ALICE, 0))
        data.listen(1)
        client.connect((SERVER, 21))
        accepted, _ = listener.accept()
        with accepted, socket_in(lab, "server") as transfer:
            client.sendall(b"USER anonymous\r\n")
            assert accepted.recv(100) == b"USER anonymous\r\n"
            high, low = divmod(data.getsockname()[1], 256)
            client.sendall(f"PORT {ALICE.replace('.', ',')},{high},{low}\r\n".encode())
            *quad, high, low = map(int, accepted.recv(100).removeprefix(b"PORT ").split(b","))
            assert ".".join(map(str, quad)) == OUTSIDE
            transfer.connect((OUTSIDE, high * 256 + low))
            data.accept()[0].close()


def rules(made: Scene) -> list[str]:
    """The rules that concern helpers; those that name one end with its name."""
    if kernel_sets.NFT:
        listed = made.lab.run("A", *"nft list chain ip nfreaim kernel_helpers".split(), check=False).stdout
        found = [line.split(" counter ") for line in listed.splitlines() if "return" in line or "ct " in line]
        return [" ".join([rule[0], *re.findall(r'helper set "(\w+)-', rule[-1])]) for rule in found]
    saved = made.lab.run("A", "iptables-legacy-save", "-t", "raw").stdout.splitlines()
    return [rule for rule in saved if "HELPER" in rule and rule.startswith("-A")]


@contextmanager
def as_it_was(lab: Lab) -> Iterator[None]:
    """The router's firewall is afterwards what it was before."""
    saved = lab.run("A", "iptables-legacy-save").stdout
    try:
        yield
    finally:
        lab.run("A", "iptables-legacy-restore", stdin=saved)


def test_jumps_that_somebody_removes_come_back(helped: Line) -> None:
    whole = rules(helped.made)
    if kernel_sets.NFT:
        helped.made.lab.run("A", *"nft flush chain ip nfreaim kernel_helpers".split())
    else:
        (jump,) = (rule for rule in whole if 'helper=ftp"' in rule)
        helped.made.lab.run("A", "sh", "-c", f"iptables-legacy -t raw {jump.replace('-A', '-D', 1)}")
    assert eventually(lambda: rules(helped.made) == whole)


def test_rules_that_are_installed_anew_without_them_get_them_back(helped: Line) -> None:
    """As by the rules' own unit, whose words need not name what the configuration has."""
    whole = rules(helped.made)
    helped.made.lab.run("A", "rules/nfreaim-rules", "install", "--lan", "lan", "--wan", "wan")
    assert eventually(lambda: rules(helped.made) == whole)


def test_check_names_what_hosts_speak_now_and_nobody_reads(helped: Line) -> None:
    lab = helped.made.lab
    phone, port = helped.phone()
    came = helped.sent(phone, sip.request("REGISTER", ALICE, port))
    helped.registrar.sendto(sip.answer(came), (OUTSIDE, port))
    assert sip.received(phone)
    with socket_in(lab, "server") as listener, socket_in(lab, "alice") as client:
        listener.bind((SERVER, 6667))
        listener.listen(1)
        client.connect((SERVER, 6667))
        said = nfreaim(lab, "A", "check", "--lan", "lan", "--wan", "wan").splitlines()
    assert [text for text in said if text.startswith("hint")] == [
        f'hint {ALICE} talks to port 6667, which is usual for irc -> protocols = ["oscar", "irc"] reads it',
        f"hint {ALICE} talks to udp port 5060, which is usual for sip -> "
        'kernel_helpers = { "sip" = [5060] } has the kernel read it; see docs/kernel-helpers.md first',
    ]


def test_check_tells_what_is_there_and_what_is_amiss(helped: Line) -> None:
    lab, path = helped.made.lab, str(helped.made.lab.log_file("check").with_suffix(".toml"))
    with open(path, "w") as file:
        file.write(SETTINGS)
    words = ("check", "--config", path, "--lan", "lan", "--wan", "wan")

    def found(word: str) -> list[str]:
        return [text for text in nfreaim(lab, "A", *words).splitlines() if word in text]

    assert [text[:4] for text in found("is there")] == ["ok  "] * 3
    assert any("sip_direct_media = 1" in text for text in found("sip_"))
    assert found("RELATED") == ["ok   the firewall accepts what the kernel's helpers expect (RELATED)"]
    assert found("comes first") == []
    with as_it_was(lab):
        lab.run(
            "A",
            *"iptables-legacy -t raw -I PREROUTING -i lan -p udp --dport 5000:5070 -j CT --notrack".split(),
        )
        lab.run(
            "A", *"iptables-legacy -D FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT".split()
        )
        (first,) = found("comes first")
        assert first.startswith(
            "warn iptables-legacy raw: '-A PREROUTING -i lan -p udp -m udp --dport 5000:5070 -j CT"
        )
        remedies = [text.partition(" -> ")[2] for text in found("RELATED")]
        assert len(remedies) == 2, "of two helpers"
        for remedy in remedies:
            lab.run("A", *remedy.split())
        assert [text[:4] for text in found("RELATED")] == ["ok  "]
    assert nfreaim(lab, "A", *words[:1], *words[3:]).count("have sip (udp 5060) as well") == 1


def without_rules(helped: Line) -> None:
    """Neither daemon nor rules, whichever of these tests was the first."""
    assert helped.made.daemon.stop() == 0
    helped.made.lab.run("A", "rules/nfreaim-rules", "remove")


def test_they_are_removed_without_a_trace(helped: Line) -> None:
    without_rules(helped)
    assert "HELPER" not in helped.made.lab.firewall_rules("A")


def test_a_daemon_adds_them_to_rules_that_were_installed_without(helped: Line) -> None:
    without_rules(helped)
    lab = helped.made.lab
    lab.run("A", "rules/nfreaim-rules", "install", "--lan", "lan", "--wan", "wan")
    assert rules(helped.made) == []
    daemon = helped.made.restart(settings=SETTINGS)
    whole = rules(helped.made)
    named = "dport " if kernel_sets.NFT else "helper="
    assert len([rule for rule in whole if named in rule and "@" not in rule]) == 3
    assert daemon.stop() == 0
    assert rules(helped.made) == whole, "they stay with the rules, which are not the daemon's"
    lab.run("A", "rules/nfreaim-rules", "remove")


def test_a_helper_that_the_kernel_does_not_have_is_a_warning_that_is_tried_again(helped: Line) -> None:
    without_rules(helped)
    words = ("rules/nfreaim-rules", "install", "--lan", "lan", "--wan", "wan", "--protocol", "one:5190")
    more = ("--kernel-helper", "nosuch:tcp:99", "--kernel-helper", "ftp:tcp:21")
    for _ in range(2):
        said = helped.made.lab.run("A", *words, *more).stderr
        assert "warning: the kernel refused its helper nosuch for tcp:99" in said
        named = "dport " if kernel_sets.NFT else " -j CT "
        found = [rule.split()[-1] for rule in rules(helped.made) if named in rule and "@" not in rule]
        assert found == ["ftp"]
        assert helped.made.lab.run("A", "rules/nfreaim-rules", "show").returncode == 0
    helped.made.lab.run("A", *words)
    assert rules(helped.made) == []
    helped.made.lab.run("A", "rules/nfreaim-rules", "remove")
