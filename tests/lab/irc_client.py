"""An IRC client of the lab: the real weechat, headless, told what to do through its fifo.

What it announces in DCC is the address of its own end of the connection to the server, as it does by default.
It accepts every offer at once.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.irc_server import IrcServer
from tests.lab.net import Lab, LabError

SERVER_BUFFER = "irc.server.lab"
_OPTIONS = {
    "irc.server_default.nicks": "{nick}",
    "irc.server_default.username": "{nick}",
    "irc.server_default.realname": "{nick}",
    "irc.server_default.anti_flood_prio_high": "0",
    "irc.server_default.anti_flood_prio_low": "0",
    "irc.look.smart_filter": "off",
    "irc.network.lag_check": "0",  # no PING: who says nothing is silent
    "logger.file.flush_delay": "0",
    "logger.file.path": "{home}/logs",
    "logger.file.mask": "$plugin.$name.log",
    "xfer.file.auto_accept_files": "on",
    "xfer.file.auto_accept_chats": "on",
    "xfer.file.auto_rename": "off",
    "xfer.file.auto_resume": "on",
    "xfer.file.convert_spaces": "off",
    "xfer.file.download_path": "{home}/got",
    "xfer.file.upload_path": "{home}/own",
    "xfer.file.use_nick_in_filename": "off",
    "xfer.network.timeout": "30",
    "fifo.file.path": "{home}/fifo",  # the last one: where it appears, all of them are set
}


@dataclass(frozen=True)
class Outcome:
    """What came of an offer: whether it arrived whole, after how long, and what the peer's client said."""

    ok: bool
    seconds: float
    reason: str = ""


class IrcClient:
    """weechat on a node of the lab, with that node's name for a nick; ended with the lab.

    *ports* are those it may listen on, as in ``xfer.network.port_range``; else the kernel chooses.
    """

    def __init__(self, lab: Lab, node: str, ports: str = "") -> None:
        self.nick = node
        self._home = Path(lab.dir, f"weechat-{self.nick}")
        for part in ("got", "own", "logs"):
            (self._home / part).mkdir(parents=True)
        options = [
            f"/set {name} {value.format(home=self._home, nick=self.nick)}" for name, value in _OPTIONS.items()
        ]
        if ports:
            options.insert(0, f"/set xfer.network.port_range {ports}")
        arguments = [word for command in options for word in ("-r", command)]
        self._process = lab.spawn(
            node,
            "weechat-headless",
            "--dir",
            str(self._home),
            *arguments,
            log=lab.log_file(f"weechat-{self.nick}"),
            environment={"LC_ALL": "C.UTF-8"},
        )

    def wait_ready(self, seconds: float = 15.0) -> None:
        """Wait until it takes commands."""
        self._until((self._home / "fifo").is_fifo, seconds, "no fifo")

    def sign_on(self, server: IrcServer, seconds: float = 15.0) -> None:
        """Connect, and wait for the server's welcome."""
        self._tell(f"/server add lab {server.address}/{server.port}", "core.weechat")
        self._tell("/connect lab", "core.weechat")
        self._until(lambda: "hello" in self.log(SERVER_BUFFER), seconds, "no welcome")

    def say(self, line: str) -> None:
        """Send a line to the server as it stands."""
        self._tell(f"/quote {line}")

    def ignore_offers(self) -> None:
        """Accept nothing from now on."""
        self._tell("/set xfer.file.auto_accept_files off", "core.weechat")

    def accept_offers(self) -> None:
        """Accept every file from now on, as at the beginning."""
        self._tell("/set xfer.file.auto_accept_files on", "core.weechat")

    def offer(self, to: IrcClient, name: str, content: bytes) -> None:
        """Offer a file to another client."""
        path = self._home / "own" / name
        path.write_bytes(content)
        self._tell(f"/dcc send {to.nick} {path}")

    def send(self, to: IrcClient, name: str, content: bytes, seconds: float = 6.0) -> Outcome:
        """Offer a file to another client, and wait for it there."""
        self.offer(to, name, content)
        digest = hashlib.sha256(content).digest()
        return to._outcome(lambda: hashlib.sha256(to.got(name)).digest() == digest, seconds)

    def chat(self, to: IrcClient, seconds: float = 6.0) -> Outcome:
        """Offer a chat to another client; each must read what the other says."""
        self._tell(f"/dcc chat {to.nick}")
        ends = (self, to), (to, self)

        def heard() -> bool:
            for end, other in ends:
                end._tell(f"{end.nick} speaking", f"xfer.irc_dcc.lab.{other.nick}")
            return all(
                f"{other.nick} speaking" in end.log(f"xfer.irc_dcc.lab.{other.nick}") for end, other in ends
            )

        return to._outcome(heard, seconds, pause=0.3)

    def has_part(self, name: str, content: bytes) -> None:
        """Let there be the beginning of a file, so that the client asks for the rest of it when offered."""
        (self._home / "got" / f"{name}.part").write_bytes(content)

    def got(self, name: str) -> bytes:
        """What has come so far of a file."""
        path = self._home / "got" / name
        return path.read_bytes() if path.is_file() else b""

    def log(self, buffer: str) -> str:
        """What a buffer has shown so far."""
        path = self._home / "logs" / f"{buffer.lower()}.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    def quit(self) -> None:
        """Sign off and end."""
        self._tell("/quit", "core.weechat")

    def _outcome(self, done: Callable[[], bool], seconds: float, pause: float = 0.05) -> Outcome:
        began = time.monotonic()
        while not (ok := done()) and time.monotonic() < began + seconds:
            time.sleep(pause)
        taken = time.monotonic() - began
        return Outcome(ok, taken, "" if ok else self.log("core.weechat")[-600:])

    def _tell(self, command: str, buffer: str = SERVER_BUFFER) -> None:
        """Write one line to the fifo: what to type, and into which buffer."""
        handle = os.open(self._home / "fifo", os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(handle, f"{buffer} *{command}\n".encode())
        finally:
            os.close(handle)

    def _until(self, look: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not look():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"weechat {self.nick}: {what}\n{self.log('core.weechat')}")
            time.sleep(0.05)
