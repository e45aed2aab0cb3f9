"""`nfreaim check`: one line per prerequisite, with the remedy where it fails.

It may not change anything on the machine. What only an attempt can show is attempted in a network namespace
of its own, which ends with the attempt. It imports no third-party library: whether those work is one of the
questions.
"""

import errno
import importlib
import ipaddress
import os
import shlex
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from nfreaim.config import reading_queues
from nfreaim.core.address import UNREACHABLE
from nfreaim.errors import BackendError
from nfreaim.host.check import capabilities
from nfreaim.host.check.commands import interface_exists, json_from, networks_of, run, which
from nfreaim.host.netfilter import nftables, queue_stats
from nfreaim.host.rules import script

# What the rules use, each as one rule for a scratch namespace: name -> (table, chain, rule).
FEATURES = {
    "NFQUEUE target": "-t raw -A PREROUTING -j NFQUEUE --queue-num 1 --queue-bypass",
    "set match": "-t raw -A PREROUTING -m set --match-set probe src",
    "CT target": "-t raw -A OUTPUT -j CT --notrack",
    "MARK target": "-t raw -A PREROUTING -j MARK --set-xmark 0x1/0x1",
    "mark match": "-t raw -A OUTPUT -m mark --mark 0x1/0x1",
    "addrtype match": "-t raw -A PREROUTING -m addrtype --dst-type LOCAL",
    "limit match": "-t raw -A PREROUTING -m limit --limit 5000/second --limit-burst 5000",
    "multiport match": "-t mangle -A POSTROUTING -p tcp -m multiport --sports 1,2",
    "set match of counters": "-t nat -A PREROUTING -m set --match-set probe3 dst,dst,src"
    " ! --update-counters --bytes-lt 2",
    "DNAT target": "-t nat -A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1:1",
    "CONNMARK target": "-t nat -A PREROUTING -j CONNMARK --set-xmark 0x1/0x1",
    "comment match": "-t nat -A PREROUTING -m comment --comment probe",
    "connmark match": "-t filter -A FORWARD -m connmark --mark 0x1/0x1",
    "conntrack match": "-t filter -A FORWARD -m conntrack --ctstate DNAT",
}
_SETS = {
    "hash:net set": "probe hash:net",
    "hash:ip,port set": "probe1 hash:ip,port timeout 9",
    "hash:ip,port,ip set": "probe2 hash:ip,port,ip timeout 9",
    "hash:ip,port,net set": "probe3 hash:ip,port,net timeout 9 counters comment",
}
_JUMPS = (
    ("raw", "PREROUTING"),
    ("raw", "OUTPUT"),
    ("mangle", "POSTROUTING"),
    ("mangle", "INPUT"),
    ("mangle", "FORWARD"),
)

_NETLINK_NETFILTER = 12
_CT_GET_STATS = 1 << 8 | 5  # conntrack subsystem, IPCTNL_MSG_CT_GET_STATS


@dataclass(frozen=True)
class Check:
    """The answer about one prerequisite; `remedy` is empty if all is well."""

    status: Literal["ok", "warn", "FAIL"]
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.status:<4} {self.text}" + (f" -> {self.remedy}" if self.remedy else "")


Checks = Iterator[Check]


def main(lan: Sequence[str], wan: Sequence[str], ports: Sequence[int], queue: int, workers: int = 1) -> int:
    """Print one line per prerequisite; return 0 if nothing failed, else 1. Warnings do not count."""
    results = run_checks(lan, wan, ports, queue, workers)
    for result in results:
        print(result)
    return int(any(result.status == "FAIL" for result in results))


def run_checks(
    lan: Sequence[str], wan: Sequence[str], ports: Sequence[int], queue: int, workers: int = 1
) -> list[Check]:
    """Look at everything the daemon needs in this network namespace.

    `lan`, `wan`: names of inside and outside interfaces; `ports`: signalling ports; `queue`: its number;
    `workers`: processes that read.
    Raises nothing: a probe that breaks is itself a failure.
    """
    reinstall = f"nfreaim rules install {shlex.join(script.arguments(lan, wan, ports, queue, workers))}"
    queues = sorted({queue, *reading_queues(queue, workers)})
    probes: list[tuple[str, Callable[[], Checks]]] = [
        ("privileges", _privileges),
        ("programs", _programs),
        ("Python libraries", _libraries),
        ("kernel features", _features),
        ("conntrack", _conntrack),
        ("forwarding", _forwarding),
        ("interfaces", lambda: _interfaces(lan, wan)),
        (
            "rules",
            lambda: _rules(lan, reinstall, lambda shown: script.difference(shown, ports, queue, workers)),
        ),
        ("legacy tables", lambda: _legacy_neighbours(reinstall)),
        ("nftables", lambda: _nftables(wan)),
        *(("queue", partial(_queue, number)) for number in queues),
    ]
    found: list[Check] = []
    for name, probe in probes:
        try:
            found += probe()
        except Exception as error:  # a probe must not hide the ones behind it
            found.append(
                Check("FAIL", f"{name}: could not be looked at: {error}", "run nfreaim check as root")
            )
    return found


# --- the process and its software ---


def _privileges() -> Checks:
    if os.geteuid() == 0:
        yield Check("ok", "running as root")
    else:
        yield Check("FAIL", "not running as root", "sudo nfreaim check")
    absent = capabilities.missing()
    if absent:
        yield Check("FAIL", f"{' and '.join(absent)} missing", "grant them (unit: AmbientCapabilities=)")
    else:
        yield Check("ok", f"{' and '.join(capabilities.CAPABILITIES)} effective")


def _programs() -> Checks:
    for program, package in (("iptables-legacy", "iptables"), ("ipset", "ipset"), ("ip", "iproute2")):
        if which(program) is None:
            yield Check("FAIL", f"the program {program} is missing", f"apt install {package}")


def _libraries() -> Checks:
    for module, library in (
        ("packet_queue", "NetfilterQueue"),
        ("iptables", "python-iptables"),
        ("conntrack", "pyroute2"),
    ):
        try:
            importlib.import_module(f"nfreaim.host.netfilter.{module}")
        except Exception as error:  # a binding without its C library raises all sorts
            yield Check("FAIL", f"{library} does not work: {error}", "install nfreaim again: make install")
        else:
            yield Check("ok", f"{library} importable")


# --- the kernel ---


def _features() -> Checks:
    """Try each match and target in a new network namespace, which vanishes with the shell in it."""
    if which("iptables-legacy") is None or which("ipset") is None or os.geteuid() != 0:
        return
    lines = [f"ipset create {words} && echo '{name}'" for name, words in _SETS.items()]
    lines += [f"iptables-legacy -w {words} && echo '{name}'" for name, words in FEATURES.items()]
    result = run(["unshare", "--net", "sh", "-c", "echo inside; " + "; ".join(lines)])
    working = result.stdout.splitlines()
    if "inside" not in working:
        yield Check("warn", f"kernel features not probed: {result.stderr.strip()}", "needs CAP_SYS_ADMIN")
        return
    lacking = [name for name in (*_SETS, *FEATURES) if name not in working]
    for name in lacking:
        yield Check(
            "FAIL", f"the kernel has no {name}", "load or build its module (xt_*, ip_set_*, nfnetlink_queue)"
        )
    if not lacking:
        yield Check("ok", f"kernel features: {', '.join((*_SETS, *FEATURES))}")


def _conntrack() -> Checks:
    """Ask ctnetlink for its statistics; the answer is one netlink message, or one with an errno."""
    remedy = "modprobe nf_conntrack_netlink"
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(2.0)
        netlink.bind((0, 0))
        netlink.send(struct.pack("=IHHII", 20, _CT_GET_STATS, 1, 1, 0) + b"\0\0\0\0")
        answer = netlink.recv(4096)
    kind = struct.unpack_from("=H", answer, 4)[0]
    if kind == 2:  # NLMSG_ERROR
        code = -struct.unpack_from("=i", answer, 16)[0]
        remedy = "run it as root" if code == errno.EPERM else remedy
        yield Check("FAIL", f"conntrack not readable: {errno.errorcode.get(code, code)}", remedy)
    else:
        yield Check("ok", "conntrack readable through ctnetlink")


def _forwarding() -> Checks:
    if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1":
        yield Check("ok", "IPv4 forwarding is on")
    else:
        yield Check(
            "FAIL", "IPv4 forwarding is off", "sysctl -w net.ipv4.ip_forward=1, and keep it in /etc/sysctl.d"
        )


# --- interfaces and addresses ---


def _interfaces(lan: Sequence[str], wan: Sequence[str]) -> Checks:
    for option, names in (("--lan", lan), ("--wan", wan)):
        if not names:
            yield Check(
                "FAIL", f"no {option} interface named", f"{option} IF, or `{option[2:]}` in the configuration"
            )
        for name in names:
            if not interface_exists(name):
                yield Check(
                    "FAIL", f"interface {name} does not exist", "see ip link; correct the name or bring it up"
                )
    for name in filter(interface_exists, lan):
        networks = sorted(networks_of(name))
        if networks:
            yield Check("ok", f"inside networks on {name}: {', '.join(networks)}")
        else:
            yield Check("FAIL", f"{name} has no IPv4 network", f"ip address add ADDRESS/LENGTH dev {name}")
    for name in filter(interface_exists, wan):
        yield from _outside(name)


def _outside(name: str) -> Checks:
    entries = json_from(["ip", "-4", "-j", "address", "show", "dev", name])
    found = [info["local"] for entry in entries for info in entry.get("addr_info", ()) if "local" in info]
    if not found:
        yield Check("warn", f"{name} has no IPv4 address (yet)", "bring the uplink up")
    for text in found:
        kind = unreachable(text)
        if kind is None:
            yield Check("ok", f"outside address {text} on {name}")
        else:
            yield Check(
                "warn",
                f"outside address {text} on {name} is {kind}: double NAT, peers cannot connect to it",
                "let the router in front forward every port here, or ask the provider for a public address",
            )


def unreachable(address: str) -> str | None:
    """The kind of an IPv4 address that peers on the Internet cannot reach, or None. Raises ValueError."""
    value = ipaddress.IPv4Address(address)
    return next((kind for network, kind in UNREACHABLE.items() if value in network), None)


# --- rules, ours and others' ---


def _rules(lan: Sequence[str], reinstall: str, difference: Callable[[str], str]) -> Checks:
    if os.geteuid() != 0:
        return
    shown = script.run(["show"])
    if shown.returncode not in (0, script.ABSENT):
        raise BackendError(shown.stderr.strip())
    lines = shown.stdout.splitlines()
    present = [line for line in lines if not line.startswith("not installed:")]
    missing = " ".join(line.partition(":")[2] for line in lines if line.startswith("not installed:")).split()
    if not present:
        yield Check("warn", "rules are not installed", f"{reinstall} (nfreaim run does it for its own time)")
        return
    if missing:
        yield Check("FAIL", f"rules incomplete, missing: {', '.join(missing)}", reinstall)
    elif found := difference(shown.stdout):
        yield Check("FAIL", found.partition(";")[0], reinstall)
    else:
        yield Check("ok", "rules installed: chains, jumps and sets")
    for variant in ("iptables-legacy", "iptables-nft"):
        if any(line.split()[:2] == [variant, "filter"] for line in present):
            yield Check("ok", f"the {variant} firewall accepts pinholes")
    members = {line.split()[1] for line in present if line.startswith("nfreaim_lan ")}
    strange = {network for name in lan for network in networks_of(name)} - members
    if strange:
        yield Check("warn", f"inside networks unknown to the rules: {', '.join(sorted(strange))}", reinstall)


def _legacy_neighbours(reinstall: str) -> Checks:
    """Rules behind our queue jumps; packets that are queued never reach them."""
    if which("iptables-legacy-save") is None or os.geteuid() != 0:
        return
    saved = run(["iptables-legacy-save"])
    if saved.returncode != 0:
        yield Check("FAIL", f"legacy tables not readable: {saved.stderr.strip()}", "modprobe ip_tables")
        return
    yield Check("ok", "legacy tables readable")
    for place, rule in behind_jump(saved.stdout):
        yield Check(
            "warn",
            f"{place}: queued packets never reach {rule!r}",
            reinstall,
        )


def behind_jump(saved: str) -> Iterator[tuple[str, str]]:
    """(place, rule) of each foreign rule behind our jumps in the chains of raw and mangle.

    `saved` is the output of iptables-legacy-save.
    """
    table, passed = "", set[tuple[str, str]]()
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        for place in _JUMPS:
            if table != place[0] or not line.startswith(f"-A {place[1]} "):
                continue
            target = line.rpartition(" -j ")[2]
            if target == nftables.VERIFIED_CHAIN:
                continue  # it comes first, and queues nothing
            if target in nftables.OUR_CHAINS:
                passed.add(place)
            elif place in passed:
                yield " ".join(place), line


def _nftables(wan: Collection[str]) -> Checks:
    if which("nft") is None or os.geteuid() != 0:
        return
    ruleset = nftables.Ruleset(json_from(["nft", "-j", "list", "ruleset"]))
    # A FORWARD chain that iptables-nft can read is the business of the rules script.
    managed = "*filter" in run(["iptables-nft-save"]).stdout.split() if which("iptables-nft-save") else False
    found = False
    for obstacle in ruleset.obstacles(wan):
        place = f"nftables chain {obstacle.family} {obstacle.table} {obstacle.chain}"
        if managed and (obstacle.family, obstacle.table, obstacle.chain) == ("ip", "filter", "FORWARD"):
            continue
        found = True
        if obstacle.certain:
            yield Check("FAIL", f"{place} drops pinhole connections", obstacle.remedy)
        else:
            yield Check("warn", f"{place} has drop rules; if one of them hits pinholes", obstacle.remedy)
    if not found:
        yield Check("ok", "no native nftables chain stops pinholes")
    for chain in ruleset.redirectors():
        yield Check(
            "warn",
            f"nft and legacy NAT are both in use: chain {chain} may claim the port of a pinhole",
            "keep its port forwards out of 5190-5290 and 40000-40999",
        )
    for name in ruleset.flowtables:
        yield Check(
            "warn",
            f"flowtable {name}: offloaded connections bypass the queue",
            "leave out the signalling ports",
        )


def _queue(number: int) -> Checks:
    if not queue_stats.PATH.exists():
        yield Check("FAIL", "the kernel has no nfnetlink_queue", "modprobe nfnetlink_queue")
        return
    found = next((queue for queue in queue_stats.queues() if queue.number == number), None)
    if found is None:
        yield Check("ok", f"queue {number} is free (nfreaim is not running here; traffic passes unread)")
        return
    owner = _socket_owner(found.port)
    if any(Path(word).name == "nfreaim" for word in owner.split()):
        yield Check("ok", f"queue {number} is served by nfreaim")
    else:
        yield Check(
            "FAIL", f"queue {number} is taken by {owner or 'another program'}", "choose another: --queue N"
        )
    if lost := found.dropped_full + found.dropped_socket:
        yield Check(
            "warn", f"queue {number} has lost {lost} packets", "the machine is too busy for its traffic"
        )


def _socket_owner(port: int) -> str:
    """Command line of the process that holds the netfilter netlink socket with this port id, or ""."""
    # Columns: sk, protocol, port id, groups, rmem, wmem, dump, locks, drops, inode
    rows = [line.split() for line in Path("/proc/net/netlink").read_text().splitlines()[1:]]
    links = {f"socket:[{row[9]}]" for row in rows if (row[1], row[2]) == (str(_NETLINK_NETFILTER), str(port))}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) in links for fd in (process / "fd").iterdir()):
                return (
                    (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
        except OSError:  # it ended, or is not ours to look at
            continue
    return ""
