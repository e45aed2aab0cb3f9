"""The helpers by protocol name: an explicit table, read from top to bottom. A new protocol adds two lines."""

from __future__ import annotations

from typing import Final

from nfreaim.core.helper import HelperFactory
from nfreaim.helpers.oscar.session import OscarHelper

HELPERS: Final[dict[str, HelperFactory]] = {
    "oscar": OscarHelper,
}
