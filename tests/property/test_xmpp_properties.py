"""XMPP's helper on random sessions: any way to write an offer, any cuts, any point where a process ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nfreaim.core.address import Endpoint
from nfreaim.helpers.xmpp.xmpp_helper import XmppHelper
from tests.property.profile import bounded
from tests.unit.helper_session import C2S, S2C
from tests.unit.xmpp_session import INSIDE, NEIGHBOUR, OUTSIDE, ScriptedNat, Session
from tests.xmpp.texts import MESSAGE, candidate, jingle, query

spaces = st.sampled_from([b" ", b"\n", b"\t ", b"\r\n"])
maybe = st.sampled_from([b"", b" ", b"\n"])
hosts = st.sampled_from([INSIDE, OUTSIDE, NEIGHBOUR, "192.168.122.1", "alice.lan", "fe80::1", "&#49;0.0.0.5"])
ports = st.sampled_from([1, 22, 1023, 1024, 5500, 43817, 65535])
MOVED = {5500: 40001, 43817: 1025}
OTHERS = [
    MESSAGE,
    b" ",
    b"<presence/>",
    b"<iq type='get' id='x'><ping xmlns='urn:xmpp:ping'/></iq>",
    jingle(),
]


@st.composite
def elements(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A streamhost in any spelling, and as it leaves from its own client."""
    host, port = draw(hosts), draw(ports)
    values = [
        (b"jid", b"a'b\"c"[:1]),
        (b"host", host.encode()),
        (b"port", b"%d" % port),
        (b"x", b"10.0.0.5>"),
    ]
    after = dict(values)
    if host == INSIDE:
        after |= {b"host": OUTSIDE.encode(), b"port": b"%d" % MOVED.get(port, port)}
    said, leaves = b"<streamhost", b"<streamhost"
    for name, value in draw(st.permutations(values)):
        quote = draw(st.sampled_from([b"'", b'"']))
        before, equals = draw(spaces), draw(maybe) + b"=" + draw(maybe)
        said += before + name + equals + quote + value + quote
        leaves += before + name + equals + quote + after[name] + quote
    end = draw(maybe) + draw(st.sampled_from([b"/>", b"></streamhost>"]))
    return said + end, leaves + end


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[tuple[bytes, bytes]], list[int]]:
    """What a client says and how it leaves, stanza by stanza, and where the whole is cut."""
    stanzas: list[tuple[bytes, bytes]] = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            inner = draw(st.lists(elements(), min_size=1, max_size=4))
            stanzas.append((query(*(said for said, _ in inner)), query(*(leaves for _, leaves in inner))))
        else:
            other = draw(st.sampled_from(OTHERS))
            stanzas.append((other, other.replace(b"'10.0.0.5'", b"'203.0.113.1'")))
    size = sum(len(said) for said, _ in stanzas)
    return stanzas, sorted(draw(st.sets(st.integers(1, size - 1), max_size=8)) if size > 1 else ())


@bounded(60)
@given(conversations())
def test_own_endpoints_leave_as_the_routers_and_nothing_else_changes(
    made: tuple[list[tuple[bytes, bytes]], list[int]],
) -> None:
    stanzas, cuts = made
    session = Session(ScriptedNat(moved=MOVED)).signed_on()
    left = session.say(b"".join(said for said, _ in stanzas), *cuts)
    assert left == b"".join(leaves for _, leaves in stanzas)
    assert {expectation.inside.address for expectation in session.nat.expected} <= {INSIDE}


@bounded(40)
@given(conversations(), st.integers(0, 2000))
def test_next_process_reads_on_from_any_byte(
    made: tuple[list[tuple[bytes, bytes]], list[int]], ended: int
) -> None:
    """The stanza in which the first one ended stays, unless its edits were made; others are as ever."""
    stanzas, _ = made
    whole = b"".join(said for said, _ in stanzas)
    ended %= len(whole)
    session = Session(ScriptedNat(moved=MOVED)).signed_on()
    left = session.say(whole[:ended]) if ended else b""
    positions = session.helper.positions()
    session.helper = XmppHelper(False)
    session.helper.resume(positions, (len(session.seen[C2S]), len(session.seen[S2C])))
    left += session.say(whole[ended:])
    stays, edited, at = b"", b"", 0
    for said, leaves in stanzas:
        within = at < ended < at + len(said)
        stays += said if within else leaves
        edited += leaves
        at += len(said)
    assert left in (stays, edited)


@bounded(30)
@given(hosts, ports, st.sets(st.integers(1, 300), max_size=6))
def test_what_arrives_is_mapped_back_where_it_names_a_pinhole(host: str, port: int, cuts: set[int]) -> None:
    told = b"from='carol@example.test/pc' to='alice@example.test/pc'"
    said = jingle(candidate(host, port), ends=told)
    nat = ScriptedNat(pinholes={Endpoint(OUTSIDE, 5500): Endpoint(NEIGHBOUR, 6000)})
    session = Session(nat).signed_on()
    ours = (host, port) == (OUTSIDE, 5500)
    expected = jingle(candidate(NEIGHBOUR, 6000), ends=told) if ours else said
    assert session.hear(said, *sorted(cut for cut in cuts if cut < len(said))) == expected
    assert nat.expected == []
