"""An XMPP server of the lab: the real prosody, in clear text and without a proxy for files."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from tests.lab.namespace import socket_in
from tests.lab.net import SERVER, Lab, LabError

PORT = 5222
DOMAIN = "example.test"
PASSWORD = "secret"
USERS = ("alice", "amy", "bob", "carol")
_CONFIGURATION = """
run_as_root = true
daemonize = false
pidfile = "{home}/pid"
data_path = "{home}/data"
log = {{ info = "*console" }}
interfaces = {{ "{address}" }}
c2s_ports = {{ {port} }}
modules_enabled = {{ "roster", "saslauth", "disco", "ping" }}
modules_disabled = {{ "tls", "s2s", "http", "carbons" }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
statistics = false
VirtualHost "{domain}"
"""


class XmppServer:
    """prosody on a node of the lab, ended with it. *friends*: all users are on each other's rosters."""

    def __init__(
        self,
        lab: Lab,
        node: str = "server",
        address: str = SERVER,
        port: int = PORT,
        friends: bool = False,
    ) -> None:
        self.address, self.port = address, port
        self._lab, self._node = lab, node
        self._log = lab.log_file("prosody")
        home = Path(lab.dir, f"prosody-{node}-{port}")
        accounts, rosters = (home / "data" / "example%2etest" / store for store in ("accounts", "roster"))
        for store in (accounts, rosters):
            store.mkdir(parents=True)
        for user in USERS:
            if friends:
                (rosters / f"{user}.dat").write_text(_roster([other for other in USERS if other != user]))
            (accounts / f"{user}.dat").write_text(f'return {{ ["password"] = "{PASSWORD}" }};\n')
        path = home / "prosody.cfg.lua"
        path.write_text(_CONFIGURATION.format(home=home, address=address, port=port, domain=DOMAIN))
        self._process = lab.spawn(node, "prosody", "-F", "--config", str(path), log=self._log)

    def wait_ready(self, seconds: float = 15.0) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + seconds
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"prosody does not start:\n{self._log.read_text(errors='replace')}")
            time.sleep(0.05)

    def _listens(self) -> bool:
        with socket_in(self._lab, self._node) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect((self.address, self.port))
                probe.shutdown(socket.SHUT_RDWR)
            except OSError:
                return False
        return True


def _roster(others: list[str]) -> str:
    """As prosody keeps it, with subscriptions in both directions."""
    both = 'subscription = "both"; groups = {};'
    items = [f'["{other}@{DOMAIN}"] = {{ jid = "{other}@{DOMAIN}"; {both} }};' for other in others]
    return "return { [false] = { version = 1; pending = {}; }; " + " ".join(items) + " };\n"
