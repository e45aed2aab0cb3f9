"""The names that rules and daemon share: the script and names.py have to agree on each."""

from __future__ import annotations

import subprocess

from nfreaim import config, marks, protocols
from nfreaim.host.netfilter import names
from nfreaim.host.rules import script

# By the script's name: ours, as the script prints it.
SHARED = {
    "CHAIN": names.CHAIN,
    "SERVER_CHAIN": names.SERVER_CHAIN,
    "OWN_CHAIN": names.OWN_CHAIN,
    "GATE_CHAIN": names.GATE_CHAIN,
    "VERIFIED_CHAIN": names.VERIFIED_CHAIN,
    "RESTORED_CHAIN": names.RESTORED_CHAIN,
    "ENTRY_CHAIN": names.ENTRY_CHAIN,
    "HELPER_CHAIN": names.HELPER_CHAIN,
    "LOCAL_CHAIN": names.LOCAL_CHAIN,
    "FLOWTABLE_CHAIN": names.FLOWTABLE_CHAIN,
    "TRIED_CHAIN": names.TRIED_CHAIN,
    "BUCKET_CHAIN": names.BUCKET_CHAIN,
    "LAN_SET": names.LAN_SET,
    "OFF_SET": names.OFFLOAD_SET,
    "KNOWN_SET": names.KNOWN_SET,
    "SKEW_SET": names.SKEW_SET,
    "SRV_SET": names.SERVER_SET,
    "PIN_SET": names.PIN_SET,
    "SHUT_SET": names.SHUT_SET,
    "LOCAL_SET": names.LOCAL_SET,
    "OFF_TIMEOUT": str(names.OFFLOAD_TIMEOUT_S),
    "KNOWN_TIMEOUT": str(names.KNOWN_TIMEOUT_S),
    "MOST_KNOWN": str(names.MOST_KNOWN),
    "SKEW_TIMEOUT": str(names.SKEW_TIMEOUT_S),
    "SRV_TIMEOUT": str(names.SERVER_TIMEOUT_S),
    "PIN_TIMEOUT": str(names.PIN_TIMEOUT_S),
    "SHUT_TIMEOUT": str(names.SHUT_TIMEOUT_S),
    "MOST_SHUT": str(names.MOST_SHUT),
    "COMMENT": names.COMMENT,
    "FLOWTABLE_HELPER": names.FLOWTABLE_HELPER,
    "OWN_GROUP": str(names.OWN_GROUP),
    "MARK_MASK": f"{marks.MARK_MASK:#x}",
    "CONNMARK_MASK": f"{marks.CONNMARK_MASK:#x}",
    "QUEUE": str(config.Config().queue),
    "NEWCOMERS": str(config.NEWCOMERS),
    "GATE_QUEUE": str(config.GATE_QUEUE),
    "MOST_WORKERS": str(config.MOST_WORKERS),
    "MOST_PORTS": str(protocols.MOST_PORTS),
    "TEST_LAN": names.TEST_LAN,
    "TEST_WAN": names.TEST_WAN,
    "TEST_CHAIN": names.TEST_CHAIN,
    "TEST_TABLE": names.TEST_TABLE,
    "TEST_CLIENT": names.TEST_CLIENT,
    "TEST_SERVER": names.TEST_SERVER,
    "TEST_OUTSIDE": names.TEST_OUTSIDE,
    "TEST_CLIENTS": names.TEST_CLIENTS,
    "TEST_RULE": str(names.TEST_RULE),
    "TEST_ROUTES": str(names.TEST_ROUTES),
}


def test_the_rules_call_everything_as_we_do() -> None:
    told = subprocess.run(
        ["/bin/sh", str(script.path()), "names"], capture_output=True, text=True, timeout=30, check=True
    )
    assert dict(line.split("=", 1) for line in told.stdout.splitlines()) == SHARED
