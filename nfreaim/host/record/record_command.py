"""The command ``nfreaim record``: reads its arguments, and says what was written."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from nfreaim import interface_options, protocols
from nfreaim.config import DEFAULT_PATH, load
from nfreaim.core.helper import HelperSpec
from nfreaim.errors import ConfigError
from nfreaim.exit_status import Exit

_USUAL_SIZE: Final = 64  # megabytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that ``main`` reads."""
    parser.add_argument("file", type=Path, metavar="FILE.pcapng", help="what to write; it must not exist yet")
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH} if it exists")
    interface_options.add_to(parser)
    protocols.add_options(parser, _port)
    parser.add_argument(
        "--seconds", type=_positive, metavar="N", help="stop after so long; default: at Ctrl-C"
    )
    parser.add_argument(
        "--size",
        type=_positive,
        default=_USUAL_SIZE,
        metavar="MB",
        help=f"stop at so much; default {_USUAL_SIZE}",
    )
    parser.add_argument(
        "--from",
        dest="sources",
        action="append",
        metavar="CAPTURE.pcap",
        help="copy this capture, without root; default: record one",
    )


def main(arguments: argparse.Namespace) -> int:
    """``nfreaim record``. Returns 0. Raises ConfigError and BackendError."""
    from nfreaim.recording.recording_file import MEGABYTE, RecordingFile

    # scapy would keep pickles in the home directory, and load them at the next start without a check.
    os.environ.update(XDG_CACHE_HOME=os.devnull, XDG_CONFIG_HOME=os.devnull, XDG_DATA_HOME=os.devnull)
    config = load(arguments.config)
    ports = protocols.of_options(arguments.protocol, arguments.port, config.ports, config.sections)
    servers = protocols.by_port(ports)
    most = arguments.size * MEGABYTE
    if arguments.sources:
        return _copy(arguments.sources, arguments.file, servers, most)
    from nfreaim.host.record.recorder import Recorder

    written = [*(arguments.lan or config.lan), *(arguments.wan or config.wan)]
    if not written:
        raise ConfigError("no interface to record; name them with --lan and --wan, or in the configuration")
    with RecordingFile(arguments.file, most) as out:
        recorder = Recorder(written, servers, config.status_socket, out)
        recorder.run(arguments.seconds)
    lost = f", {recorder.lost} lost because they came too fast" if recorder.lost else ""
    full = "; the file is full" if out.full else ""
    print(f"{arguments.file}: {out.packets} packets{lost}{full}")
    return Exit.FINE


def _copy(sources: list[str], path: Path, servers: dict[int, HelperSpec], most: int) -> int:
    from nfreaim.capture import Capture, CaptureError
    from nfreaim.recording.copy_file import copy
    from nfreaim.recording.recording_file import RecordingFile

    try:
        captures = [Capture.load(name) for name in sources]
    except CaptureError as error:
        raise ConfigError(f"{error}; name readable pcap or pcapng files") from error
    with RecordingFile(path, most) as out:
        copy(captures, [Path(name).name for name in sources], servers, out)
    print(f"{path}: {out.packets} packets{'; the file is full' if out.full else ''}")
    return Exit.FINE


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a port from 1 to 65535")
    return int(text)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from 1 on")
    return int(text)
