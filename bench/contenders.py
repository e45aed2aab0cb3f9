"""What a user could put on router A, each as a context manager that puts it there and takes it away again.

A contender yields the process whose CPU time counts as its own, or None if all of it is in the kernel.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from nfreaim.host.netfilter.names import CHAIN, KNOWN_SET
from nfreaim.old_spellings import DEFAULT_QUEUE
from tests.lab.net import ADDRESS, WAN, Lab

PORT = 5190
PEER_PORT = 30500
FTP_PORT = 21
RELAY_PORT = 15190
UNVERIFIED = "nfreaim, verify_peers off"
BLIND_GATE = "nfreaim, gate that only accepts"
CPU = 0  # the endpoints and everything in the kernel: with one CPU, the contender's own as well
MITMDUMP = Path(sys.prefix).parent / ".bench-mitmproxy" / "bin" / "mitmdump"
# Bounds far beyond those of a home, so that a thousand pinholes fit into one measurement, and hundreds of
# openings into a minute.
CONFIG = """\
[pinholes]
per_flow = 1000
per_host = 1000
total = 4000
rate_per_host = 100000
rate_total = 1000000
lifetime = 600
claim_grace = 300
ports = "20000-49999"
"""
QUEUE = """
import sys
from netfilterqueue import NetfilterQueue
{imports}
def callback(packet):
    {work}
    packet.accept()
queue = NetfilterQueue()
queue.bind(5190, callback, 16384, sock_len=16 << 20)
print("ready", flush=True)
queue.run()
"""
NOTHING = QUEUE.format(imports="", work="pass")
SCAPY = QUEUE.format(
    imports="from scapy.layers.inet import IP, TCP",
    work="parsed = IP(packet.get_payload()); parsed[TCP].payload; del parsed[IP].chksum, parsed[TCP].chksum; "
    "packet.set_payload(bytes(parsed))",
)
PATCHED = """#!{python}
import sys
sys.path.insert(0, {root!r})
from nfreaim.cli import main
{patch}
sys.exit(main())
"""
# The same packets go to the daemon, and it does not look at them: what the queue alone costs. An ACK of the
# inside host releases the connection.
BLIND = """
from nfreaim.core.firewall.peer_gate import PeerGate
from nfreaim.core.verdict import ACCEPT, Verdict
RELEASE = Verdict(True, release=True)
PeerGate.process = lambda gate, raw, now: RELEASE if raw[12] == 10 and raw[33] & 0x12 == 0x10 else ACCEPT
"""
# An edited proposal is confirmed by scapy itself, as it was before readers were compiled.
BY_SCAPY = """
from nfreaim.helpers.oscar import proposal
from nfreaim.layers.oscar_messages import dissect, rebuild, rendezvous_of
def read(frame):
    flap = dissect(frame)
    if rebuild(flap) != frame:
        raise ValueError
    return None, None, flap
proposal.read_icbm, proposal.rendezvous_in = read, rendezvous_of
"""

Process = subprocess.Popen[bytes]
Contender = Callable[[Lab], AbstractContextManager[Process | None]]


def start(lab: Lab, node: str, *words: str, cpu: int | None = CPU) -> Process:
    """A process on *node* that has said its first line, pinned to *cpu*."""
    pin = () if cpu is None else ("taskset", "-c", str(cpu))
    process = lab.spawn(node, *pin, *words, pipes=True)
    assert process.stdout is not None
    if not process.stdout.readline():
        raise RuntimeError(f"{' '.join(words)}: ended before it was ready (status {process.wait(10)})")
    return process


def server_command(address: str, *ports: int) -> list[str]:
    """The far end of the traffic."""
    return [sys.executable, "-m", "bench.server", address, *map(str, ports)]


def load_command(what: str, address: str, port: int, *words: object) -> list[str]:
    """The near end of the traffic: see bench/load.py."""
    return [sys.executable, "-m", "bench.load", what, address, str(port), *map(str, words)]


def end(process: Process) -> None:
    """Ask it to end, and wait."""
    process.terminate()
    process.wait(20)


@contextmanager
def rules(lab: Lab, *texts: str) -> Iterator[None]:
    """Rules of iptables-legacy on router A, written with -A or -I; taken away again in reverse."""
    with ExitStack() as stack:
        for text in texts:
            lab.run("A", "iptables-legacy", *text.split())
            removal = re.sub(r"(^| )-[AI] ", r"\1-D ", text)
            stack.callback(lab.run, "A", "iptables-legacy", *removal.split())
        yield


@contextmanager
def plain(lab: Lab) -> Iterator[None]:
    """Nothing but the router's NAT."""
    yield None


@contextmanager
def queued(lab: Lab, program: str) -> Iterator[Process]:
    """The rules of nfreaim, with another program behind the queue."""
    lab.run("A", sys.executable, "-m", "nfreaim", "rules", "install", "--lan", "lan", "--wan", "wan")
    for table in ("raw", "mangle"):
        # The program adds no flow to the set of known ones, so all packets would pass as newcomers.
        rows = lab.run("A", "iptables-legacy", "-t", table, "-S", CHAIN).stdout.splitlines()
        chain = [row for row in rows if row.startswith("-A ")]
        place = next(number for number, row in enumerate(chain, 1) if KNOWN_SET in row)
        known = f"-t {table} -I {CHAIN} {place} -p tcp -j NFQUEUE --queue-num {DEFAULT_QUEUE} --queue-bypass"
        lab.run("A", "iptables-legacy", *known.split())
    process = start(lab, "A", sys.executable, "-c", program)
    try:
        yield process
    finally:
        end(process)
        lab.run("A", sys.executable, "-m", "nfreaim", "rules", "remove")


def do_nothing(lab: Lab) -> AbstractContextManager[Process]:
    """A Python queue whose callback only accepts."""
    return queued(lab, NOTHING)


def scapy(lab: Lab) -> AbstractContextManager[Process]:
    """nfreaim as it would be with scapy on every packet: dissected and built again, nothing else."""
    return queued(lab, SCAPY)


@contextmanager
def nfreaim(lab: Lab, more: str = "", options: tuple[str, ...] = ()) -> Iterator[Process]:
    """The daemon, on the endpoints' CPU. *more*: further lines of its configuration."""
    config = lab.dir / "bench.toml"
    config.write_text(CONFIG + more)
    daemon = lab.start_alg("A", ("--config", str(config), *options))
    subprocess.run(["taskset", "-acp", str(CPU), str(daemon.pid)], check=True, capture_output=True)
    try:
        yield daemon.process
    finally:
        daemon.stop(30.0)


def unverified(lab: Lab) -> AbstractContextManager[Process]:
    """The daemon as it is without the peer gate: what a peer says first is nobody's business."""
    return nfreaim(lab, "verify_peers = false\n")


def blind_gate(lab: Lab) -> AbstractContextManager[Process]:
    """The daemon with a gate that lets everything in: the floor of what a gate behind a queue costs."""
    return patched(lab, BLIND)


def confirmed_by_scapy(lab: Lab) -> AbstractContextManager[Process]:
    """The daemon with scapy's own dissection in place of the compiled readers."""
    return patched(lab, BY_SCAPY)


@contextmanager
def patched(lab: Lab, patch: str) -> Iterator[Process]:
    """The daemon, changed by the program *patch* before it starts."""
    program = lab.dir / "patched"
    root = str(Path(__file__).parent.parent)
    program.write_text(PATCHED.format(python=sys.executable, root=root, patch=patch))
    program.chmod(0o755)
    before = os.environ.get("NFREAIM")
    os.environ["NFREAIM"] = str(program)
    try:
        started = nfreaim(lab)
        process = started.__enter__()
    finally:
        os.environ.pop("NFREAIM") if before is None else os.environ.update(NFREAIM=before)
    with ExitStack() as stack:
        stack.push(started)
        yield process


@contextmanager
def redirected(lab: Lab, *words: str) -> Iterator[Process]:
    """A transparent proxy: the LAN's connections to the server port end on the router."""
    process = start(lab, "A", *words)
    try:
        with rules(
            lab,
            f"-t nat -A PREROUTING -i lan -p tcp --dport {PORT} -j REDIRECT --to-ports {RELAY_PORT}",
            f"-t nat -A PREROUTING -i wan -p tcp --dport {PEER_PORT} -j REDIRECT --to-ports {RELAY_PORT + 1}",
            f"-I INPUT -p tcp --dport {RELAY_PORT + 1} -j ACCEPT",
        ):
            yield process
    finally:
        end(process)


def relay(lab: Lab) -> AbstractContextManager[Process]:
    """Every byte through userspace, as ReAIM did it: an asyncio relay."""
    target = f"{ADDRESS['alice']}:{PEER_PORT}"
    return redirected(lab, sys.executable, "-m", "bench.relay", str(RELAY_PORT), str(RELAY_PORT + 1), target)


@contextmanager
def mitmproxy(lab: Lab) -> Iterator[Process]:
    """mitmproxy in transparent mode, raw TCP, and as a reverse proxy for the peer link."""
    words = [
        *(str(MITMDUMP), "-q", "--set", "flow_detail=0", "--set", f"confdir={lab.dir}/mitmproxy"),
        *("--set", "connection_strategy=lazy", "--tcp-hosts", ".*"),
        *("--mode", f"transparent@{RELAY_PORT}"),
        *("--mode", f"reverse:tcp://{ADDRESS['alice']}:{PEER_PORT}@{RELAY_PORT + 1}"),
    ]
    # mitmdump says nothing when it is quiet: the wrapper's line comes when its ports are open.
    script = (
        f'"$@" & child=$!; trap "kill $child" TERM; '
        f"until ss -ltn | grep -q :{RELAY_PORT + 1}; do kill -0 $child || exit 1; sleep 0.1; done; "
        "echo ready; wait"
    )
    with redirected(lab, "sh", "-c", script, "sh", *words) as process:
        yield process


def kernel_ftp(lab: Lab) -> AbstractContextManager[None]:
    """The kernel's own ALG, as the limit: its FTP helper on FTP's port and on ours."""
    return rules(
        lab,
        *(
            f"-t raw -A PREROUTING -i lan -p tcp --dport {port} -j CT --helper ftp"
            for port in (FTP_PORT, PORT)
        ),
    )


def static_forward(lab: Lab) -> AbstractContextManager[None]:
    """What a UPnP daemon or an operator would set for the peer link: one DNAT rule and one accept."""
    alice, peers = ADDRESS["alice"], f"-i wan -d {WAN['A']} -p tcp --dport {PEER_PORT}"
    return rules(
        lab,
        f"-t nat -I PREROUTING {peers} -j DNAT --to {alice}:{PEER_PORT}",
        f"-I FORWARD -i wan -d {alice} -p tcp --dport {PEER_PORT} -j ACCEPT",
    )


ALL: dict[str, Contender] = {
    "plain NAT": plain,
    "kernel FTP helper": kernel_ftp,
    "static forward": static_forward,
    "do-nothing queue": do_nothing,
    "nfreaim": nfreaim,
    UNVERIFIED: unverified,
    BLIND_GATE: blind_gate,
    "scapy on every packet": scapy,
    "asyncio relay": relay,
    "mitmproxy": mitmproxy,
}


def available() -> dict[str, Contender]:
    """Those that can run here; says which cannot, and why."""
    found = dict(ALL)
    if not MITMDUMP.exists():
        print("mitmproxy is left out: it could not be installed")
        del found["mitmproxy"]
    return found


def settle() -> None:
    """Give the kernel a moment after a change of contenders."""
    time.sleep(0.2)
