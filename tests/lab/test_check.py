"""`nfreaim check` in a real kernel: what it finds, and that its remedies work when they are carried out."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab import kernel_sets
from tests.lab.checking import PROGRAM, check, remedies
from tests.lab.router import Router

BELIEVED = """from nfreaim.config import Config
from nfreaim.host.check import compared_senders, unnamed_bridges
config = Config(lan=('lan',), wan=('wan',), file='F')
print(*compared_senders.senders(config), *unnamed_bridges.bridges(config), sep='\\n')"""


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


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
    router.rules("install", "--lan", "lan", "--wan", "wan", "--local-client", "1001")
    local = PROGRAM.replace("wan=('wan',)", "wan=('wan',), local_clients=(1001,)")
    (line,) = remedies(check(router, local)[1], "drops pinhole connections to clients on this router")
    router.shell(line)
    assert check(router, local)[0] == 0


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
        pytest.param(
            "iptables-legacy -t raw -A PREROUTING -p udp -j ACCEPT",
            "warn raw PREROUTING: queued packets never",
            marks=kernel_sets.legacy_only("a chain of nftables has a priority, and no rule comes behind it"),
        ),
        (
            "nft flush chain ip nfreaim gate 2>/dev/null || iptables-legacy -t nat -F",
            "FAIL rules incomplete",
        ),
        pytest.param(
            "iptables-nft -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to 10.0.0.9",
            "warn nft and legacy NAT",
            marks=kernel_sets.legacy_only("there is one NAT, and the forwards of others in it are read"),
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


LINKS = """from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.host.check import link_settings, taken_ports
print(*link_settings.reverse_path(('wan',)), *link_settings.sizes(('lan',)), sep='\\n')
print(*taken_ports.ports(PinholePolicy(), ('lan',), 'F'), sep='\\n')"""


def test_links_and_forwards_that_keep_peers_away_are_named(router: Router) -> None:
    router.shell("echo 1 >/proc/sys/net/ipv4/conf/wan/rp_filter; ip route add default via 203.0.113.9")
    forward = "iptables-legacy -t nat -{} PREROUTING -i {} -p tcp --dport 40000:40999 -j DNAT --to 10.0.0.9"
    router.shell(forward.format("A", "lan"))
    assert [line for line in check(router, LINKS)[1] if line] == []
    router.shell("ip route replace default via 10.0.0.9")
    router.shell(forward.format("A", "wan"))
    strict, all_of_them = [line for line in check(router, LINKS)[1] if line]
    assert strict.startswith("warn rp_filter is strict on wan, which has no default route")
    assert all_of_them.startswith("FAIL other rules forward every port that pinholes may choose")
    router.shell("echo 2 >/proc/sys/net/ipv4/conf/wan/rp_filter")
    router.shell(forward.format("D", "wan"))
    assert [line for line in check(router, LINKS)[1] if line] == []


def test_rules_of_a_self_test_stand_beside_ours_and_leave_no_trace(router: Router) -> None:
    router.load("legacy", "nft", "native-nft")
    router.rules("install", "--lan", "lan", "--wan", "wan", "--native-accept", "inet:router:forward")
    before = router.state()
    assert router.rules("self-test", "add", "5190") == ""
    status, shown = router.show()
    assert (status, "self-test       has rules here" in shown.splitlines()) == (0, True)
    assert router.chain("iptables-legacy-save", "filter", "FORWARD")[0] == "-j NFREAIM"
    accepts = router.shell("nft list chain inet router forward | grep accept").splitlines()
    assert ["native_accept" in accepts[0], *("self-test" in line for line in accepts[1:3])] == [True] * 3
    router.rules("self-test", "add", "5190")
    assert router.rules("self-test", "remove") == ""
    assert router.state() == before
    router.rules("self-test", "add", "5190")
    router.rules("remove")
    assert "nfrtest" not in router.state().lower()
    assert "not installed" in router.fails("self-test", "add", "5190")


TUN = "ip tuntap add tun9 mode tun; ip link set tun9 up; "


@pytest.mark.parametrize(
    ("trouble", "complaint"),
    [
        (TUN + "ip route add 10.0.0.9/32 dev tun9", "packets of 10.0.0.9 that come in by lan are taken for"),
        (TUN + "ip rule add to 10.0.0.0/24 table 7; ip route add default dev tun9 table 7", "out by tun9"),
        (
            "ip neigh add 10.0.0.77 dev lan nud permanent lladdr $(cat /sys/class/net/lan/address);"
            "ip neigh add 10.0.0.78 dev lan nud permanent lladdr $(cat /sys/class/net/lan/address)",
            "10.0.0.77, 10.0.0.78 have one hardware address on lan",
        ),
        ("ip route add 10.8.0.0/16 via 10.0.0.9", "hosts of 10.8.0.0/16 are behind 10.0.0.9 on lan"),
        ("ip link set lan arp off", "senders cannot be compared on lan"),
    ],
)
def test_where_senders_prove_nothing_or_would_be_refused(
    router: Router, trouble: str, complaint: str
) -> None:
    router.shell("ip neigh replace 10.0.0.9 dev lan nud stale lladdr 02:00:00:00:00:09")
    assert check(router, BELIEVED)[1][0] == "ok   senders are compared on lan: 1 hosts are known there"
    router.shell(trouble)
    (line,) = [line for line in check(router, BELIEVED)[1] if complaint in line]
    assert line.startswith("warn")
    assert " -> " in line


def test_bridge_of_containers_is_named_until_a_lan_names_it(router: Router) -> None:
    def lines(*lan: str) -> list[str]:
        program = BELIEVED.replace("lan=('lan',)", f"lan={('lan', *lan)}")
        return [line for line in check(router, program)[1] if "docker0" in line]

    router.shell("ip link add docker0 type bridge; ip address add 172.17.0.1/16 dev docker0")
    router.shell("ip link set docker0 up")
    assert lines() == [], "nobody is there"
    router.shell("ip neighbour add 172.17.0.2 lladdr 02:42:ac:11:00:02 dev docker0")
    (line,) = lines()
    assert line.startswith("hint hosts on docker0 (172.17.0.0/16) are not served")
    rule = "-p tcp --dport 5190 -j DNAT --to-destination 172.17.0.2:5190"
    router.shell(f"iptables-legacy -t nat -A PREROUTING {rule}")
    (line,) = lines()
    assert line.startswith("warn a rule forwards a port to 172.17.0.2:5190 on docker0")
    assert "--lan docker0" in line
    assert [one for one in lines("docker0") if "not served" in one or "no --lan" in one] == []
