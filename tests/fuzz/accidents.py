"""What befalls the router of a played program: faults, connections that end unseen, lies, another address."""

from __future__ import annotations

from nfreaim.core.address import Endpoint, FlowId
from tests.fuzz.ends import ENDS, OUTSIDES
from tests.fuzz.line import Line
from tests.fuzz.program import Kind, Step
from tests.unit.oscar_fixtures import Router


def befall(router: Router, line: Line, step: Step) -> None:
    """Let it happen to *router*, or to the sender of *line*. A step of any other kind does nothing."""
    kernel, firewall = router.kernel, router.firewall
    number = step.numbers[0] if step.numbers else 0
    if step.kind is Kind.FAULT:
        kernel.broken = bool(number & 1)
        firewall.refuse_add = bool(number & 2)
        firewall.refuse_remove = bool(number & 4)
    elif step.kind is Kind.LIFE:
        gone = kernel.flushed if step.way else kernel.dead
        change = gone.discard if step.flag else gone.add
        change(FlowId(*ENDS[step.slot]))
    elif step.kind is Kind.LIE:
        line.lie = number
    elif step.kind is Kind.WINDOW:
        line.window = number
    elif step.kind is Kind.MOVE:
        kernel.outside = OUTSIDES[number % len(OUTSIDES)]
    elif step.kind is Kind.TAKEN:
        firewall.taken.add(Endpoint(kernel.outside, number))
