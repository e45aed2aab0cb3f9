"""The network of the lab, in network namespaces with the kernel's real NAT::

     LAN A 10.0.0.0/24          Internet 203.0.113.0/24            LAN B 192.168.7.0/24
   alice .5 ─┐                                                     ┌─ carol .5
   amy   .6 ─┼─[router A .1]────────┬────────┬────────┬────[router B .2]
   hsrv  .9 ─┘                 server .9   bob .20

Routers masquerade on ``wan``; LAN hosts are ports of the bridge ``lan``. Everything a :class:`Lab` makes
carries a prefix of its own, so labs run side by side, and is gone when the lab is closed. This module never
touches the namespace it is called from and kills only processes inside its own namespaces, by pid.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

from tests.lab import firewall

REPO = Path(__file__).resolve().parents[2]

Variant = Literal["legacy", "nft", "native-nft"]

WAN = {"A": "203.0.113.1", "B": "203.0.113.2"}
LAN = {"A": "10.0.0.1", "B": "192.168.7.1"}
SERVER, SECOND_SERVER = "203.0.113.9", "203.0.113.10"  # both on node "server"
ADDRESS = {
    "alice": "10.0.0.5",
    "amy": "10.0.0.6",
    "hsrv": "10.0.0.9",
    "carol": "192.168.7.5",
    "bob": "203.0.113.20",
    "server": SERVER,
}
BEHIND = {"alice": "A", "amy": "A", "hsrv": "A", "carol": "B"}
CORE = (
    "203.0.113.254"  # the "Internet": routes nothing, so private destinations vanish there as they do outside
)

_numbers = itertools.count(1)


class LabError(RuntimeError):
    """The lab could not be built, or a command in it failed."""


class Daemon:
    """A running nfreaim on one router."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        """Process id of the daemon itself (not of a wrapper)."""
        return self.process.pid

    def log_text(self) -> str:
        """Everything it has written so far."""
        return self.log.read_text(errors="replace")

    def wait_ready(self, seconds: float = 10.0) -> None:
        """Wait for the line that contains "ready"; raise LabError with the log if it does not come."""
        self.wait_log("ready", seconds)

    def wait_log(self, text: str, seconds: float = 10.0) -> None:
        """Wait until the log contains *text*."""
        deadline = time.monotonic() + seconds
        while text not in self.log_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                state = self.process.poll()
                raise LabError(f"nfreaim: no {text!r} in the log (exit status {state}):\n{self.log_text()}")
            time.sleep(0.004)

    def stop(self, seconds: float = 10.0) -> int:
        """SIGTERM, wait, return the exit status; SIGKILL and LabError if it does not end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabError(f"nfreaim ignored SIGTERM for {seconds} s:\n{self.log_text()}") from None

    def kill(self) -> None:
        """SIGKILL, as in a crash."""
        self.process.kill()
        self.process.wait(10)


class Lab:
    """The network above; use as a context manager.

    *firewall_a*, *firewall_b* choose what the router's own firewall is written in: ``legacy``
    (iptables-legacy for filter and nat), ``nft`` (iptables-nft for both) or ``native-nft`` (a table of its
    own). *home_server* adds hsrv.
    """

    def __init__(
        self, firewall_a: Variant = "legacy", firewall_b: Variant = "legacy", home_server: bool = False
    ) -> None:
        self.prefix = f"nr{os.getpid()}x{next(_numbers)}"
        self.variants: dict[str, Variant] = {"A": firewall_a, "B": firewall_b}
        self.hosts = [name for name in ADDRESS if name != "hsrv" or home_server]
        self.dir = Path()  # logs and the routers' /run; made with the lab and removed with it
        self.keep_logs: Path | None = None  # where to copy the logs before that
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ends = contextlib.ExitStack()
        self._logs = itertools.count(1)
        self._lock = threading.RLock()
        self._closed = False

    # --- life ----------

    def __enter__(self) -> Lab:
        try:
            with self._lock:
                self._check_open()
                self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process of the lab and remove its namespaces and files. May be called twice, from any
        thread."""
        with self._lock:
            self._closed = True
            self._ends.close()
            for process in self._processes:
                if process.poll() is None:
                    process.terminate()
            deadline = time.monotonic() + 3.0
            for process in self._processes:
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10)
                for stream in (process.stdin, process.stdout):
                    if stream is not None:
                        with contextlib.suppress(OSError):  # unsent bytes to a process that has ended
                            stream.close()
            self._processes.clear()
            mine = self._existing()
            for name in mine:
                self._end_strays(name)
            if mine:
                _batch("".join(f"netns del {name}\n" for name in mine), check=False)
            if self.dir.name.startswith(self.prefix):
                if self.keep_logs is not None and self.dir.exists():
                    self.keep_logs.mkdir(parents=True, exist_ok=True)
                    for log in self.dir.glob("*.log"):
                        shutil.copy(log, self.keep_logs)
                shutil.rmtree(self.dir, ignore_errors=True)

    def at_close(self, end: Callable[[], None]) -> None:
        """Call *end* when the lab is closed, before its processes end: for what this process does in it."""
        with self._lock:
            self._check_open()
            self._ends.callback(end)

    def ns(self, node: str) -> str:
        """Name of the namespace of a node: A, B, inet, server, alice, amy, bob, carol, hsrv."""
        return f"{self.prefix}-{node}"

    # --- commands ----------

    def command(self, node: str, *args: str) -> list[str]:
        """The command line that runs *args* on *node*; on a router with the router's private /run."""
        inside = ["ip", "netns", "exec", self.ns(node)]
        if node in WAN:
            # `ip netns exec` has made a mount namespace: the bind mount stays in it. exec keeps the pid.
            run = str(self.dir / f"run-{node}")
            inside += ["sh", "-c", 'mount --bind "$0" /run && exec "$@"', run]
        return [*inside, *args]

    def run(
        self, node: str, *args: str, check: bool = True, stdin: str | None = None, seconds: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a node and return its result; LabError on a bad exit status unless *check* is
        False."""
        result = subprocess.run(
            self.command(node, *args),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=REPO,
        )
        if check and result.returncode != 0:
            raise LabError(
                f"{node}: {' '.join(args)}: status {result.returncode}\n{result.stdout}{result.stderr}"
            )
        return result

    def spawn(
        self,
        node: str,
        *args: str,
        pipes: bool = False,
        log: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process on a node, shielded from the terminal's Ctrl-C and ended with the lab.

        *pipes* connects stdin and stdout; otherwise stdout joins stderr in *log*.
        """
        with self._lock:
            self._check_open()
            errors = (log or self.log_file(node)).open("ab")
            output: int | IO[bytes] = subprocess.PIPE if pipes else errors
            with errors:
                process = subprocess.Popen(
                    self.command(node, *args),
                    stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    cwd=REPO,
                    start_new_session=True,
                    env=None if environment is None else {**os.environ, **environment},
                )
            self._processes.append(process)
            return process

    def log_file(self, stem: str) -> Path:
        """A new file name in the lab's directory."""
        return self.dir / f"{stem}-{next(self._logs)}.log"

    def start_alg(self, router: str, extra_args: tuple[str, ...] = (), wait: bool = True) -> Daemon:
        """Start ``nfreaim run --lan lan --wan wan`` on a router and wait until it is ready.

        The program is ``$NFREAIM`` if that is set, else the package of this checkout under the running
        Python. ``$NFREAIM_WORKERS`` is how many processes read, where the rules are not installed before.
        """
        program = os.environ.get("NFREAIM")
        start = [program] if program else [sys.executable, "-m", "nfreaim"]
        log = self.log_file(f"nfreaim-{router}")
        workers = os.environ.get("NFREAIM_WORKERS", "")
        options = ["--workers", workers] if workers else []
        args = [*start, "run", "--lan", "lan", "--wan", "wan", *options, *extra_args]
        daemon = Daemon(self.spawn(router, *args, log=log, environment={"PYTHONUNBUFFERED": "1"}), log)
        if wait:
            daemon.wait_ready()
        return daemon

    # --- what the router's kernel holds ----------

    def firewall_rules(self, router: str) -> str:
        """Every rule and set on a router, without counters: equal texts mean equal firewalls."""
        return firewall.normalise(self.run(router, "sh", "-c", firewall.DUMP).stdout)

    def queue_state(self, router: str) -> dict[int, int]:
        """For each bound NFQUEUE of a router: id of the last packet, which counts the packets ever queued."""
        text = self.run(router, "cat", "/proc/net/netfilter/nfnetlink_queue").stdout
        rows = [line.split() for line in text.splitlines()]
        return {int(row[0]): int(row[7]) for row in rows}

    # --- construction ----------

    def _check_open(self) -> None:
        if self._closed:
            raise LabError("the lab is closed")

    def _build(self) -> None:
        ns = self.ns
        self.dir = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-"))
        nodes = ["inet", *WAN, *self.hosts]
        links = [f"netns add {ns(node)}" for node in nodes]
        inside: dict[str, list[str]] = {node: ["link set lo up"] for node in nodes}
        for name, bridge in (("inet", "core"), *((router, "lan") for router in WAN)):
            inside[name] += [f"link add {bridge} type bridge", f"link set {bridge} up"]

        def cable(node: str, device: str, address: str, to: str, bridge: str, gateway: str) -> None:
            port = f"p-{node}"
            # Named afterwards: some kernels refuse a name that the caller's own namespace has, such as eth0.
            new = f"v-{node}"
            links.append(f"link add {new} netns {ns(node)} type veth peer name {port} netns {ns(to)}")
            inside[node].append(f"link set {new} name {device}")
            inside[to] += [f"link set {port} master {bridge}", f"link set {port} up"]
            inside[node] += [f"address add {address}/24 dev {device}", f"link set {device} up"]
            inside[node] += [f"route add default via {gateway}"]

        inside["inet"] += [f"address add {CORE}/24 dev core", "route add blackhole default"]
        for router, address in WAN.items():
            inside[router] += [f"address add {LAN[router]}/24 dev lan"]
            cable(router, "wan", address, "inet", "core", CORE)
            (self.dir / f"run-{router}").mkdir()
        for host in self.hosts:
            behind = BEHIND.get(host)
            to, bridge, gateway = (behind, "lan", LAN[behind]) if behind else ("inet", "core", CORE)
            cable(host, "eth0", ADDRESS[host], to, bridge, gateway)
        for host in self.hosts:
            # Many small writes must leave as as many segments: with the usual 10 the rest would be joined.
            gateway = LAN[BEHIND[host]] if host in BEHIND else CORE
            subnet = ipaddress.ip_interface(f"{ADDRESS[host]}/24").network
            inside[host] += [
                f"route replace {subnet} dev eth0 src {ADDRESS[host]} initcwnd 500",
                f"route replace default via {gateway} initcwnd 500",
            ]
        inside["server"].append(f"address add {SECOND_SERVER}/24 dev eth0")

        _batch("\n".join(links) + "\n")
        for node, lines in inside.items():
            _batch("\n".join(lines) + "\n", "-n", ns(node))
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        self.run("inet", "sh", "-c", forward)
        for router, variant in self.variants.items():
            self.run(
                router, "sh", "-c", f"{forward} && {firewall.LOAD[variant]}", stdin=firewall.RULES[variant]
            )

    def _existing(self) -> list[str]:
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=30).stdout
        names = [line.split()[0] for line in listed.splitlines() if line.strip()]
        return [name for name in names if name.startswith(f"{self.prefix}-")]

    @staticmethod
    def _end_strays(name: str) -> None:
        """Kill what is still running in a namespace of ours (children that outlived their parent)."""
        for _ in range(100):
            pids = subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True, timeout=30
            ).stdout.split()
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.02)


def _batch(lines: str, *options: str, check: bool = True) -> None:
    """One ``ip`` process for many commands."""
    args = ["ip", *options, *([] if check else ["-force"]), "-batch", "-"]
    result = subprocess.run(args, input=lines, capture_output=True, text=True, timeout=30)
    if check and result.returncode != 0:
        raise LabError(f"ip -batch: {result.stderr}\n{lines}")


@functools.cache
def lab_available() -> str | None:
    """Why no lab can be built here, or None if it can."""
    if os.geteuid() != 0:
        return "the lab needs root (network namespaces)"
    needed = ("ip", "mount", "iptables-legacy-restore", "iptables-nft-restore", "ipset", "nft")
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        return f"the lab needs {', '.join(missing)}"
    name = f"nr{os.getpid()}x0-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, timeout=30)
    if made.returncode != 0:
        return f"no network namespace can be made: {made.stderr.strip()}"
    try:
        for args, what in firewall.PROBES:
            result = subprocess.run(
                ["ip", "netns", "exec", name, *args], capture_output=True, text=True, timeout=30
            )
            if result.returncode != 0:
                return f"no {what} in a network namespace here: {result.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30)
    return None
