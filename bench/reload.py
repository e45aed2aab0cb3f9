"""How long our table is away after somebody has deleted everything: runs on a router with a daemon.

``python -m bench.reload`` prints a JSON object of seconds: until the table was there, and until it had as
many pinholes as before; the longest of five. A sixth time would wait, because somebody keeps doing it.
"""

from __future__ import annotations

import json
import time

from nfreaim.host.netfilter.names import ANY_SET, NFT_TABLE, PIN_SET
from nfreaim.host.netfilter.netlink import attribute
from nfreaim.host.netfilter.nft_image import Tables
from nfreaim.host.netfilter.nft_messages import Kind, question, text

_TIMES = 5
_PATIENCE_S = 10.0


def main() -> None:
    tables = Tables()

    def pinholes() -> int:
        return sum(len(tables.keys(NFT_TABLE, name)) for name in (PIN_SET, ANY_SET))

    took = {"table": 0.0, "pinholes": 0.0}
    for _ in range(_TIMES):
        before = pinholes()
        began = time.perf_counter()
        tables.change([question(Kind.DELETE_TABLE, attribute(1, text(NFT_TABLE)))])
        while tables.handle(NFT_TABLE) is None:
            _wait(began)
        took["table"] = max(took["table"], time.perf_counter() - began)
        while pinholes() < before:
            _wait(began)
        took["pinholes"] = max(took["pinholes"], time.perf_counter() - began)
        time.sleep(0.5)
    print(json.dumps(took))


def _wait(began: float) -> None:
    if time.perf_counter() - began > _PATIENCE_S:
        raise SystemExit("it does not come back")
    time.sleep(0.0002)


if __name__ == "__main__":
    main()
