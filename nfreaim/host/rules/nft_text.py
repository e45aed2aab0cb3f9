"""The text of our nftables table: rules/nfreaim.nft with the definitions that it needs, made of settings.

The file is the only definition of the static rules of this back end. What depends on options beyond numbers
and lists is added here: the kernel's helpers, what keeps connections out of flowtables, and the settings
themselves, which stand as comments in a chain that no packet gets to, so that they are read back with the
rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from nfreaim.config import GATE_QUEUE, NEWCOMERS, reading_queues
from nfreaim.host.netfilter.compat_queue import QueueRule
from nfreaim.host.netfilter.names import (
    COMMENT,
    FLOWTABLE_HELPER,
    LAN_SET,
    NFT_TABLE,
    OWN_PRIORITY,
    SERVER_SET,
    TEST_LAN,
    TEST_WAN,
    VERIFY_SET,
)
from nfreaim.host.rules.rule_settings import Settings
from nfreaim.kernel_helpers import Assignment
from nfreaim.marks import MOST

SETTINGS_CHAIN: Final = "settings"
FLOWTABLE_CHAIN: Final = "flowtables"
HELPER_CHAIN: Final = "kernel_helpers"

_COMMENT_LENGTH: Final = 100  # the library takes 128 bytes
_QUEUE: Final = re.compile(r"(counter )?queue num \$\w+( bypass)?;?")
_CHAIN: Final = re.compile(r"\s*chain (\w+) \{(.*)$")
_ADDED: Final = re.compile(rf"add rule ip {NFT_TABLE} (\w+) ")


def text(
    source: str, settings: Settings, helpers: Iterable[Assignment], guarded: bool, native_queue: bool
) -> str:
    """The table as the library reads it; its chains are empty before.

    source        the text of rules/nfreaim.nft
    helpers       those of the kernel that it has
    guarded       connections that have to be read get the helper that keeps them out of flowtables
    native_queue  the kernel has nft's expression; otherwise the chains of ``queue_rules`` pass, and for
                  skewed flows drop, until these rules are in their place
    """
    body = "\n".join(_chosen(source.splitlines(), bool(settings.locals)))
    if not native_queue:
        body = _QUEUE.sub(lambda found: "accept;" if found[2] else "drop;", body)
    lines = [*_definitions(settings), body, *_helpers(list(helpers)), *_settings(settings)]
    if guarded:
        lines += _guard()
    return "\n".join(lines) + "\n"


def queue_rules(settings: Settings) -> list[QueueRule]:
    """The rules of the chains that queue."""
    reading = reading_queues(settings.queue, settings.workers)
    first, count = reading[0], len(reading)
    return [
        QueueRule("queue_known", first, count),
        QueueRule("meet", first + NEWCOMERS, count),
        QueueRule("read_gate", settings.queue + GATE_QUEUE),
        QueueRule("queue_skewed", first, count, bypass=False),
    ]


def rules_of(table: str) -> dict[str, int]:
    """The number of rules of each chain in *table*, a text as ``text`` makes it or as nft lists it."""
    counts: dict[str, int] = {}
    for chain, rule in rules_in(table):
        counts[chain] = counts.get(chain, 0) + bool(rule)
    return counts


def rules_in(table: str) -> Iterator[tuple[str, str]]:
    """Chain and rule of each rule in *table*, the same; each chain comes once with "" as well."""
    chain = ""
    for line in table.splitlines():
        rule = line.strip()
        if found := _CHAIN.match(line):
            chain, rule = found[1], found[2].strip()
            yield chain, ""
            if rule.endswith("}"):
                rule = rule[:-1].strip().rstrip(";")
                if rule:
                    yield chain, rule
                chain = ""
                continue
        if added := _ADDED.match(rule):
            yield added[1], rule[added.end() :]
        elif chain and rule == "}":
            chain = ""
        elif chain and rule and not rule.startswith(("#", "type ")):
            yield chain, rule


def settings_in(table: str) -> Settings | None:
    """The settings that *table* was made of, as nft lists it; None if they are not there."""
    comments = [
        found[1]
        for chain, rule in rules_in(table)
        if chain == SETTINGS_CHAIN and (found := re.search(r'comment "(.*)"$', rule))
    ]
    try:
        return Settings.of_words("".join(comments).split("|")[:-1])
    except (ValueError, KeyError):
        return None


def _definitions(settings: Settings) -> Iterator[str]:
    marks = settings.marks
    reading = reading_queues(settings.queue, settings.workers)
    numbers = {
        "verified": marks.verified,
        "incomplete": marks.incomplete,
        "pinhole": marks.pinhole,
        "unverified": marks.unverified,
        "new": marks.incomplete | marks.pinhole,
        "gated": marks.pinhole | marks.unverified,
        "through": marks.pinhole | marks.forwarded,
        "no_marks": MOST ^ marks.connection,
        "no_incomplete": MOST ^ marks.incomplete,
        "no_unverified": MOST ^ marks.unverified,
        "no_verified": MOST ^ marks.verified,
        "own": OWN_PRIORITY,
    }
    yield from (f"define {name} = {number:#x}" for name, number in numbers.items())
    # The interfaces of a self-test exist only while that runs, so nothing has to be changed for it.
    yield f"define lan = {{ {', '.join(_interfaces((*settings.lan, TEST_LAN)))} }}"
    yield f"define wan = {{ {', '.join(_interfaces((*settings.wan, TEST_WAN)))} }}"
    ports = [
        f'{port} comment "{COMMENT} {protocol}"' for protocol, all_ in settings.ports.items() for port in all_
    ]
    yield f"define servers = {{ {', '.join(ports)} }}"
    if settings.locals:
        yield f"define users = {{ {', '.join(map(str, settings.locals))} }}"
    yield f"define known = {_range(reading[0], reading[-1])}"
    yield f"define newcomers = {_range(reading[0] + NEWCOMERS, reading[-1] + NEWCOMERS)}"
    yield f"define gate = {settings.queue + GATE_QUEUE}"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _interfaces(names: Iterable[str]) -> list[str]:
    """Names as nft has them; one that a pattern means is left out, because nft refuses both."""
    beginnings = [name[:-1] for name in names if name.endswith("+")]
    kept = []
    for name in names:
        bare = name.removesuffix("+")
        wider = (other for other in beginnings if bare.startswith(other))
        if not any(other != bare or not name.endswith("+") for other in wider):
            kept.append(f'"{bare}*"' if name.endswith("+") else f'"{name}"')
    return kept


def _chosen(lines: Iterable[str], users: bool) -> Iterator[str]:
    """The lines but those that are for local clients where there are none."""
    inside = False
    for line in lines:
        mark = line.strip()
        if mark == "# with users":
            inside = True
        elif mark == "# end":
            inside = False
        elif users or not inside:
            yield line


def object_name(helper: Assignment) -> str:
    """The name of the object for a helper of the kernel; its letters are those that nft takes."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{helper.name}-{helper.transport}")


def helper_object(helper: Assignment, table: str = NFT_TABLE) -> str:
    """The declaration of the object. ``try`` it before: one that the kernel lacks makes it refuse all."""
    return (
        f"table ip {table} {{ ct helper {object_name(helper)} "
        f'{{ type "{helper.name}" protocol {helper.transport}; l3proto ip; }}\n}}'
    )


def _helpers(helpers: Sequence[Assignment]) -> Iterator[str]:
    if not helpers:
        return
    yield f"add rule ip {NFT_TABLE} {HELPER_CHAIN} ip daddr @{LAN_SET} return"
    yield f"add rule ip {NFT_TABLE} {HELPER_CHAIN} fib daddr type local return"
    yield f"add rule ip {NFT_TABLE} {HELPER_CHAIN} ip daddr . tcp dport . ip saddr @{SERVER_SET} return"
    declared = set()
    for helper in helpers:
        if object_name(helper) not in declared:
            declared.add(object_name(helper))
            yield helper_object(helper)
        server = f"ip daddr {helper.server} " if helper.server else ""
        yield (
            f"add rule ip {NFT_TABLE} {HELPER_CHAIN} {server}{helper.transport} dport "
            f'{{ {", ".join(map(str, helper.ports))} }} counter ct helper set "{object_name(helper)}"'
        )


def _guard() -> Iterator[str]:
    yield (
        f"table ip {NFT_TABLE} {{ ct helper {FLOWTABLE_HELPER} "
        f'{{ type "{FLOWTABLE_HELPER}" protocol tcp; l3proto ip; }}\n}}'
    )
    assign = f'ct helper set "{FLOWTABLE_HELPER}"'
    for match in (
        "iifname @lan tcp dport @servers",
        "iifname @wan tcp dport @servers",
        f"ip daddr . tcp dport . ip saddr @{SERVER_SET}",
        f"iifname @wan ip daddr . tcp dport @{VERIFY_SET}",
    ):
        yield f"add rule ip {NFT_TABLE} {FLOWTABLE_CHAIN} {match} counter {assign}"


def _settings(settings: Settings) -> Iterator[str]:
    words = "".join(f"{word}|" for word in settings.all_words())
    for at in range(0, len(words), _COMMENT_LENGTH):
        part = words[at : at + _COMMENT_LENGTH]
        yield f'add rule ip {NFT_TABLE} {SETTINGS_CHAIN} return comment "{part}"'
