"""The command line: reads arguments and configuration, and runs the part that a sub-command needs.

``nfreaim.exit_status`` has the exit statuses. A sub-command imports the libraries that it alone needs when it
runs: most are for root only, and the daemon starts sooner without them.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nfreaim import __version__, interface_options, protocols
from nfreaim.config import DEFAULT_PATH, LAST_QUEUE, MASKS, MOST_WORKERS, Config, load
from nfreaim.config_values import LOG_FORMATS, LOG_LEVELS
from nfreaim.errors import BackendError, ConfigError
from nfreaim.exit_status import Exit, table
from nfreaim.explain import explain_command as explaining
from nfreaim.helpers import HELPERS
from nfreaim.host.netfilter.interfaces import overlap
from nfreaim.host.record import record_command as recording
from nfreaim.host.report import log_output
from nfreaim.host.rules import script
from nfreaim.host.service_manager import ServiceManager
from nfreaim.marks import MARK_MASK, MOST, Marks
from nfreaim.old_spellings import DEFAULT_QUEUE
from nfreaim.replay import command as replay
from nfreaim.show import subcommands as show


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named in *argv* (default: the process's own arguments); returns the exit status."""
    arguments = command_line().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except (ConfigError, BackendError) as error:
        print(f"nfreaim: {error}", file=sys.stderr)
        return Exit.of(error)


def command_line() -> argparse.ArgumentParser:
    """The parser of all sub-commands; scripts/manual_pages.py makes nfreaim(8) of it."""
    parser = argparse.ArgumentParser(
        prog="nfreaim",
        description="Lets clients of messengers connect through this translating router.",
        epilog=f"exit status:\n{table()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nfreaim {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="serve the queue in the foreground until SIGTERM or Ctrl-C")
    run.set_defaults(command=_run)
    _add_settings(run)
    run.add_argument("--log-level", choices=LOG_LEVELS, help="what is logged; default info")
    run.add_argument("--log-format", choices=LOG_FORMATS, help="lines on standard error; default text")

    # Only a daemon with several workers starts this one, so it has no help.
    work = commands.add_parser("worker")
    work.set_defaults(command=_work)
    for name in ("link", "page", "number"):
        work.add_argument(name, type=int)
    work.add_argument("--log-level", choices=LOG_LEVELS, required=True)
    work.add_argument("--log-format", choices=LOG_FORMATS, required=True)

    # Only the rules script starts this one.
    helping = commands.add_parser("conntrack-helper")
    helping.set_defaults(command=_conntrack_helper)
    helping.add_argument("action", choices=("add", "remove"))

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
    checking.add_argument("--json", action="store_true", help="one JSON document: docs/check.md")
    checking.add_argument("--fix", action="store_true", help="install our rules and load modules before")
    testing = "let an offer go through the running daemon, with a client and a server of its own"
    checking.add_argument("--self-test", action="store_true", help=testing)

    reloading = commands.add_parser("reload", help="have the daemon read its configuration again")
    reloading.set_defaults(command=_reload)
    reloading.add_argument(
        "--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH} if it exists"
    )

    validating = commands.add_parser("validate", help="look whether settings can be used, and change nothing")
    validating.set_defaults(command=_validate)
    _add_settings(validating)
    validating.add_argument("--absent", action="store_true", help="interfaces may come later")

    naming = commands.add_parser("protocols", help="list the protocols and their servers' ports")
    naming.set_defaults(command=_protocols)
    naming.add_argument("--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH} if it exists")
    naming.add_argument("name", nargs="*", metavar="NAME", help="only these")
    naming.add_argument("--default", action="store_true", help="only those that the configuration names")

    marking = commands.add_parser("marks", help="the masks of packet mark and connmark that are configured")
    marking.set_defaults(command=_marks)
    marking.add_argument("--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH} if it exists")

    show.add_to(commands)
    replaying = commands.add_parser("replay", help="what would be changed in a capture; needs no root")
    replaying.set_defaults(command=replay.main)
    replay.add_arguments(replaying)

    telling = commands.add_parser(
        "explain", help="tell what became of each transfer in a capture; needs no root"
    )
    telling.set_defaults(command=explaining.main)
    explaining.add_arguments(telling)

    taking = commands.add_parser("record", help="take a capture without secrets for explain; needs root")
    taking.set_defaults(command=recording.main)
    recording.add_arguments(taking)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH} if it exists")
    interface_options.add_to(parser)
    protocols.add_options(parser, _number(1, 65535))
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


def _run(arguments: argparse.Namespace) -> int:
    manager = ServiceManager()
    try:
        return _run_for(arguments, manager)
    except (ConfigError, BackendError) as error:
        manager.status(str(error))
        raise


def _run_for(arguments: argparse.Namespace, manager: ServiceManager) -> int:
    config = _settings(arguments)

    def serve() -> None:
        shown = script.start(["show"])  # it looks at the rules while the libraries are imported
        try:
            from nfreaim.host import daemon
            from nfreaim.host.reload import Reload

            for notice in config.notices:
                logging.getLogger("nfreaim").warning("%s", notice)
            daemon.serve(config, shown, Reload(config, lambda: _settings(arguments)), manager)
        finally:
            shown.end()

    return _serve(config.log_level, config.log_format, "", serve)


def _work(arguments: argparse.Namespace) -> int:
    def serve() -> None:
        from nfreaim.host.workers import worker

        worker.serve(arguments.link, arguments.page, arguments.number)

    return _serve(arguments.log_level, arguments.log_format, f"worker {arguments.number}: ", serve)


def _serve(log_level: str, log_format: str, name: str, serve: Callable[[], None]) -> int:
    """Run *serve* as a process that serves queues; *name* begins its log lines."""
    os.umask(0o077)
    handler = log_output.handler(log_format, name)
    # The libraries log warnings only, because their debug lines would quote packets.
    level = logging.getLevelNamesMapping()[log_level.upper()]
    from nfreaim.host.loop import clock
    from nfreaim.host.report.log_limit import LogLimit

    limit = LogLimit(clock)
    handler.addFilter(limit)
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
        return Exit.TROUBLED
    finally:
        limit.flush()
    return Exit.FINE


def _install_rules(arguments: argparse.Namespace) -> int:
    config = _settings(arguments)
    for notice in config.notices:
        print(f"nfreaim: {notice}", file=sys.stderr)
    for side in ("lan", "wan"):
        if not getattr(config, side):
            raise ConfigError(f"no {side} interface is known: write {side} in {config.file}, or --{side} IF")
    script.install(script.Settings.of(config))
    return Exit.FINE


def _remove_rules(arguments: argparse.Namespace) -> int:
    script.remove(arguments.force)
    return Exit.FINE


def _show_rules(_: argparse.Namespace) -> int:
    shown = script.run(["show"])
    sys.stdout.write(shown.stdout)
    sys.stderr.write(shown.stderr)
    return shown.returncode


def _check(arguments: argparse.Namespace) -> int:
    from nfreaim.host.check import doctor_command

    config, given = _settings(arguments), arguments
    return doctor_command.main(config, as_json=given.json, fix=given.fix, self_test=given.self_test)


def _reload(arguments: argparse.Namespace) -> int:
    from nfreaim.host import reload

    for key in reload.ask(load(arguments.config).status_socket):
        print(f"{key}: in force only after a restart (systemctl restart {reload.unit_of(key)})")
    return Exit.FINE


def _validate(arguments: argparse.Namespace) -> int:
    """Print what is amiss with the settings. `make install` asks before it writes them."""
    config = _settings(arguments)
    for notice in config.notices:
        print(f"nfreaim: {notice}", file=sys.stderr)
    there = [name for _, name in socket.if_nameindex() if name != "lo"]
    for option, names in (("--lan", config.lan), ("--wan", config.wan)):
        for name in names:
            if not (arguments.absent or name.endswith("+") or name in there):
                raise ConfigError(
                    f"{option} {name}: there is no such interface; there are {', '.join(there)}"
                )
    return Exit.FINE


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
    return Exit.FINE


def _marks(arguments: argparse.Namespace) -> int:
    """Print the two masks. The rules script asks for them, so that rules and daemon agree."""
    marks = load(arguments.config).marks
    print(f"{marks.packet:#x} {marks.connection:#x}")
    return Exit.FINE


def _conntrack_helper(arguments: argparse.Namespace) -> int:
    """Declare the helper that keeps connections out of flowtables, or take it away."""
    from nfreaim.host.netfilter import conntrack_helper

    if arguments.action == "add":
        conntrack_helper.add()
        return Exit.FINE
    return Exit.FINE if conntrack_helper.remove() else Exit.TROUBLED
