"""The synthetic cases of ICQ: published endpoints, reverse connections, ports in type-2 messages.

Golden packets with other values at the offsets that are written beside them there.
"""

from pcaps.scenes import ALICE, AMY, ROUTER_A, Scene
from pcaps.wire import AOL_INFO, EXTRA, GOLDEN
from tests.oscar import icq
from tests.oscar.fields import announcing
from tests.oscar.flap import CLIENT
from tests.oscar.snac import SET_STATUS, snac_frame
from tests.oscar.values import ip4, put

BOB = "203.0.113.20"


def status(host: str, port: int) -> bytes:
    """SNAC(01,1E) with a direct-connection block."""
    return announcing(icq.STATUS, CLIENT, host, port)


def arrival(host: str, port: int, external: str) -> bytes:
    """SNAC(03,0B) with that block and TLV 0x000A."""
    return put(icq.ARRIVAL, (37, ip4(host) + port.to_bytes(4)), (78, ip4(external)))


def reverse(host: str, port: int) -> bytes:
    """A request to connect to that endpoint, whose port stands there twice; 4002 is the one that failed."""
    return announcing(icq.REVERSE, CLIENT, host, port)


def ack(host: str, published: int, port: int) -> bytes:
    """A type-2 message that accepts a file: the published port in TLV 0x0005, a new one in two encodings."""
    ends = (77, ip4(host)), (85, published.to_bytes(2))
    return put(icq.FILE_ACK, *ends, (196, port.to_bytes(2)), (212, port.to_bytes(4, "little")))


def relayed(frame: bytes) -> bytes:
    """A message as it is received."""
    return icq.received(frame, AOL_INFO)


def icq_direct(scene: Scene) -> None:
    """Published, said again, moved, hidden; Amy announces the same port and gets another."""
    alice, amy = scene.sign_on(ALICE, 49101), scene.sign_on(AMY, 49101)
    alice.say(status(ALICE, 4001), status(ROUTER_A, 4001), cuts=(36,))
    amy.say(status(AMY, 4001), status(ROUTER_A, 40000))
    alice.say(GOLDEN["icq-status-climm"])
    alice.say(status(ALICE, 4001), status(ROUTER_A, 4001))
    alice.say(status(ALICE, 4002), status(ROUTER_A, 4002))
    alice.say(GOLDEN["icq-status-hidden"])
    alice.hear(arrival(ROUTER_A, 4002, ROUTER_A))
    alice.close()
    amy.close()


def icq_same_lan(scene: Scene) -> None:
    """Two hosts of one network see each other on it, in user info and in messages, and Bob outside."""
    alice, amy = scene.sign_on(ALICE, 49102), scene.sign_on(AMY, 49102, "aol")
    amy.say(status(AMY, 4001), status(ROUTER_A, 4001))
    alice.say(status(ALICE, 4001), status(ROUTER_A, 40000))
    amy.hear(arrival(ROUTER_A, 40000, ROUTER_A), arrival(ALICE, 4001, ALICE))
    amy.hear(arrival(BOB, 40000, BOB))
    amy.hear(arrival(ROUTER_A, 40001, ROUTER_A))
    alice.say(reverse(ALICE, 4001), reverse(ROUTER_A, 40000))
    amy.hear(relayed(reverse(ROUTER_A, 40000)), relayed(reverse(ALICE, 4001)))
    amy.hear(relayed(reverse(BOB, 40000)))
    amy.say(ack(AMY, 4001, 4001), ack(ROUTER_A, 4001, 4001))
    alice.say(ack(ALICE, 4001, 4001), ack(ROUTER_A, 40000, 40000))
    amy.hear(relayed(ack(ROUTER_A, 40000, 40000)), relayed(ack(ALICE, 4001, 4001)))
    alice.close()
    amy.close()


def icq_messages(scene: Scene) -> None:
    """A reverse connection, an ack, a request without a port, a text; then a SNAC with an extra block."""
    alice = scene.sign_on(ALICE, 49103)
    alice.say(reverse(ALICE, 4001), reverse(ROUTER_A, 4001), cuts=(83,))
    alice.say(reverse(BOB, 4001))
    alice.say(status(ALICE, 4001), status(ROUTER_A, 4001))
    alice.say(ack(ALICE, 4001, 4010), ack(ROUTER_A, 4001, 4010), cuts=(79, 200))
    request = put(ack(ALICE, 4001, 4010), (196, b"\x2d\x38\x44\x44"), (212, bytes(4)))
    alice.say(request, put(request, (77, ip4(ROUTER_A))))
    text = GOLDEN["text-message"]
    alice.say(put(text, (text.index(b"hello"), ip4(ALICE))))
    decorated = snac_frame(SET_STATUS, icq.STATUS[16:], request=0x39, extra=EXTRA)
    alice.say(announcing(decorated, CLIENT, ALICE), announcing(decorated, CLIENT, ROUTER_A))
    alice.close()
