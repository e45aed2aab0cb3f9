"""Checks of the kernel: features that the rules use, connection tracking, forwarding, the queue."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Final

from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import run, which
from nfreaim.host.netfilter import queue_stats
from nfreaim.host.netfilter.netlink import REQUEST, Netlink, error_of, message

# The kernel features that the rules use, by name; each as a rule for a scratch namespace.
FEATURES = {
    "NFQUEUE target": "-t raw -A PREROUTING -j NFQUEUE --queue-num 1 --queue-bypass",
    "set match": "-t raw -A PREROUTING -m set --match-set probe src",
    "SET target": "-t raw -A OUTPUT -j SET --add-set probe2 src,src,dst --exist",
    "CT target": "-t raw -A OUTPUT -j CT --notrack",
    "MARK target": "-t raw -A PREROUTING -j MARK --set-xmark 0x1/0x1",
    "owner match": "-t raw -A OUTPUT -p tcp -m owner --gid-owner 1 --suppl-groups",
    "mark match": "-t raw -A OUTPUT -m mark --mark 0x1/0x1",
    "addrtype match": "-t raw -A PREROUTING -m addrtype --dst-type LOCAL",
    "limit match": "-t raw -A PREROUTING -m limit --limit 5000/second --limit-burst 5000",
    "hashlimit match": "-t mangle -A FORWARD -p tcp -m hashlimit --hashlimit-above 9/second"
    " --hashlimit-mode srcip,srcport --hashlimit-name probe",
    "multiport match": "-t mangle -A POSTROUTING -p tcp -m multiport --sports 1,2",
    "set match of counters": "-t nat -A PREROUTING -m set --match-set probe3 dst,dst,src"
    " ! --update-counters --bytes-lt 2",
    "DNAT target": "-t nat -A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1:1",
    "bpf match": '-t mangle -A FORWARD -m bpf --bytecode "1,6 0 0 0"',
    "CONNMARK target": "-t nat -A PREROUTING -j CONNMARK --set-xmark 0x1/0x1",
    "comment match": "-t nat -A PREROUTING -m comment --comment probe",
    "connmark match": "-t filter -A FORWARD -m connmark --mark 0x1/0x1",
    "conntrack match": "-t filter -A FORWARD -m conntrack --ctstate DNAT",
}
_SETS = {
    "hash:net set": "probe hash:net",
    "hash:ip,port,ip set": "probe2 hash:ip,port,ip timeout 9 comment",
    "hash:ip,port set": "probe4 hash:ip,port timeout 9",
    "hash:ip,port,net set": "probe3 hash:ip,port,net timeout 9 counters comment",
}
_NO_TABLE: Final = 3
_LEGACY_REMEDY: Final = (
    "modprobe -a ip_tables iptable_raw iptable_mangle iptable_nat iptable_filter says which one is missing;"
    ' a kernel built without CONFIG_IP_NF_IPTABLES_LEGACY has none of them: firewall = "nft" in nfreaim.toml'
    " takes nftables instead, and make install FIREWALL=auto RESTART=1 decides anew"
)
_GET_STATISTICS: Final = 1 << 8 | 5  # conntrack subsystem, IPCTNL_MSG_CT_GET_STATS


def features() -> Checks:
    """Try each set, match and target in a new network namespace, which ends with the shell in it."""
    if which("iptables-legacy") is None or which("ipset") is None or os.geteuid() != 0:
        return
    if problem := _no_legacy_tables():
        yield Check("FAIL", f"the kernel has no legacy iptables tables: {problem}", _LEGACY_REMEDY)
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


def _no_legacy_tables() -> str:
    """What iptables says of the first of the tables that it cannot use here; "" if it can use all."""
    tables = ("raw", "mangle", "nat", "filter")
    tries = [f"iptables-legacy -w -t {table} -S >/dev/null || exit 3" for table in tables]
    tried = run(["unshare", "--net", "sh", "-c", "; ".join(tries)])
    lines = tried.stderr.strip().splitlines()
    return lines[0] if tried.returncode == _NO_TABLE and lines else ""


def conntrack() -> Checks:
    """Ask ctnetlink for its statistics."""
    netlink = Netlink(patience_s=2.0)
    try:
        code = error_of(netlink.ask(message(_GET_STATISTICS, REQUEST, family=socket.AF_UNSPEC)))
    finally:
        netlink.close()
    if code is None:
        yield Check("ok", "conntrack readable through ctnetlink")
    else:
        remedy = "run it as root" if code == errno.EPERM else "modprobe nf_conntrack_netlink"
        yield Check("FAIL", f"conntrack not readable: {errno.errorcode.get(code, code)}", remedy)


def forwarding() -> Checks:
    if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1":
        yield Check("ok", "IPv4 forwarding is on")
    else:
        yield Check(
            "FAIL", "IPv4 forwarding is off", "sysctl -w net.ipv4.ip_forward=1, and keep it in /etc/sysctl.d"
        )


def queue(number: int) -> Checks:
    if not queue_stats.available():
        yield Check("FAIL", "the kernel has no nfnetlink_queue", "modprobe nfnetlink_queue says why")
        return
    found = next((found for found in queue_stats.queues() if found.number == number), None)
    if found is None:
        yield Check("ok", f"queue {number} is free (nfreaim is not running here; traffic passes unread)")
        return
    _, holder = queue_stats.server_of(found)
    if queue_stats.is_ours(holder):
        yield Check("ok", f"queue {number} is served by nfreaim")
    else:
        yield Check(
            "FAIL", f"queue {number} is taken by {holder or 'another program'}", "choose another: --queue N"
        )
    if lost := found.dropped_full + found.dropped_socket:
        yield Check(
            "warn", f"queue {number} has lost {lost} packets", "the machine is too busy for its traffic"
        )
