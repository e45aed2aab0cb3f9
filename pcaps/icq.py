"""The synthetic cases of ICQ: published endpoints, reverse connections, ports in type-2 messages.

Golden packets with other values at the offsets that are written beside them there.
"""

from pcaps.scenes import ALICE, AMY, ROUTER_A, Scene
from pcaps.wire import GOLDEN, address, put, received, tlv

BOB = "203.0.113.20"


def status(host: str, port: int) -> bytes:
    """SNAC(01,1E) with a direct-connection block."""
    return put(GOLDEN["icq-status"], (34, address(host) + port.to_bytes(4)))


def arrival(host: str, port: int, external: str) -> bytes:
    """SNAC(03,0B) with that block and TLV 0x000A."""
    return put(GOLDEN["icq-buddy-arrival"], (37, address(host) + port.to_bytes(4)), (78, address(external)))


def reverse(host: str, port: int) -> bytes:
    """A request to connect to that endpoint, whose port stands there twice; 4002 is the one that failed."""
    little = port.to_bytes(4, "little")
    return put(GOLDEN["icq-reverse-connect"], (81, address(host) + little), (94, little))


def ack(host: str, published: int, port: int) -> bytes:
    """A type-2 message that accepts a file: the published port in TLV 0x0005, a new one in two encodings."""
    ends = (77, address(host)), (85, published.to_bytes(2))
    return put(GOLDEN["icq-file-ack"], *ends, (196, port.to_bytes(2)), (212, port.to_bytes(4, "little")))


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
    amy.hear(received(reverse(ROUTER_A, 40000)), received(reverse(ALICE, 4001)))
    amy.hear(received(reverse(BOB, 40000)))
    amy.say(ack(AMY, 4001, 4001), ack(ROUTER_A, 4001, 4001))
    alice.say(ack(ALICE, 4001, 4001), ack(ROUTER_A, 40000, 40000))
    amy.hear(received(ack(ROUTER_A, 40000, 40000)), received(ack(ALICE, 4001, 4001)))
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
    alice.say(request, put(request, (77, address(ROUTER_A))))
    text = GOLDEN["text-message"]
    alice.say(put(text, (text.index(b"hello"), address(ALICE))))
    golden = GOLDEN["icq-status"]
    extra = b"\x80\0" + golden[12:16] + b"\0\6" + tlv(1, b"\0\4")
    decorated = golden[:10] + extra + golden[16:]
    decorated = put(decorated, (4, (len(decorated) - 6).to_bytes(2)))
    at = len(decorated) - 37
    alice.say(put(decorated, (at, address(ALICE))), put(decorated, (at, address(ROUTER_A))))
    alice.close()
