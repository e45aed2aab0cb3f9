"""The synthetic cases: what each connection says, and what must have become of it on the other side.

A scene is played twice, once with the messages as they came and once with those that must leave; everything
else of the two captures is the same. Checksums are computed afresh each time, by tests/captures.py.
"""

from collections.abc import Callable
from typing import Literal

from pcaps.wire import (
    AIM_COOKIE,
    AOL_INFO,
    COOKIE,
    EXTRA,
    GOLDEN,
    OOS_INFO,
    aim_block,
    block,
    counter,
    plain,
    proposal,
    to_client,
    to_host,
)
from tests.oscar.flap import numbered
from tests.oscar.rendezvous import ACCEPT, GET_FILE, SEND_FILE, TALK, USE_RELAY, VERIFIED_IP
from tests.oscar.signon import CLIENT_SIGNON, HOST_ONLINE, hello
from tests.oscar.tlv import tlv
from tests.oscar.values import ip4
from tests.tcp.captures import Conversation, Frames

SERVER = ("203.0.113.9", 5190)
ALICE, AMY, CAROL = "10.0.0.5", "10.0.0.6", "192.168.7.5"
ROUTER_A, ROUTER_B = "203.0.113.1", "203.0.113.2"
_START = 1_700_000_000.0
_PAUSE = 0.2  # seconds between two messages: nobody takes them for one write
_FIVE_WRITES = (1, 2, 4, 6)  # open-oscar-server writes every frame in five pieces


class Scene:
    """Connections on one clock; `step` seconds lie between two frames."""

    def __init__(self, expected: bool, step: float = 0.002) -> None:
        self.expected, self.step = expected, step
        self.frames: Frames = []
        self.time = _START

    def sign_on(self, host: str, port: int, server: Literal["oos", "aol"] = "oos") -> "Connection":
        return Connection(self, host, port, server)


class Connection:
    """A BOS connection, signed on."""

    def __init__(self, scene: Scene, host: str, port: int, server: Literal["oos", "aol"]) -> None:
        self._scene, self._cuts = scene, _FIVE_WRITES if server == "oos" else ()
        self._tcp = Conversation((host, port), SERVER, step=scene.step, timestamps=True)
        self._sequence = {"client": 0, "server": 0x63}
        self._play(self._tcp.open)
        self.hear(hello())
        self.say(CLIENT_SIGNON)
        self.hear(HOST_ONLINE)

    def _play(self, act: Callable[[], object]) -> None:
        done = len(self._tcp.frames)
        self._tcp.time = self._scene.time
        act()
        self._scene.time = self._tcp.time
        self._scene.frames += self._tcp.frames[done:]

    def _send(self, side: Literal["client", "server"], flap: bytes, cuts: tuple[int, ...]) -> None:
        self._sequence[side] += 1
        frame = numbered(flap, self._sequence[side])
        self._play(lambda: self._tcp.send(side, frame, cuts=cuts))
        self._scene.time += _PAUSE

    def say(self, flap: bytes, leaves: bytes | None = None, cuts: tuple[int, ...] = ()) -> None:
        """The client sends `flap`; it must leave as `leaves` (None: as it came)."""
        self._send("client", leaves if leaves and self._scene.expected else flap, cuts)

    def hear(self, flap: bytes, arrives: bytes | None = None) -> None:
        """The server sends `flap`, which must arrive as `arrives`."""
        self._send("server", arrives if arrives and self._scene.expected else flap, self._cuts)

    def close(self) -> None:
        self._play(self._tcp.close)


def aim_order(scene: Scene) -> None:
    alice = scene.sign_on(ALICE, 49001)
    alice.say(proposal("aim", ALICE, 4000), proposal("aim", ROUTER_A, 4000))
    alice.close()


def kopete_order(scene: Scene) -> None:
    alice = scene.sign_on(ALICE, 49002)
    alice.say(proposal("kopete", ALICE, 5191), proposal("kopete", ROUTER_A, 5191))
    alice.close()


def port_taken(scene: Scene) -> None:
    """Two hosts announce the same port, with the same cookie at that; the second one gets another."""
    alice, amy = scene.sign_on(ALICE, 49003), scene.sign_on(AMY, 49003)
    alice.say(proposal("libpurple", ALICE, 5190), proposal("libpurple", ROUTER_A, 5190))
    amy.say(proposal("libpurple", AMY, 5190), proposal("libpurple", ROUTER_A, 40000))
    amy.say(proposal("aim", AMY, 4000), proposal("aim", ROUTER_A, 4000))
    alice.say(proposal("aim", ALICE, 4000), proposal("aim", ROUTER_A, 40001))
    alice.close()
    amy.close()


def relay(scene: Scene) -> None:
    """0x0010 makes the address a relay's and the port a PIN, whatever address stands there."""
    alice = scene.sign_on(ALICE, 49004)
    alice.say(GOLDEN["relay-proposal"])
    alice.say(plain(SEND_FILE, COOKIE, ALICE, 5190, tlv(USE_RELAY)))
    alice.close()


def stage_3a(scene: Scene) -> None:
    alice = scene.sign_on(ALICE, 49005)
    alice.say(GOLDEN["stage-3a-request"])
    alice.close()


def same_lan_oos(scene: Scene) -> None:
    """Alice offers Amy, on her own network, a file; both hold the same outside address."""
    alice, amy = scene.sign_on(ALICE, 49006), scene.sign_on(AMY, 49006)
    alice.say(proposal("libpurple", ALICE, 5190), proposal("libpurple", ROUTER_A, 5190))
    amy.hear(proposal("libpurple-received", ROUTER_A, 5190), proposal("libpurple-received", ALICE, 5190))
    amy.say(to_host(COOKIE, "alice1", block(ACCEPT, COOKIE, SEND_FILE)))
    alice.hear(to_client(COOKIE, "amy1", OOS_INFO, block(ACCEPT, COOKIE, SEND_FILE)))
    alice.close()
    amy.close()


def same_lan_aol(scene: Scene) -> None:
    """The same with complements and a port that had to change, through a server that keeps 0x0003."""
    alice, amy = scene.sign_on(ALICE, 49007, "aol"), scene.sign_on(AMY, 49007, "aol")

    def relayed(host: str, port: int) -> bytes:
        body = aim_block(host, port, tlv(VERIFIED_IP, ip4(host)))
        return to_client(AIM_COOKIE, "alice1", AOL_INFO, body, tlv(0x13, b"\3"), extra=EXTRA)

    amy.say(proposal("kopete", AMY, 4000), proposal("kopete", ROUTER_A, 4000))
    alice.say(proposal("aim", ALICE, 4000), proposal("aim", ROUTER_A, 40000))
    amy.hear(relayed(ROUTER_A, 40000), relayed(ALICE, 4000))
    amy.hear(relayed(ROUTER_A, 40001))  # no pinhole of this router
    amy.hear(relayed(ROUTER_B, 4000))
    alice.close()
    amy.close()


def counter_proposals(scene: Scene) -> None:
    """Router B's view: the receiver of a file answers "connect to me instead"."""
    carol = scene.sign_on(CAROL, 49008)
    carol.hear(GOLDEN["send-file-proposal-received"])
    carol.say(
        proposal("libpurple-counter", CAROL, 5190),
        proposal("libpurple-counter", ROUTER_B, 5190),
    )
    carol.say(counter(CAROL, 4443), counter(ROUTER_B, 4443))
    carol.close()


def cancel(scene: Scene) -> None:
    """A cancelled proposal gives its port back to its own host alone, as it may be on its way still."""
    alice, amy = scene.sign_on(ALICE, 49009), scene.sign_on(AMY, 49009)
    alice.say(proposal("libpurple", ALICE, 5190), proposal("libpurple", ROUTER_A, 5190))
    alice.say(GOLDEN["cancel"])
    amy.say(proposal("libpurple", AMY, 5190), proposal("libpurple", ROUTER_A, 40000))
    amy.hear(GOLDEN["decline"].replace(b"alice1", b"carol1"))  # who was asked
    alice.say(
        proposal("libpurple-direct-im", ALICE, 5190),
        proposal("libpurple-direct-im", ROUTER_A, 5190),
    )
    alice.close()
    amy.close()


def split_in_address(scene: Scene) -> None:
    alice = scene.sign_on(ALICE, 49010)
    alice.say(
        proposal("libpurple", ALICE, 5190),
        proposal("libpurple", ROUTER_A, 5190),
        cuts=(73, 82),
    )
    alice.close()


def split_in_port(scene: Scene) -> None:
    """Between the two bytes of the port and of its complement, where the port has to change."""
    amy, alice = scene.sign_on(AMY, 49011), scene.sign_on(ALICE, 49011)
    amy.say(proposal("libpurple", AMY, 4000), proposal("libpurple", ROUTER_A, 4000))
    alice.say(proposal("aim", ALICE, 4000), proposal("aim", ROUTER_A, 40000), cuts=(130, 136))
    alice.close()
    amy.close()


def split_too_slow(scene: Scene) -> None:
    """The rest does not come within the hold time: untouched; the next message is served again."""
    alice = scene.sign_on(ALICE, 49012)
    alice.say(proposal("libpurple", ALICE, 5190), cuts=(73,))
    alice.say(proposal("aim", ALICE, 4000), proposal("aim", ROUTER_A, 4000))
    alice.close()


def snac_extra(scene: Scene) -> None:
    """SNACs with flag 0x8000, a block before the body, in both directions."""
    alice = scene.sign_on(ALICE, 49013, "aol")

    def sent(host: str) -> bytes:
        return to_host(AIM_COOKIE, "carol1", aim_block(host, 4000), tlv(3), extra=EXTRA)

    alice.say(sent(ALICE), sent(ROUTER_A))
    alice.hear(GOLDEN["accept-with-snac-extra"])
    alice.close()


def imitation(scene: Scene) -> None:
    """Texts (channel 1) that hold a perfect rendezvous block, in both directions."""
    alice, amy = scene.sign_on(ALICE, 49014), scene.sign_on(AMY, 49014)
    alice.say(proposal("aim", ALICE, 4000), proposal("aim", ROUTER_A, 4000))
    own, public = aim_block(ALICE, 4000), aim_block(ROUTER_A, 4000)
    for outer in (tlv(2, own), own):
        alice.say(to_host(AIM_COOKIE, "amy1", outer, channel=1))
    for outer in (tlv(2, public), public):
        amy.hear(to_client(AIM_COOKIE, "alice1", OOS_INFO, outer, channel=1))
    alice.close()
    amy.close()


def services(scene: Scene) -> None:
    """Get file, talk, and a capability that nobody knows, which is left alone."""
    alice = scene.sign_on(ALICE, 49015)
    for number, capability in enumerate((GET_FILE, TALK)):
        sent = capability, number.to_bytes(8)
        alice.say(plain(*sent, ALICE, 6000 + number), plain(*sent, ROUTER_A, 6000 + number))
    alice.say(plain(b"nfre" * 4, (2).to_bytes(8), ALICE, 6002))
    alice.close()


def refused(scene: Scene) -> None:
    """Somebody else's address, an outside address that is known already, port 0, and a system port."""
    alice = scene.sign_on(ALICE, 49016)
    for host, port in ((AMY, 5190), (ROUTER_A, 5190), (ALICE, 0), (ALICE, 445)):
        alice.say(plain(SEND_FILE, COOKIE, host, port))
    alice.close()
