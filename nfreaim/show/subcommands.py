"""The commands that show an operator something: their options. Each is imported when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from nfreaim.config import DEFAULT_PATH, load
from nfreaim.errors import ConfigError

_USUAL_INTERVAL_S: Final = 1.0


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add status, top, metrics, history and report."""
    telling = _command(commands, "status", "sessions, open pinholes, queues and counters", _status)
    telling.add_argument("--json", action="store_true", help="everything the daemon tells, as JSON")

    live = _command(commands, "top", "the status as a live screen", _top)
    live.add_argument("--interval", type=_seconds, default=_USUAL_INTERVAL_S, metavar="S", help="default 1")

    counting = _command(commands, "metrics", "print the status as metrics for Prometheus", _metrics)
    ways = counting.add_mutually_exclusive_group()
    ways.add_argument(
        "--output", type=Path, metavar="FILE", help="write them there, mode 0644; default: print"
    )
    ways.add_argument("--serve", action="store_true", help="answer scrapes at metrics_listen")

    past = _command(commands, "history", "the pinholes of the last time, by day and host", _history)
    past.add_argument("--host", metavar="ADDRESS", help="only of this inside host; default: of all")
    past.add_argument("--day", metavar="DAY", help="YYYY-MM-DD, today or yesterday; default: all")
    past.add_argument("--json", action="store_true", help="a line of JSON for each pinhole")

    page = _command(commands, "report", "write a page for somebody who helps", _report)
    page.add_argument("--html", type=Path, required=True, metavar="FILE", help="the page")
    page.add_argument("--mask", action="store_true", help="replace addresses by names")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str, run: Any
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what)
    parser.set_defaults(command=run)
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH} if it exists")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: must be seconds from 0.1 to 3600")
    return seconds


def _status(arguments: argparse.Namespace) -> int:
    from nfreaim.show import status_text

    return status_text.main(load(arguments.config).status_socket, arguments.json)


def _top(arguments: argparse.Namespace) -> int:
    from nfreaim.show import top

    return top.main(load(arguments.config).status_socket, arguments.interval)


def _metrics(arguments: argparse.Namespace) -> int:
    config = load(arguments.config)
    if arguments.serve and config.metrics_listen is None:
        raise ConfigError(
            f'{config.file}: metrics_listen is not set; write for example metrics_listen = "127.0.0.1:9919"'
        )
    from nfreaim.show import exposition

    if config.metrics_listen is not None and arguments.serve:
        return exposition.serve(config.status_socket, config.metrics_listen)
    return exposition.write(config.status_socket, arguments.output)


def _history(arguments: argparse.Namespace) -> int:
    from nfreaim.host.report.history_file import DIRECTORY
    from nfreaim.show import history

    directory = load(arguments.config).history_dir or DIRECTORY
    return history.main(directory, arguments.host, arguments.day, arguments.json)


def _report(arguments: argparse.Namespace) -> int:
    from nfreaim.show import report_page

    return report_page.main(load(arguments.config), arguments.html, arguments.mask)
