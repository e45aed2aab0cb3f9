"""Sessions: which inside hosts are signed on, for pinholes that may outlive their flow for as long only."""

from __future__ import annotations

from collections.abc import Set

from nfreaim.core.address import FlowId
from nfreaim.core.firewall.index import AgreementKey

Session = tuple[str, str]
"""A protocol, and the address of an inside host that is signed on with it."""


class Sessions:
    """The flows that are sessions; there are no more of them than flows in the engines' tables."""

    def __init__(self) -> None:
        self._of: dict[FlowId, Session] = {}
        self._flows: dict[Session, set[FlowId]] = {}
        self._depending: dict[AgreementKey, tuple[Session, float]] = {}

    def add(self, flow: FlowId, session: Session) -> None:
        """*flow* is a session."""
        self._of[flow] = session
        self._flows.setdefault(session, set()).add(flow)

    def any(self, session: Session) -> bool:
        """Whether there is such a session."""
        return session in self._flows

    def depend(self, agreement: AgreementKey, session: Session, until: float) -> None:
        """*agreement*, whose own flow is over, depends on a session until its end at *until*."""
        self._depending[agreement] = session, until

    def over(self, flow: FlowId) -> list[AgreementKey]:
        """*flow* is over: the agreements that go with the last session of its host."""
        session = self._of.pop(flow, None)
        if session is None:
            return []
        flows = self._flows[session]
        flows.discard(flow)
        if flows:
            return []
        del self._flows[session]
        ended = [key for key, (needed, _) in self._depending.items() if needed == session]
        for key in ended:
            del self._depending[key]
        return ended

    def needed(self) -> Set[FlowId]:
        """The sessions that agreements depend on."""
        sessions = {session for session, _ in self._depending.values()}
        return {flow for session in sessions for flow in self._flows.get(session, ())}

    def expire(self, now: float) -> None:
        """Forget agreements that are past their end."""
        if self._depending:
            self._depending = {key: found for key, found in self._depending.items() if found[1] > now}
