"""The command ``nfreaim explain``: reads its arguments, prints the ladders, and writes the pictures."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

from nfreaim import protocols
from nfreaim.errors import ConfigError
from nfreaim.exit_status import Exit
from nfreaim.replay.command import outside_address, port_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that ``main`` reads."""
    parser.add_argument(
        "captures",
        nargs="+",
        metavar="CAPTURE.pcap",
        help="pcap or pcapng of the router's LAN side, WAN side or both, in one file or several",
    )
    parser.add_argument(
        "--inside", action="append", metavar="CIDR", help="a network behind the router; default: as captured"
    )
    parser.add_argument(
        "--outside", metavar="ADDRESS", help="the router's outside address; default: as captured"
    )
    protocols.add_options(parser, str, "all")
    parser.add_argument("--names", action="store_true", help="also show the names of users")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="a picture of the diagrams; default: none")
    parser.add_argument(
        "--html", metavar="FILE", type=Path, help="a page with pictures and text; default: none"
    )
    parser.add_argument("--width", type=int, metavar="N", help="columns of the text; default: the terminal's")


def main(arguments: argparse.Namespace) -> int:
    """``nfreaim explain``: returns 0, or 2 after one line on stderr if arguments or a capture are wrong."""
    # Imported here, because the daemon shares the command line and starts sooner without them.
    from nfreaim.capture import Capture, CaptureError
    from nfreaim.explain.explanation import explained
    from nfreaim.explain.ladder_svg import picture
    from nfreaim.explain.ladder_text import drawn
    from nfreaim.explain.page import page

    try:
        usual = {spec.name: spec.ports for spec in protocols.known_protocols()}
        ports = protocols.of_options(
            arguments.protocol, [port_number(text) for text in arguments.port], usual
        )
        inside = _networks(arguments.inside or ())
        outside = None if arguments.outside is None else outside_address(arguments.outside)
        captures = [Capture.load(name) for name in arguments.captures]
        found = explained(captures, ports, inside, outside, arguments.names)
        title = f"nfreaim explain: {', '.join(Path(name).name for name in arguments.captures)}"
        if arguments.svg is not None:
            _write(arguments.svg, picture(found.ladders))
        if arguments.html is not None:
            _write(arguments.html, page(title, found.notes, found.ladders))
    except ConfigError as error:
        print(f"nfreaim explain: {error}", file=sys.stderr)
        return Exit.MISUSED
    except CaptureError as error:
        print(f"nfreaim explain: {error}; name readable pcap or pcapng files", file=sys.stderr)
        return Exit.MISUSED
    width = arguments.width or shutil.get_terminal_size((100, 24)).columns
    for note in found.notes:
        print(note)
    for ladder in found.ladders:
        print("", *drawn(ladder, width), sep="\n")
    return Exit.FINE


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a place that can be written") from error


def _networks(texts: Sequence[str]) -> tuple[IPv4Network, ...]:
    try:
        return tuple(IPv4Network(text, strict=False) for text in texts)
    except ValueError as error:
        raise ConfigError(f"--inside: {error}; write a network like 192.168.1.0/24") from None
