"""HELPERS: the list of all protocols. A new protocol is a helper, and its HelperSpec in this list."""

from __future__ import annotations

from typing import Final

from nfreaim.core.helper import HelperSpec
from nfreaim.helpers.irc import IRC
from nfreaim.helpers.msn import MSN
from nfreaim.helpers.oscar import OSCAR
from nfreaim.helpers.xmpp import XMPP
from nfreaim.helpers.yahoo import YAHOO

HELPERS: Final[tuple[HelperSpec, ...]] = (OSCAR, IRC, MSN, XMPP, YAHOO)
