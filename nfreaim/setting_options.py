"""The options of several sub-commands that stand for keys of the configuration, and overrule it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nfreaim import interface_options, protocols
from nfreaim.config import DEFAULT_PATH, LAST_QUEUE, MASKS, MOST_WORKERS, Config, load
from nfreaim.config_values import FIREWALLS
from nfreaim.errors import ConfigError
from nfreaim.host.netfilter.interfaces import overlap
from nfreaim.marks import MARK_MASK, MOST, Marks
from nfreaim.old_spellings import DEFAULT_QUEUE


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH} if it exists")
    interface_options.add_to(parser)
    protocols.add_options(parser, _number(1, 65535))
    packet_filter = "of the rules: auto, legacy or nft; default: as the configuration says, or auto"
    parser.add_argument("--firewall", choices=FIREWALLS, help=packet_filter)
    queue = _number(0, 65535)
    number = f"netfilter queue number; default {DEFAULT_QUEUE}"
    parser.add_argument("--queue", type=queue, metavar="N", help=number)
    for name, usual in MASKS.items():
        text = f"bits that may be used; default {usual:#x}"
        parser.add_argument(f"--{name.replace('_', '-')}", type=_mask, metavar="MASK", help=text)
    workers = _number(1, MOST_WORKERS)
    parser.add_argument("--workers", type=workers, metavar="N", help="processes that read; default 1")


def _number(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from {low} to {high}")
        return int(text)

    return number


def _mask(text: str) -> int:
    try:
        mask = int(text, 0)
    except ValueError:
        mask = 0
    if not 0 < mask <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a mask of bits, such as {MARK_MASK:#x}")
    return mask


def settings(arguments: argparse.Namespace) -> Config:
    """The settings of the configuration file, overridden by those of the command line. Raises ConfigError."""
    config = load(arguments.config)
    ports = protocols.of_options(arguments.protocol, arguments.port, config.ports, config.sections)
    config = replace(
        config.serving(ports),
        lan=tuple(arguments.lan or config.lan),
        wan=tuple(arguments.wan or config.wan),
        queue=config.queue if arguments.queue is None else arguments.queue,
        workers=arguments.workers or config.workers,
        firewall=arguments.firewall or config.firewall,
        marks=_given_marks(arguments, config.marks),
        log_level=getattr(arguments, "log_level", None) or config.log_level,
        log_format=getattr(arguments, "log_format", None) or config.log_format,
    )
    for one in config.lan:
        for other in config.wan:
            if overlap(one, other):
                both = one if one == other else f"an interface that {one} and {other} mean"
                raise ConfigError(
                    f"{both} cannot be --lan and --wan at once; name each side's own interfaces"
                )
    if config.queues[-1] > LAST_QUEUE:
        raise ConfigError(
            f"the queues behind number {config.queue} reach to {config.queues[-1]}, and the last one is "
            f"{LAST_QUEUE}; choose a lower queue"
        )
    return config


def _given_marks(arguments: argparse.Namespace, configured: Marks) -> Marks:
    try:
        return Marks.of(
            arguments.mark_mask or configured.packet, arguments.connmark_mask or configured.connection
        )
    except ValueError as error:
        raise ConfigError(f"the command line: {error}") from error
