"""A server at home: what its operator sets up on the router, in each of the firewall's dialects.

Nothing here knows nfreaim. Call it before nfreaim starts, as an operator would.
"""

from __future__ import annotations

from tests.lab.net import ADDRESS, WAN, Lab

HOME = ADDRESS["hsrv"]

# Addresses that make a redirect grow and shrink: outside address on router A, inside address on hsrv.
LONG_OUTSIDE = "203.0.113.100"
ROUTER_OUTSIDE = "203.0.113.101"  # of a server on router A, apart from the address of all other traffic
SHORT_OUTSIDE, LONG_INSIDE = "192.0.2.1", "192.168.100.200"


def forward(
    lab: Lab,
    router: str = "A",
    outside: str | None = None,
    inside: str = HOME,
    hairpin: bool = False,
    port: int = 5190,
    to_port: int = 0,
) -> None:
    """Forward *port* of *outside* (default: the router's WAN address) to *to_port* (or the same) of *inside*.

    *hairpin* lets inside clients use the outside address, too: they are masqueraded towards the server.
    """
    outside = outside or WAN[router]
    to_port = to_port or port
    variant = lab.variants[router]
    if variant == "native-nft":
        came = "" if hairpin else 'iifname "wan" '
        commands = [
            "add chain inet router prerouting { type nat hook prerouting priority dstnat; }",
            f"add rule inet router prerouting {came}ip daddr {outside} tcp dport {port}"
            f" dnat ip to {inside}:{to_port}",
            f'add rule inet router forward iifname "wan" ip daddr {inside} tcp dport {to_port} accept',
        ]
        if hairpin:
            commands.append(
                'add rule inet router postrouting oifname "lan" ct status dnat'
                f" ip saddr 10.0.0.0/24 ip daddr {inside} masquerade"
            )
        lab.run(router, "nft", "-f", "-", stdin="\n".join(commands) + "\n")
        return
    came = "" if hairpin else "-i wan "
    rules = [
        f"-t nat -A PREROUTING {came}-d {outside} -p tcp --dport {port}"
        f" -j DNAT --to-destination {inside}:{to_port}",
        f"-A FORWARD -i wan -d {inside} -p tcp --dport {to_port} -j ACCEPT",
    ]
    if hairpin:
        rules.append(
            "-t nat -A POSTROUTING -o lan -m conntrack --ctstate DNAT"
            f" -s 10.0.0.0/24 -d {inside} -j MASQUERADE"
        )
    for rule in rules:
        lab.run(router, f"iptables-{variant}", *rule.split())


def open_port(lab: Lab, router: str = "A", outside: str | None = None, port: int = 5190) -> None:
    """Let the outside connect to *port* of the router itself, at its address *outside* (default: WAN)."""
    outside = outside or WAN[router]
    if lab.variants[router] == "native-nft":
        rule = f'add rule inet router input iifname "wan" ip daddr {outside} tcp dport {port} accept'
        lab.run(router, "nft", *rule.split())
    else:
        rule = f"-A INPUT -i wan -d {outside} -p tcp --dport {port} -j ACCEPT"
        lab.run(router, f"iptables-{lab.variants[router]}", *rule.split())


def growing(lab: Lab) -> tuple[str, str]:
    """A second WAN address of router A, longer than hsrv's: (outside, inside)."""
    lab.run("A", "ip", "address", "add", f"{LONG_OUTSIDE}/24", "dev", "wan")
    return LONG_OUTSIDE, HOME


def shrinking(lab: Lab) -> tuple[str, str]:
    """A short WAN address of router A and a long LAN address of hsrv: (outside, inside)."""
    lab.run("A", "ip", "address", "add", f"{SHORT_OUTSIDE}/32", "dev", "wan")
    lab.run("inet", "ip", "route", "add", f"{SHORT_OUTSIDE}/32", "via", WAN["A"])
    lab.run("A", "ip", "address", "add", "192.168.100.1/24", "dev", "lan")
    lab.run("hsrv", "ip", "address", "add", f"{LONG_INSIDE}/24", "dev", "eth0")
    return SHORT_OUTSIDE, LONG_INSIDE
