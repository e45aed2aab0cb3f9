"""The options --lan and --wan of all commands that have them."""

from __future__ import annotations

import argparse

from nfreaim.config_values import interface


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add both; each may be repeated, and may name several interfaces."""
    for side, meaning in (("lan", "inside clients"), ("wan", "the Internet")):
        text = f"interfaces towards {meaning}; may be repeated"
        parser.add_argument(f"--{side}", action="extend", type=_names, metavar="IF[,IF...]", help=text)


def _names(text: str) -> list[str]:
    try:
        return [interface(name) for name in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: must be names of network interfaces") from error
