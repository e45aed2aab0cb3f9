"""The command line: reads arguments and configuration, and runs the part that a sub-command needs.

Exit status: 0 done; 1 the machine refused; 2 the command or the configuration is wrong. A sub-command imports
the libraries that it alone needs when it runs: most are for root only, and the daemon starts sooner without
them.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nfreaim import __version__, protocols
from nfreaim.config import DEFAULT_PATH, LAST_QUEUE, LOG_LEVELS, MOST_WORKERS, Config, load
from nfreaim.errors import BackendError, ConfigError
from nfreaim.helpers import HELPERS
from nfreaim.host.report.journal import QuietFormatter
from nfreaim.host.rules import script
from nfreaim.old_spellings import DEFAULT_QUEUE
from nfreaim.replay import command as replay


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named in *argv* (default: the process's own arguments); returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except ConfigError as error:
        print(f"nfreaim: {error}", file=sys.stderr)
        return 2
    except BackendError as error:
        print(f"nfreaim: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nfreaim", description="Lets clients of messengers connect through this translating router."
    )
    parser.add_argument("--version", action="version", version=f"nfreaim {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="serve the queue in the foreground until SIGTERM or Ctrl-C")
    run.set_defaults(command=_run)
    _add_settings(run)
    run.add_argument("--log-level", choices=LOG_LEVELS)

    # Only a daemon with several workers starts this one, so it has no help.
    work = commands.add_parser("worker")
    work.set_defaults(command=_work)
    for name in ("link", "page", "number"):
        work.add_argument(name, type=int)
    work.add_argument("--log-level", choices=LOG_LEVELS, required=True)

    rule = commands.add_parser("rules", help="install, remove or show the static packet filter rules")
    actions = rule.add_subparsers(required=True, metavar="ACTION")
    install = actions.add_parser("install", help="install or replace them")
    install.set_defaults(command=_install_rules)
    _add_settings(install)
    remove = actions.add_parser("remove", help="remove them without a trace")
    remove.set_defaults(command=_remove_rules)
    remove.add_argument("--force", action="store_true", help="also while edited connections wait")
    actions.add_parser("show", help="print them; status 3 if incomplete").set_defaults(command=_show_rules)

    checking = commands.add_parser("check", help="look for everything that is needed, with remedies")
    checking.set_defaults(command=_check)
    _add_settings(checking)

    naming = commands.add_parser("protocols", help="list the protocols and their servers' ports")
    naming.set_defaults(command=_protocols)
    naming.add_argument("--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH} if it exists")
    naming.add_argument("name", nargs="*", metavar="NAME", help="only these")
    naming.add_argument("--default", action="store_true", help="only those that the configuration names")

    telling = commands.add_parser("status", help="list open pinholes and the queue")
    telling.set_defaults(command=_status)
    telling.add_argument("--config", type=Path, metavar="FILE", help="where status_socket is set")
    telling.add_argument("--json", action="store_true", help="everything the daemon tells, as JSON")

    replaying = commands.add_parser("replay", help="what would be changed in a capture; needs no root")
    replaying.set_defaults(command=replay.main)
    replay.add_arguments(replaying)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH} if it exists")
    parser.add_argument("--lan", action="append", metavar="IF", help="interface towards inside clients")
    parser.add_argument("--wan", action="append", metavar="IF", help="interface towards the Internet")
    protocols.add_options(parser, _number(1, 65535))
    queue = _number(0, 65535)
    number = f"netfilter queue number; default {DEFAULT_QUEUE}"
    parser.add_argument("--queue", type=queue, metavar="N", help=number)
    workers = _number(1, MOST_WORKERS)
    parser.add_argument("--workers", type=workers, metavar="N", help="processes that read; default 1")


def _number(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from {low} to {high}")
        return int(text)

    return number


def _settings(arguments: argparse.Namespace) -> Config:
    """The settings of the configuration file, overridden by those of the command line."""
    config = load(arguments.config)
    ports = protocols.of_options(arguments.protocol, arguments.port, config.ports, config.sections)
    config = replace(
        config.serving(ports),
        lan=tuple(arguments.lan or config.lan),
        wan=tuple(arguments.wan or config.wan),
        queue=config.queue if arguments.queue is None else arguments.queue,
        workers=arguments.workers or config.workers,
        log_level=getattr(arguments, "log_level", None) or config.log_level,
    )
    if config.reading[-1] > LAST_QUEUE:
        raise ConfigError(
            f"{config.workers} workers take as many queues behind number {config.queue}, and the last one is "
            f"{LAST_QUEUE}; choose a lower queue"
        )
    return config


def _run(arguments: argparse.Namespace) -> int:
    config = _settings(arguments)

    def serve() -> None:
        shown = script.start(["show"])  # it looks at the rules while the libraries are imported
        try:
            from nfreaim.host import daemon

            for notice in config.notices:
                logging.getLogger("nfreaim").warning("%s", notice)
            daemon.serve(config, shown)
        finally:
            shown.end()

    return _serve(config.log_level, "", serve)


def _work(arguments: argparse.Namespace) -> int:
    def serve() -> None:
        from nfreaim.host.workers import worker

        worker.serve(arguments.link, arguments.page, arguments.number)

    return _serve(arguments.log_level, f"worker {arguments.number}: ", serve)


def _serve(log_level: str, name: str, serve: Callable[[], None]) -> int:
    """Run *serve* as a process that serves queues; *name* begins its log lines."""
    os.umask(0o077)
    # Under systemd the journal stamps each line.
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(QuietFormatter(f"{stamp}%(levelname)s {name}%(message)s"))
    # The libraries log warnings only, because their debug lines would quote packets.
    level = logging.getLevelNamesMapping()[log_level.upper()]
    logging.basicConfig(level=max(logging.WARNING, level), handlers=[handler])
    logging.getLogger("nfreaim").setLevel(level)
    # scapy would keep pickles in the home directory, and load them at the next start without a check.
    os.environ.update(XDG_CACHE_HOME=os.devnull, XDG_CONFIG_HOME=os.devnull, XDG_DATA_HOME=os.devnull)
    try:
        from nfreaim.host.slim_imports import stub_scapy_databases

        stub_scapy_databases()
        serve()
    except ImportError as error:
        raise BackendError(f"{error}; remedy: make venv (or make install) builds what is needed") from error
    except (ConfigError, BackendError):
        raise
    except Exception:
        logging.getLogger("nfreaim").critical("ended by an error of its own", exc_info=True)
        return 1
    return 0


def _install_rules(arguments: argparse.Namespace) -> int:
    config = _settings(arguments)
    for notice in config.notices:
        print(f"nfreaim: {notice}", file=sys.stderr)
    script.install(script.Settings.of(config))
    return 0


def _remove_rules(arguments: argparse.Namespace) -> int:
    script.remove(arguments.force)
    return 0


def _show_rules(_: argparse.Namespace) -> int:
    shown = script.run(["show"])
    sys.stdout.write(shown.stdout)
    sys.stderr.write(shown.stderr)
    return shown.returncode


def _check(arguments: argparse.Namespace) -> int:
    from nfreaim.host.check import doctor
    from nfreaim.host.check.answer import Check

    config = _settings(arguments)
    for notice in config.notices:
        print(Check("warn", notice))
    return doctor.main(script.Settings.of(config))


def _protocols(arguments: argparse.Namespace) -> int:
    """Print the protocols. `make install-rules` reads the ports here, so that rules and daemon agree."""
    config = load(arguments.config)
    if arguments.default:
        found = protocols.written(config.ports)
    else:  # each by itself, because protocols that are only listed may share a port
        named = arguments.name or [spec.name for spec in HELPERS]
        found = [
            line for name in named for line in protocols.written(protocols.chosen([name], config.sections))
        ]
    print("\n".join(found))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from nfreaim.host.report import status

    return status.main(load(arguments.config).status_socket, arguments.json)
