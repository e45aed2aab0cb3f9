"""Checks of servers on the inside and on this router: whether they may speak for the hosts of the LAN."""

from __future__ import annotations

import os
from collections.abc import Collection

from nfreaim.config import Config
from nfreaim.core.address import End
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.home import local_sockets
from nfreaim.host.home.forward_reader import read_now
from nfreaim.host.home.trust import (
    on_request,
    remedy_for,
    run_by,
    strangers,
    trusted_users,
    users_remedy,
)


def servers(config: Config) -> Checks:
    """Who is reached on the ports of protocols that are also read if the server is inside."""
    if os.geteuid() != 0:
        return
    ports = {port for port, spec in config.helpers().items() if End.SERVER in spec.resizes}
    yield from _inside(config, ports)
    served = config.helpers()
    for several in config.ports.values():
        if served[several[0]].ports_of_one_server:
            yield from _incomplete(several)
    users = trusted_users(config.home_server_users)
    for port in sorted(ports):
        listening = local_sockets.listeners(port)
        if found := strangers(listening, users):
            text = f"a server on port {port} of this router may not speak for others: {run_by(min(found))}"
            yield Check("warn", text, users_remedy(config.file))
        elif listening:
            yield Check("ok", f"a server on port {port} of this router may speak for the hosts of the LAN")


def _incomplete(ports: Collection[int]) -> Checks:
    """Servers inside that are forwarded on one port of their protocol, and need all."""
    forwards = read_now()
    for host in sorted({forward.inside.address for forward in forwards if forward.inside.port in ports}):
        reached = {forward.inside.port for forward in forwards if forward.inside.address == host}
        for port in sorted({*ports} - reached if 0 not in reached else ()):
            text = f"no rule forwards a port to {host}:{port}: if it listens there, clients outside lack it"
            yield Check("warn", text, f"if {host} is a server of yours, forward port {port} to {host}:{port}")


def _inside(config: Config, ports: Collection[int]) -> Checks:
    asked = local_sockets.serves_on_request()
    for server in sorted({forward.inside for forward in read_now() if forward.port in {0, *ports}}):
        remedy = remedy_for(server, config.file)
        if server.port == 0:
            if not any(named.address == server.address for named in config.home_servers):
                text = f"{server.address} gets all ports, which makes it no server; if it is one, {remedy}"
                yield Check("ok", text)
        elif asked is None or any(named.covers(server) for named in config.home_servers):
            yield Check("ok", f"{server} is a server that may speak for its clients")
        else:
            yield Check("warn", f"{server} may not speak for others: {on_request(asked)}", remedy)
