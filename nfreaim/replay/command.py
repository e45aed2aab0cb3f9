"""The command ``nfreaim replay``: reads its arguments, and prints the outcome or one line of error."""

from __future__ import annotations

import argparse
import json
import sys
from ipaddress import IPv4Address, IPv4Network

from nfreaim import protocols
from nfreaim.errors import ConfigError
from nfreaim.exit_status import Exit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that ``main`` reads."""
    parser.add_argument("capture", metavar="IN.pcap", help="pcap or pcapng, taken on the router's LAN side")
    parser.add_argument(
        "-o", "--output", metavar="OUT.pcap", help="the capture as it would have left; default: none"
    )
    parser.add_argument("--inside", metavar="CIDR", required=True, help="the network behind the router")
    parser.add_argument("--outside", metavar="ADDRESS", required=True, help="the router's outside address")
    protocols.add_options(parser, str, ", ".join(protocols.usual_ports()))
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--midstream", action="store_true", help="also read connections whose beginning is not in the capture"
    )


def main(arguments: argparse.Namespace) -> int:
    """``nfreaim replay``: returns 0, or 2 after one line on stderr if arguments or capture are wrong."""
    # Imported here, because the daemon shares the command line and starts sooner without them.
    from nfreaim.capture import Capture, CaptureError
    from nfreaim.replay.player import replay

    try:
        inside = _network(arguments.inside)
        outside = outside_address(arguments.outside)
        numbers = [port_number(text) for text in arguments.port]
        ports = protocols.of_options(arguments.protocol, numbers, protocols.usual_ports())
        capture = Capture.load(arguments.capture)
        if capture.truncated:
            print(f"nfreaim replay: {capture.truncated}; replayed up to there", file=sys.stderr)
        result = replay(capture, inside, outside, ports, arguments.midstream)
        if arguments.output is not None:
            capture.save(arguments.output)
    except ConfigError as error:
        print(f"nfreaim replay: {error}", file=sys.stderr)
        return Exit.MISUSED
    except CaptureError as error:
        remedy = "name a readable pcap or pcapng file and a writable place for -o"
        print(f"nfreaim replay: {error}; {remedy}", file=sys.stderr)
        return Exit.MISUSED
    print(json.dumps(result.as_dict(), indent=2) if arguments.json else result)
    return Exit.FINE


def _network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text, strict=False)
    except ValueError:
        raise ConfigError(f"--inside {text}: not an IPv4 network; write one like 192.168.1.0/24") from None


def outside_address(text: str) -> str:
    """The value of --outside. Raises ConfigError."""
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise ConfigError(f"--outside {text}: not an IPv4 address; write one like 203.0.113.1") from None


def port_number(text: str) -> int:
    """A value of --port. Raises ConfigError."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ConfigError(f"--port {text}: not a TCP port; write a number from 1 to 65535")
    return int(text)
