"""Sphinx builds the pages of this folder and of the repository's root: `make docs` (HTML) and `make man`.

Nothing is said twice: the pages are those that are read in the repository, and the two manual pages are made
of the program by scripts/manual_pages.py.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from nfreaim import __version__  # noqa: E402
from scripts import manual_pages  # noqa: E402

manual_pages.write(ROOT / "docs" / "reference")

project = "nfreaim"
author = "nfreaim contributors"
project_copyright = author
version = release = __version__
extensions = ["myst_parser"]
root_doc = "docs/index"
# Sphinx walks the whole tree if it is not told what to leave out.
include_patterns = [
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/**",
    "pcaps/README.md",
    "pcaps/*/README.md",
]
exclude_patterns = [".*", "build", "dist", "nfreaim", "tests", "**/__pycache__"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 6  # anchors as on GitHub, so a link works in both places
smartquotes = False  # quotes in text are often code
html_theme = "alabaster"
html_theme_options = {
    "page_width": "85rem",
    "body_max_width": "none",
    "description": "Lets messengers connect through a NAT router",
}
man_pages = [
    ("docs/reference/nfreaim.8", "nfreaim", "lets messengers connect through this router", "", 8),
    ("docs/reference/nfreaim.toml.5", "nfreaim.toml", "configuration of nfreaim", "", 5),
]
