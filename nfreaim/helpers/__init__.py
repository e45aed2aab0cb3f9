"""HELPERS: every protocol there is. To add one, write its helper and name its HelperSpec here."""

from __future__ import annotations

from typing import Final

from nfreaim.core.helper import HelperSpec
from nfreaim.helpers.irc import IRC
from nfreaim.helpers.oscar import OSCAR

HELPERS: Final[tuple[HelperSpec, ...]] = (OSCAR, IRC)
