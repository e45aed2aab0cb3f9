"""One router between a LAN host and a WAN host, each a network namespace: for what is not about OSCAR.

It has no firewall until one is loaded. Everything carries a prefix of its own and is gone when it is closed.
"""

import itertools
import os
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Self

import pytest

from tests.lab import firewall
from tests.lab.namespace import socket_in

REPO = Path(__file__).resolve().parents[2]
SCRIPT = REPO / "rules" / "nfreaim-rules"
SERVER = "203.0.113.9"
RECORD = "NFREAIM_FIREWALL_RECORD"  # where the script writes its decision down; tests.lab says nowhere
IP = shutil.which("ip") or "ip"  # found once: a test may give its commands a PATH without it
_numbers = itertools.count(1)


class Router:
    """A router between one LAN and one WAN host, each a network namespace."""

    def __init__(self) -> None:
        self.prefix = f"nfrr{os.getpid()}x{next(_numbers)}"

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        for node in ("client", "router", "server"):
            self._ip("netns", "add", self.ns(node))
            self.on(node, "ip", "link", "set", "lo", "up")
        for inside, host, net in (("lan", "client", "10.0.0"), ("wan", "server", "203.0.113")):
            self._ip(
                "link",
                "add",
                inside,
                "netns",
                self.ns("router"),
                "type",
                "veth",
                "peer",
                "eth0",
                "netns",
                self.ns(host),
            )
            self.on("router", *f"ip address add {net}.1/24 dev {inside}".split())
            self.on("router", *f"ip link set {inside} up".split())
            self.on(host, *f"ip address add {net}.9/24 dev eth0".split())
            self.on(host, *"ip link set eth0 up".split())
            self.on(host, *f"ip route add default via {net}.1".split())
        self.shell("echo 1 > /proc/sys/net/ipv4/ip_forward")

    def close(self) -> None:
        for node in ("client", "router", "server"):
            subprocess.run(["ip", "netns", "del", self.ns(node)], capture_output=True, timeout=30)

    def ns(self, node: str) -> str:
        return f"{self.prefix}-{node}"

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, timeout=30)

    def on(
        self, node: str, *words: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [IP, "netns", "exec", self.ns(node), *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env=None if env is None else {RECORD: os.environ[RECORD], **env},
        )

    def load(self, *variants: str) -> None:
        """Load the router's own firewall, written in each of these dialects of tests/lab/firewall.py."""
        for variant in variants:
            subprocess.run(
                ["ip", "netns", "exec", self.ns("router"), "sh", "-c", firewall.LOAD[variant]],
                input=firewall.RULES[variant],
                check=True,
                text=True,
                timeout=30,
            )

    def shell(self, text: str) -> str:
        """Run shell lines on the router; the first that fails ends it."""
        return self.on("router", "sh", "-ec", text).stdout

    def rules(self, *words: str, path: str | None = None) -> str:
        """Run nfreaim-rules on the router and return what it writes to stderr."""
        env = None if path is None else {"PATH": path}
        return self.on("router", str(SCRIPT), *words, env=env).stderr

    def fails(self, *words: str, path: str | None = None) -> str:
        """Run nfreaim-rules, which must fail with status 1; return its complaint."""
        with pytest.raises(subprocess.CalledProcessError) as caught:
            self.rules(*words, path=path)
        assert caught.value.returncode == 1
        return str(caught.value.stderr)

    def show(self) -> tuple[int, str]:
        result = subprocess.run(
            ["ip", "netns", "exec", self.ns("router"), str(SCRIPT), "show"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return result.returncode, result.stdout

    def state(self) -> str:
        """Every rule and set, comparable; the sets' random seeds and counted-down timeouts taken out."""
        text = firewall.normalise(self.on("router", "sh", "-c", firewall.DUMP).stdout)
        return re.sub(r" initval 0x[0-9a-f]+", "", text)

    def chain(self, save: str, table: str, name: str) -> list[str]:
        """Rules of one chain in order, without "-A NAME"."""
        saved = self.on("router", save, "-t", table).stdout.splitlines()
        return [line.removeprefix(f"-A {name} ") for line in saved if line.startswith(f"-A {name} ")]

    def connect(self, port: int = 5190) -> bytes:
        """What the client reads from a server that answers one connection through the router."""
        with socket_in(self, "server") as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((SERVER, port))
            listener.listen(1)
            listener.settimeout(5)

            def answer() -> None:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.sendall(b"hello")

            thread = threading.Thread(target=answer)
            thread.start()
            try:
                with socket_in(self, "client") as client:
                    client.settimeout(3)
                    client.connect((SERVER, port))
                    return client.recv(100)
            finally:
                thread.join()
