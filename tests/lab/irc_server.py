"""An IRC server of the lab: the real ngircd."""

from __future__ import annotations

import time

from tests.lab.net import SERVER, Lab, LabError

PORT = 6667
NAME = "irc.example.test"
_CONFIGURATION = """[Global]
Name = {name}
Info = laboratory
AdminInfo1 = laboratory
Listen = {address}
Ports = {port}
MotdPhrase = hello
[Limits]
MaxConnectionsIP = 0
MaxJoins = 0
MaxPenaltyTime = 0
PingTimeout = 3600
[Options]
DNS = no
Ident = no
PAM = no
"""


class IrcServer:
    """ngircd on a node of the lab, ended with it."""

    def __init__(self, lab: Lab, node: str = "server", address: str = SERVER, port: int = PORT) -> None:
        self.address, self.port = address, port
        self._log = lab.log_file("ngircd")
        path = self._log.with_suffix(".conf")
        path.write_text(_CONFIGURATION.format(name=NAME, address=address, port=port))
        self._process = lab.spawn(node, "ngircd", "--nodaemon", "--config", str(path), log=self._log)

    def wait_ready(self, seconds: float = 10.0) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + seconds
        while "ready" not in (text := self._log.read_text(errors="replace")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"ngircd does not start:\n{text}")
            time.sleep(0.02)
