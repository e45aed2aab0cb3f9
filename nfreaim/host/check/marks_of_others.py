"""Checks of packet marks and connmarks: whether another program uses bits of ours, or writes over them."""

from __future__ import annotations

import os
from typing import Final

from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import run, which
from nfreaim.host.netfilter.foreign_marks import ForeignMarks
from nfreaim.host.pinholes.mark_watch import NATIVE, ROUTES, SAVES, foreign_marks
from nfreaim.marks import Marks

_NAMED: Final = 5  # at most as many rules are named for each key


def marks_of_others(ours: Marks, reinstall: str) -> Checks:
    """Ask for others' rules and routes. *reinstall* installs our rules with the settings of the file."""
    if os.geteuid() != 0:
        return
    programs = [words for words in (ROUTES, NATIVE, *SAVES) if which(words[0]) is not None]
    found = foreign_marks(ours, {words: run(words).stdout for words in programs})
    yield from told(found, reinstall)


def told(found: ForeignMarks, reinstall: str) -> Checks:
    """The answers about what was *found*."""
    for harm in found.harms:
        yield Check("FAIL", f"no pinhole can work: {harm}", harm.remedy)
    harmful = {harm.use for harm in found.harms}
    named: dict[str, int] = {}
    for use, key in found.collisions():
        named[key] = named.get(key, 0) + 1
        if use in harmful or named[key] > _NAMED:
            continue
        mine = found.ours.packet if key == "mark_mask" else found.ours.connection
        shared = (use.packet | use.connection) & mine
        remedy = _remedy(found, key, reinstall)
        yield Check("FAIL", f"{key}: bits {shared:#x} are used by others, too: {use}", remedy)
    if not found.harms and not named:
        yield Check("ok", f"marks: nobody else uses {found.ours}")


def _remedy(found: ForeignMarks, key: str, reinstall: str) -> str:
    masks = found.free()
    if masks is None:
        return f"no five bits are free: have another program use fewer, and set {key}"
    return (
        f"in nfreaim.toml mark_mask = {masks[0]:#x} and connmark_mask = {masks[1]:#x}, which are free; "
        f"then {reinstall}, and restart nfreaim"
    )
