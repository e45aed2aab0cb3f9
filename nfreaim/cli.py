"""The command line: reads arguments and configuration, and runs the part that a sub-command needs.

``nfreaim.exit_status`` has the exit statuses. A sub-command imports the libraries that it alone needs when it
runs: most are for root only, and the daemon starts sooner without them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from nfreaim import __version__, protocols, setting_options
from nfreaim.config import DEFAULT_PATH, Config, load
from nfreaim.config_values import LOG_FORMATS, LOG_LEVELS
from nfreaim.errors import BackendError, ConfigError
from nfreaim.exit_status import Exit, table
from nfreaim.explain import explain_command as explaining
from nfreaim.helpers import HELPERS
from nfreaim.host.record import record_command as recording
from nfreaim.host.report import log_output
from nfreaim.host.rules import script
from nfreaim.host.service_manager import ServiceManager
from nfreaim.replay import command as replay
from nfreaim.show import subcommands as show

AUTO: Final = "take the interfaces that this router's own set-up shows, where none are named"


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
    setting_options.add_to(run)
    run.add_argument("--auto", action="store_true", help=f"{AUTO}; rules stay when the daemon ends")
    run.add_argument("--log-level", choices=LOG_LEVELS, help="what is logged; default info")
    run.add_argument("--log-format", choices=LOG_FORMATS, help="lines on standard error; default text")

    # Only a daemon with several workers starts this one, so it has no help.
    work = commands.add_parser("worker")
    work.set_defaults(command=_work)
    for name in ("link", "page", "number"):
        work.add_argument(name, type=int)
    work.add_argument("--log-level", choices=LOG_LEVELS, required=True)
    work.add_argument("--log-format", choices=LOG_FORMATS, required=True)

    # Only the rules script starts these two.
    helping = commands.add_parser("conntrack-helper")
    helping.set_defaults(command=_conntrack_helper)
    helping.add_argument("action", choices=("add", "remove"))
    loading = commands.add_parser("nft-table")
    loading.set_defaults(command=_nft_table)
    loading.add_argument("action", choices=("install", "show"))
    loading.add_argument("words", nargs=argparse.REMAINDER)
    # Only a daemon whose interfaces nobody named starts this one.
    looking = commands.add_parser("interfaces")
    looking.set_defaults(command=_interfaces)
    looking.add_argument("--config", type=Path)
    asking = commands.add_parser("firewall", help="the packet filter that is configured: auto, legacy or nft")
    asking.set_defaults(command=_firewall)
    asking.add_argument("--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH} if it exists")

    rule = commands.add_parser("rules", help="install, remove or show the static packet filter rules")
    actions = rule.add_subparsers(required=True, metavar="ACTION")
    install = actions.add_parser("install", help="install or replace them")
    install.set_defaults(command=_install_rules)
    setting_options.add_to(install)
    install.add_argument("--auto", action="store_true", help=f"{AUTO}; without any nothing is installed")
    remove = actions.add_parser("remove", help="remove them without a trace")
    remove.set_defaults(command=_remove_rules)
    remove.add_argument("--force", action="store_true", help="also while edited connections wait")
    remove.add_argument("--reset", action="store_true", help="end edited connections first, at both ends")
    remove.add_argument("--config", type=Path, metavar="FILE", help=f"default: {DEFAULT_PATH} if it exists")
    actions.add_parser("show", help="print them; status 3 if incomplete").set_defaults(command=_show_rules)

    checking = commands.add_parser("check", help="look for everything that is needed, with remedies")
    checking.set_defaults(command=_check)
    setting_options.add_to(checking)
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
    setting_options.add_to(validating)
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


def _run(arguments: argparse.Namespace) -> int:
    manager = ServiceManager()
    try:
        return _run_for(arguments, manager)
    except (ConfigError, BackendError) as error:
        manager.status(str(error))
        raise


def _run_for(arguments: argparse.Namespace, manager: ServiceManager) -> int:
    config = setting_options.settings(arguments)

    def serve() -> None:
        named: Config | None = config
        if arguments.auto and not (config.lan or config.wan):
            from nfreaim.host.auto.idling import until_named

            named = until_named(lambda: setting_options.settings(arguments), manager)
        if named is not None:
            _serve_packets(named, arguments, manager, unnamed=named is not config)

    from nfreaim.host.loop import unasked

    with unasked():  # between waiting and serving nobody hears signals
        return _serve(config.log_level, config.log_format, "", serve)


def _serve_packets(
    config: Config, arguments: argparse.Namespace, manager: ServiceManager, unnamed: bool
) -> None:
    def again() -> Config:
        read = setting_options.settings(arguments)
        return read if read.lan or read.wan else replace(read, lan=config.lan, wan=config.wan)

    shown = script.start(["show"])  # it looks at the rules while the libraries are imported
    try:
        from nfreaim.host import daemon
        from nfreaim.host.reload import Reload

        for notice in config.notices:
            logging.getLogger("nfreaim").warning("%s", notice)
        daemon.serve(config, shown, Reload(config, again), manager, arguments.auto, unnamed)
    finally:
        shown.end()


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
    config = setting_options.settings(arguments)
    for notice in config.notices:
        print(f"nfreaim: {notice}", file=sys.stderr)
    if arguments.auto:
        from nfreaim.host.auto.auto_interfaces import Unclear
        from nfreaim.host.auto.served_interfaces import named

        found = named(config, rules_first=False)
        if isinstance(found, Unclear):
            print(f"nfreaim: {found.told(config.file)}", file=sys.stderr)
            return Exit.FINE
        config = found
    for side in ("lan", "wan"):
        if not getattr(config, side):
            raise ConfigError(f"no {side} interface is known: write {side} in {config.file}, or --{side} IF")
    script.install(script.Settings.of(config))
    return Exit.FINE


def _remove_rules(arguments: argparse.Namespace) -> int:
    named = arguments.config
    if arguments.reset or named:  # without either the rules can be removed whatever the file says
        config = load(named)
    if arguments.reset:
        from nfreaim.host import removal

        again = ["rules", "remove", "--reset", *(["--config", str(named)] if named else [])]
        removal.as_the_daemons_user(config, again)
        return _serve(config.log_level, config.log_format, "", lambda: removal.remove(config))
    script.remove(arguments.force)
    return Exit.FINE


def _show_rules(_: argparse.Namespace) -> int:
    shown = script.run(["show"])
    sys.stdout.write(shown.stdout)
    sys.stderr.write(shown.stderr)
    return shown.returncode


def _check(arguments: argparse.Namespace) -> int:
    from nfreaim.host.auto.served_interfaces import found_or_told
    from nfreaim.host.check import doctor_command

    given = arguments
    config, unnamed = found_or_told(setting_options.settings(arguments))
    asked = {"as_json": given.json, "fix": given.fix, "self_test": given.self_test}
    return doctor_command.main(config, **asked, unnamed=unnamed)


def _reload(arguments: argparse.Namespace) -> int:
    from nfreaim.host import reload_command

    return reload_command.main(load(arguments.config).status_socket)


def _validate(arguments: argparse.Namespace) -> int:
    """Print what is amiss with the settings. `make install` asks before it writes them."""
    config = setting_options.settings(arguments)
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


def _nft_table(arguments: argparse.Namespace) -> int:
    from nfreaim.host.rules import nft_command

    return nft_command.main(arguments.action, arguments.words)


def _interfaces(arguments: argparse.Namespace) -> int:
    """Print which interfaces this router's set-up shows."""
    from nfreaim.host.auto.served_interfaces import as_document

    print(json.dumps(as_document(load(arguments.config))))
    return Exit.FINE


def _firewall(arguments: argparse.Namespace) -> int:
    """Print the setting. The rules script asks for it, so that rules and daemon agree."""
    print(load(arguments.config).firewall)
    return Exit.FINE
