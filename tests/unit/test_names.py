"""The names that rules and daemon share: the script and names.py have to agree on each."""

from __future__ import annotations

import subprocess

from nfreaim import config, protocols
from nfreaim.host.netfilter import names
from nfreaim.host.rules import script

# By the script's name: ours, as the script prints it.
SHARED = {
    "CHAIN": names.CHAIN,
    "SERVER_CHAIN": names.SERVER_CHAIN,
    "OWN_CHAIN": names.OWN_CHAIN,
    "GATE_CHAIN": names.GATE_CHAIN,
    "VERIFIED_CHAIN": names.VERIFIED_CHAIN,
    "BUCKET_CHAIN": names.BUCKET_CHAIN,
    "LAN_SET": names.LAN_SET,
    "OFF_SET": names.OFFLOAD_SET,
    "SKEW_SET": names.SKEW_SET,
    "SRV_SET": names.SERVER_SET,
    "PIN_SET": names.PIN_SET,
    "OFF_TIMEOUT": str(names.OFFLOAD_TIMEOUT_S),
    "SKEW_TIMEOUT": str(names.SKEW_TIMEOUT_S),
    "SRV_TIMEOUT": str(names.SERVER_TIMEOUT_S),
    "PIN_TIMEOUT": str(names.PIN_TIMEOUT_S),
    "COMMENT": names.COMMENT,
    "PACKET_MASK": f"{names.PACKET_MARK_MASK:#x}",
    "CONNMARK_MASK": f"{names.CONNMARK_MASK:#x}",
    "SKEWED": f"{names.SKEWED_MARK:#x}",
    "DONE": f"{names.DONE_MARK:#x}",
    "OWN": f"{names.OWN_MARK:#x}",
    "INSIDE": f"{names.INSIDE_MARK:#x}",
    "VERIFIED": f"{names.VERIFIED_MARK:#x}",
    "PINHOLE": f"{names.PINHOLE_MARK:#x}",
    "UNVERIFIED": f"{names.UNVERIFIED_MARK:#x}",
    "QUEUE": str(config.Config().queue),
    "MOST_WORKERS": str(config.MOST_WORKERS),
    "MOST_PORTS": str(protocols.MOST_PORTS),
}


def test_the_rules_call_everything_as_we_do() -> None:
    told = subprocess.run(
        ["/bin/sh", str(script.path()), "names"], capture_output=True, text=True, timeout=30, check=True
    )
    assert dict(line.split("=", 1) for line in told.stdout.splitlines()) == SHARED


def test_the_bits_of_a_mask_are_given_out_from_the_lowest_on() -> None:
    assert list(names.bits(0x9D0000)) == [0x10000, 0x40000, 0x80000, 0x100000, 0x800000]
    assert list(names.bits(0)) == []
