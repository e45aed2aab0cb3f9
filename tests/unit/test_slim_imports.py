"""What libraries are kept from loading stays away, and nobody misses it. Each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("pyroute2")

ALONE = """
import sys
import nfreaim.host.netfilter.conntrack
assert not [name for name in sys.modules if name.startswith("pyroute2")], "all of pyroute2 was loaded"
import pyroute2
assert pyroute2.netlink.nfnetlink.nfctsocket.nfct_msg is not nfreaim.host.netfilter.conntrack.nfct_msg
assert pyroute2.NDB
"""

LATER = """
import sys
import nfreaim.host.netfilter.conntrack
assert "ssl" not in sys.modules, "the daemon starts with a library that it does not use"
import ssl
assert ssl.create_default_context()
"""

SHARED = """
import pyroute2
import nfreaim.host.netfilter.conntrack
assert pyroute2.netlink.nfnetlink.nfctsocket.nfct_msg is nfreaim.host.netfilter.conntrack.nfct_msg
"""

NAMELESS = """
import sys
from nfreaim.host.slim_imports import stub_scapy_databases
stub_scapy_databases()
from scapy import data
assert not data.MANUFDB.d and not getattr(data, "BLUETOOTH_CORE_COMPANY_IDENTIFIERS", {})
import nfreaim.layers.oscar_messages
from scapy.layers.l2 import Ether
assert Ether(bytes(Ether(src="00:00:0c:01:02:03"))).src == "00:00:0c:01:02:03"
"""


@pytest.mark.parametrize(
    "program", [ALONE, LATER, SHARED, NAMELESS], ids=["alone", "ssl later", "shared", "nameless"]
)
def test_library_that_is_loaded_in_part_works(program: str) -> None:
    settings = os.environ | {"XDG_CACHE_HOME": os.devnull}
    done = subprocess.run(
        [sys.executable, "-c", program], env=settings, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
