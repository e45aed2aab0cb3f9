"""`nfreaim check` in a real kernel: what it finds, and that its remedies work when they are carried out."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab.router import REPO, Router

PROGRAM = """import sys
from nfreaim.host.check import doctor
from nfreaim.host.rules.script import Settings
sys.exit(doctor.main(Settings(('lan',), ('wan',), {'oscar': (5190,)}, 5190)))"""


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


def check(router: Router) -> tuple[int, list[str]]:
    result = subprocess.run(
        ["ip", "netns", "exec", router.ns("router"), sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPO,
    )
    assert result.stderr == ""
    return result.returncode, result.stdout.splitlines()


def remedies(lines: list[str], word: str) -> list[str]:
    return [line.partition(" -> ")[2] for line in lines if not line.startswith("ok") and word in line]


@pytest.mark.parametrize("variants", [("legacy",), ("nft",), ("legacy", "nft")])
def test_router_in_order_has_no_failure(router: Router, variants: tuple[str, ...]) -> None:
    router.load(*variants)
    router.rules("install", "--lan", "lan", "--wan", "wan")
    status, lines = check(router)
    assert [line for line in lines if line.startswith("FAIL")] == []
    assert status == 0
    for variant in variants:
        assert f"ok   the iptables-{variant} firewall accepts pinholes" in lines


def test_looking_changes_nothing(router: Router) -> None:
    router.load("nft")
    before = router.state()
    namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=30).stdout
    check(router)
    assert router.state() == before
    assert "NFQUEUE" not in before
    after = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=30).stdout
    mine = [{line for line in text.splitlines() if router.prefix in line} for text in (namespaces, after)]
    assert mine[0] == mine[1]


def test_line_for_a_native_firewall_is_one_that_nft_takes_and_check_believes(router: Router) -> None:
    router.load("native-nft")
    router.rules("install", "--lan", "lan", "--wan", "wan")
    status, lines = check(router)
    assert status == 1
    (line,) = remedies(lines, "drops pinhole connections")
    assert line.startswith("nft insert rule inet router forward ")
    router.shell(line)
    status, lines = check(router)
    assert remedies(lines, "nftables chain") == []
    assert status == 0


def test_firewall_loaded_after_the_rules_fails_until_the_remedy_ran(router: Router) -> None:
    router.rules("install", "--lan", "lan", "--wan", "wan")
    router.load("nft")
    status, lines = check(router)
    assert status == 1
    (line,) = remedies(lines, "rules incomplete, missing: iptables-nft-filter")
    assert line == "nfreaim rules install --lan lan --wan wan --protocol oscar:5190 --queue 5190"
    router.rules(*line.split()[2:])
    assert check(router)[0] == 0


@pytest.mark.parametrize(
    ("trouble", "complaint"),
    [
        ("echo 0 > /proc/sys/net/ipv4/ip_forward", "FAIL IPv4 forwarding is off"),
        ("ip link delete lan", "FAIL interface lan does not exist"),
        ("ip address flush dev lan", "FAIL lan has no IPv4 network"),
        ("ip address add 192.168.1.2/24 dev wan", "warn outside address 192.168.1.2 on wan is private"),
        (
            "ip address add 100.64.1.2/24 dev wan",
            "warn outside address 100.64.1.2 on wan is carrier-grade NAT",
        ),
        ("ip address add 10.5.0.1/24 dev lan", "warn inside networks unknown to the rules: 10.5.0.0/24"),
        (
            "iptables-legacy -t raw -A PREROUTING -p udp -j ACCEPT",
            "warn raw PREROUTING: queued packets never",
        ),
        (
            "iptables-legacy -t nat -X NFREAIM 2>/dev/null || iptables-legacy -t nat -F",
            "FAIL rules incomplete",
        ),
        (
            "iptables-nft -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to 10.0.0.9",
            "warn nft and legacy NAT",
        ),
    ],
)
def test_trouble_is_named(router: Router, trouble: str, complaint: str) -> None:
    router.rules("install", "--lan", "lan", "--wan", "wan")
    assert not any(line.startswith(complaint) for line in check(router)[1])
    router.shell(trouble)
    status, lines = check(router)
    (line,) = [line for line in lines if line.startswith(complaint)]
    assert " -> " in line
    assert status == (1 if complaint.startswith("FAIL") else 0)


def test_queue_in_other_hands_is_a_failure_that_names_them(router: Router) -> None:
    holder = subprocess.Popen(
        [
            *("ip", "netns", "exec", router.ns("router"), sys.executable, "-c"),
            "import netfilterqueue, time; q = netfilterqueue.NetfilterQueue(); q.bind(5190, print);"
            "print('bound', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "bound\n"
        status, lines = check(router)
        (line,) = [line for line in lines if " queue 5190 is " in line]
        assert line.startswith("FAIL queue 5190 is taken by ")
        assert "import netfilterqueue" in line
        assert status == 1
    finally:
        holder.kill()
        holder.wait(10)
