"""``python -m nfreaim``: the command ``nfreaim``."""

import sys

from nfreaim.cli import main

if __name__ == "__main__":
    sys.exit(main())
