"""The network of a self-test: a client behind this router and a server outside, each in a network namespace.

The namespaces have no names: each exists as long as a thread of this process is in it. When the process ends,
and be it by SIGKILL, the kernel removes them, and with them the interfaces here that lead there. What else is
made, rules and an `ip rule`, is removed by `nfreaim-rules self-test remove`.
"""

from __future__ import annotations

import ctypes
import os
import queue
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final, TypeVar

from nfreaim.errors import BackendError
from nfreaim.host.check.commands import TIMEOUT_S, json_from
from nfreaim.host.netfilter.names import (
    TEST_CLIENT,
    TEST_CLIENTS,
    TEST_LAN,
    TEST_OUTSIDE,
    TEST_ROUTES,
    TEST_RULE,
    TEST_SERVER,
    TEST_WAN,
)
from nfreaim.host.rules import self_test_rules

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_GATEWAY: Final = "192.0.2.1"  # of the client, in TEST_CLIENTS
_OUTSIDE_NETWORK: Final = "192.0.2.4/30"  # of TEST_OUTSIDE and TEST_SERVER
_WHOLE: Final = IPv4Network("192.0.2.0/29")
_LOCK: Final = "\0nfreaim-self-test"
"""The name of a socket, of which each network namespace has one at most."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace, and the thread in it. Raises BackendError if the kernel makes none."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        made: Future[str] = Future()
        self._thread = threading.Thread(target=self._live, args=(made,), daemon=True)
        self._thread.start()
        self.path = made.result()

    def call(self, job: Callable[[], T]) -> T:
        """What *job* returns when it is run in there; raises as it does. A socket of it stays in there."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(job())
            except BaseException as error:
                done.set_exception(error)

        self._jobs.put(run)
        return done.result()

    def close(self) -> None:
        """Leave it. It is gone when its sockets are closed, too."""
        self._jobs.put(None)
        self._thread.join()

    def _live(self, made: Future[str]) -> None:
        if _libc.unshare(_CLONE_NEWNET):
            error = os.strerror(ctypes.get_errno())
            made.set_exception(BackendError(f"no network namespace: {error}; the self-test needs root"))
            return
        made.set_result(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net")
        while (job := self._jobs.get()) is not None:
            job()


class Network:
    """The two namespaces, while the rules for them are there. *port*: of the server."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        _alone(stack)
        if taken := _taken():
            raise BackendError(
                f"address {taken} of this router is one of the self-test's own; no test is possible"
            )
        stack.callback(self_test_rules.remove)
        self_test_rules.add(port)
        self.client = Namespace()
        stack.callback(self.client.close)
        self.server = Namespace()
        stack.callback(self.server.close)
        _ip(
            f"link add {TEST_LAN} type veth peer name eth0 netns {self.client.path}",
            f"link add {TEST_WAN} type veth peer name eth0 netns {self.server.path}",
        )
        for interface in (TEST_LAN, TEST_WAN):
            Path(f"/proc/sys/net/ipv4/conf/{interface}/forwarding").write_text("1")
        _ip(
            f"address add {_GATEWAY}/30 dev {TEST_LAN}",
            f"address add {TEST_OUTSIDE}/30 dev {TEST_WAN}",
            f"link set {TEST_LAN} up",
            f"link set {TEST_WAN} up",
            f"route replace unreachable default table {TEST_ROUTES}",
            f"route replace {TEST_CLIENTS} dev {TEST_LAN} table {TEST_ROUTES}",
            f"route replace {_OUTSIDE_NETWORK} dev {TEST_WAN} table {TEST_ROUTES}",
            f"rule add pref {TEST_RULE} iif {TEST_LAN} lookup {TEST_ROUTES}",
            f"rule add pref {TEST_RULE} iif {TEST_WAN} lookup {TEST_ROUTES}",
        )
        for where, address, gateway in (
            (self.client, TEST_CLIENT, _GATEWAY),
            (self.server, TEST_SERVER, TEST_OUTSIDE),
        ):
            lines = (
                f"address add {address}/30 dev eth0",
                "link set eth0 up",
                f"route add default via {gateway}",
            )
            where.call(lambda lines=lines: _ip(*lines))  # type: ignore[misc]


def _alone(stack: ExitStack) -> None:
    """Raises BackendError if another self-test runs."""
    lock = stack.enter_context(socket.socket(socket.AF_UNIX))
    try:
        lock.bind(_LOCK)
    except OSError as error:
        raise BackendError("another self-test runs; wait for its end") from error


def _taken() -> str:
    """An address here that the test would take; "" if there is none."""
    listed: Any = json_from(["ip", "-4", "-j", "address", "show"])
    return next(
        (
            info["local"]
            for one in listed
            if one["ifname"] not in (TEST_LAN, TEST_WAN)
            for info in one["addr_info"]
            if IPv4Address(info["local"]) in _WHOLE
        ),
        "",
    )


def _ip(*lines: str) -> None:
    """Raises BackendError if one of the commands fails."""
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(
        ["ip", "-batch", "-"], input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        raise BackendError(f"the network of the self-test cannot be made: {done.stderr.strip()}")
