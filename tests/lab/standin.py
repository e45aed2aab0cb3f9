"""Drives a lab's stand-in server and clients from a test: one process each, JSON lines on their pipes."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from tests.lab.net import SERVER, Lab, LabError

Result = dict[str, Any]


def by_user(user: int) -> list[str]:
    """The beginning of a command line that is run by the user with this number."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []


class StandIn:
    """A process that answers each JSON line with one that has the same ``id``."""

    def __init__(self, lab: Lab, node: str, module: str, *args: str, user: int = 0) -> None:
        self.what = f"{module} on {node}"
        self.log = lab.log_file(f"{module}-{node}")
        start = [*by_user(user), sys.executable, "-m", f"tests.lab.{module}", *args]
        self.process: subprocess.Popen[bytes] = lab.spawn(node, *start, pipes=True, log=self.log)
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Result]] = {}
        self._ready: Future[Result] = Future()
        threading.Thread(target=self._read, daemon=True).start()

    def wait_ready(self, seconds: float = 15.0) -> None:
        """Wait until the process has started."""
        self._ready.result(seconds)

    def start(self, command: str, **args: Any) -> Future[Result]:
        """Send a command; the future holds its answer."""
        answer: Future[Result] = Future()
        with self._lock:
            number = next(self._ids)
            self._waiting[number] = answer
            assert self.process.stdin is not None
            try:
                self.process.stdin.write(json.dumps({"id": number, "cmd": command, **args}).encode() + b"\n")
                self.process.stdin.flush()
            except (OSError, ValueError) as error:
                raise LabError(f"{self.what} is gone: {error}\n{self._log_text()}") from error
        return answer

    def call(self, command: str, seconds: float = 40.0, **args: Any) -> Result:
        """Send a command, wait for its answer; LabError if the answer is not ok."""
        answer = self.start(command, **args).result(seconds)
        if not answer["ok"]:
            raise LabError(f"{self.what}: {command}: {answer}\n{self._log_text()}")
        return answer

    def stop(self) -> None:
        """End the process as a user would (stdin closes); the lab would do it too."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)

    def _read(self) -> None:
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                answer = json.loads(line)
                if answer.get("event") == "ready":
                    self._ready.set_result(answer)
                else:
                    self._waiting.pop(answer["id"]).set_result(answer)
        except ValueError:  # the pipe was closed while the lab was being torn down
            pass
        gone = LabError(f"{self.what} ended\n{self._log_text()}")
        for future in [self._ready, *self._waiting.values()]:
            if not future.done():
                future.set_exception(gone)

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Server(StandIn):
    """The stand-in server; *mode* ``oos`` or ``aol``, *write* as in ``tests.lab.link.WriteMode``."""

    def __init__(
        self,
        lab: Lab,
        mode: str = "oos",
        write: dict[str, Any] | None = None,
        address: str = SERVER,
        port: int = 5190,
        node: str = "server",
        announce: str | None = None,
        also: str | None = None,
    ) -> None:
        self.address = f"{address}:{port}"
        args = ["--listen", self.address, "--mode", mode, "--write", json.dumps(write or {"name": "oos"})]
        args += ["--announce", announce] if announce else []
        args += ["--also", also] if also else []
        super().__init__(lab, node, "server", *args)


class Client(StandIn):
    """A stand-in client with one account, e.g. ``Client(lab, "alice", "alice1")``, run by *user*."""

    def __init__(
        self,
        lab: Lab,
        node: str,
        name: str,
        profile: str = "libpurple",
        first_port: int = 5190,
        user: int = 0,
    ) -> None:
        self.name = name
        args = ["--name", name, "--profile", profile, "--first-port", str(first_port)]
        super().__init__(lab, node, "client", *args, user=user)

    def sign_on(self, server: Server | str, services: bool = False) -> None:
        """Sign on and stay on; waits for a server that is still starting."""
        if isinstance(server, Server):
            server.wait_ready()
        address = server if isinstance(server, str) else server.address
        self.call("sign_on", server=address, services=services)


class IcqClient(Client):
    """A stand-in ICQ client, e.g. ``IcqClient(lab, "alice", "100003")``; *login* is ``xor`` or ``md5``."""

    def __init__(self, lab: Lab, node: str, uin: str, login: str = "xor", first_port: int = 4000) -> None:
        self.name = uin
        args = ["--name", uin, "--login", login, "--first-port", str(first_port)]
        StandIn.__init__(self, lab, node, "icq_client", *args)


@dataclass(frozen=True)
class IcqCall:
    """One direct connection as both ends saw it; *peer* is the caller as the listener's socket shows it."""

    ok: bool
    seconds: float
    peer: str
    reason: str


def icq_call(caller: IcqClient, listener: IcqClient, how: str = "dial") -> IcqCall:
    """``dial``: the caller calls where the listener is published; ``ask_back``: the listener asks it to;
    ``chat``: the listener offers a chat. Both ends must have read what the other wrote."""
    if how == "dial":
        out = caller.start("dial", to=listener.name, text=f"hello {listener.name}").result(40.0)
    else:
        listener.call(how, to=caller.name)
        out = caller.start("await_outgoing").result(40.0)
    seconds = 5.0 if out["ok"] else 0.2
    into = listener.start("await_call", uin=caller.name, seconds=seconds).result(40.0)
    ok = bool(out["ok"] and into["ok"])
    if ok and (out["sent"], out["received"]) != (into["received"], into["sent"]):
        return IcqCall(False, 0.0, into["peer"], "the contents differ")
    reason = out.get("reason") or into.get("reason") or ""
    return IcqCall(ok, out.get("seconds", 0.0), into.get("peer", ""), reason)


@dataclass(frozen=True)
class Outcome:
    """One rendezvous as both ends saw it. ``ok`` means: both ends finished and their contents are the
    same."""

    ok: bool
    seconds: float
    attempt: str  # "direct": the receiver reached the proposer; "redirect": only the other way round
    peer: str  # address:port of the receiver, as the proposer's socket shows it
    reason: str
    proposer: Result
    receiver: Result

    @property
    def first_attempt(self) -> bool:
        """It worked without the clients' fallback."""
        return self.ok and self.attempt == "direct"


def new_cookie() -> str:
    """Seven ASCII digits and NUL as libpurple makes them, in hex."""
    return (b"%07d\0" % random.randrange(1000000, 10000000)).hex()


class Transfer:
    """A rendezvous under way: ``Transfer(alice, bob, "file").outcome()``.

    *kind* is ``file`` or ``im``; further arguments (size, seed, text, write, patience) go to the proposing
    client.
    """

    def __init__(self, proposer: Client, receiver: Client, kind: str, **args: Any) -> None:
        self.cookie = args.setdefault("cookie", new_cookie())
        if kind == "im":
            args.setdefault("text", f"hello over dim {self.cookie}")
        self._receiver = receiver
        self._proposed = proposer.start("propose", kind=kind, to=receiver.name, **args)

    def outcome(self, seconds: float = 60.0) -> Outcome:
        """Wait for both ends and compare what they sent and received."""
        proposer = self._proposed.result(seconds)
        # A proposer that failed has told the receiver so (or never reached it): no long wait for that end.
        patience = 10.0 if proposer["ok"] else 1.0
        receiver = self._receiver.start("wait", cookie=self.cookie, seconds=patience).result(seconds)
        reason = proposer.get("reason") or receiver.get("reason") or ""
        ok = bool(proposer["ok"] and receiver["ok"])
        if ok and (proposer["sent"], proposer["received"]) != (receiver["received"], receiver["sent"]):
            ok, reason = False, "the contents differ"
        return Outcome(
            ok,
            proposer.get("seconds", 0.0),
            proposer.get("attempt", ""),
            proposer.get("peer", ""),
            reason,
            proposer,
            receiver,
        )
