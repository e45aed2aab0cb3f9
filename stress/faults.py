"""What may happen to router A while connections run through it; each is over when its function returns.

Nothing here checks anything, but that the daemon says what it has to say.
"""

from __future__ import annotations

import fcntl
import random
import re
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.lab.net import CORE, Daemon, Lab
from tests.lab.scene import eventually

PORTS = ("--port", "5190", "--port", "5191")
_RESTORED = "somebody else changed our rules"


class Router:
    """Router A with its daemon, which may be another one after each fault. *state*: where flows are kept."""

    def __init__(self, lab: Lab, state: Path, chance: random.Random) -> None:
        self.lab, self.state, self.chance = lab, state, chance
        self.settings = lab.dir / "soak.toml"
        self.settings.write_text(f"state_dir = '{state}/flows'\n")
        self.restorations = 0
        self.logs: list[Path] = []
        self.daemon = self.start()

    def start(self) -> Daemon:
        self.restorations = 0
        self.daemon = self.lab.start_alg("A", (*PORTS, "--config", str(self.settings)), wait=False)
        self.logs.append(self.daemon.log)
        self.daemon.wait_ready(60.0)
        return self.daemon

    def shell(self, command: str) -> None:
        self.lab.run("A", "sh", "-ec", command)

    def pause(self, most: float) -> None:
        time.sleep(self.chance.uniform(0.0, most))


def kill(router: Router) -> None:
    router.daemon.kill()
    router.pause(0.5)
    router.start()


def kill_in_a_row(router: Router) -> None:
    for _ in range(router.chance.randint(2, 4)):
        router.daemon.kill()
        router.daemon = router.lab.start_alg("A", (*PORTS, "--config", str(router.settings)), wait=False)
        router.pause(1.5)  # also before it is ready
    router.daemon.kill()
    router.start()


def stop_and_start(router: Router) -> None:
    assert router.daemon.stop(60.0) == 0
    router.start()


def freeze(router: Router) -> None:
    router.daemon.process.send_signal(signal.SIGSTOP)
    router.pause(3.0)
    router.daemon.process.send_signal(signal.SIGCONT)


def flush(router: Router) -> None:
    for _ in range(router.chance.randint(1, 4)):
        router.lab.run("A", "conntrack", "-F")
        router.pause(0.4)


def link(router: Router) -> None:
    name = router.chance.choice(("wan", "lan"))
    router.shell(f"ip link set {name} down")
    router.pause(1.0)
    router.shell(f"ip link set {name} up; ip route replace default via {CORE}")


def lock(router: Router) -> None:
    with (router.lab.dir / "run-A" / "xtables.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        router.pause(2.0)


def commit(router: Router) -> None:
    """Others change the tables at the same time, one of them without any lock."""
    for number in range(router.chance.randint(3, 12)):
        rule = f"-s 198.51.100.1 -p tcp --dport {7000 + number} -j RETURN"
        router.shell(
            f"iptables-legacy -w -t nat -A POSTROUTING {rule}; iptables-nft -t nat -A POSTROUTING {rule};"
            f"printf '*nat\\n-D POSTROUTING {rule}\\nCOMMIT\\n' | iptables-legacy-restore -w -n;"
            f"iptables-nft -t nat -D POSTROUTING {rule}"
        )


def fill_disk(router: Router) -> None:
    hog = router.state / "hog"
    with suppress(OSError), hog.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    router.pause(2.0)
    hog.unlink()


def descriptors(router: Router) -> None:
    pid = router.daemon.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    few = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, usual[1]))
    router.pause(2.0)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


def second_daemon(router: Router) -> None:
    second = router.lab.start_alg("A", (*PORTS, "--config", str(router.settings)), wait=False)
    assert second.process.wait(60) == 1
    assert "cannot be bound" in second.log_text()


def damage(router: Router) -> None:
    """Somebody removes something of ours; waits until it is back.

    Until then nothing queues connections whose length was changed: no rules, no translation.
    """
    if router.restorations >= 4:  # it would be put back less and less often
        kill(router)
    router.restorations += 1
    before = normal(router.lab.firewall_rules("A"))
    said = router.daemon.log_text().count(_RESTORED)
    router.shell(
        router.chance.choice(
            (
                "iptables-legacy -t raw -F; iptables-legacy -t raw -X",
                "iptables-legacy -t raw -F NFREAIM_SERVER",
                "iptables-legacy -t mangle -F; iptables-legacy -t mangle -X",
                "iptables-legacy -t mangle -D POSTROUTING 1",
                "iptables-legacy -F NFREAIM",
                "ipset flush nfreaim_lan",
                "iptables-legacy -t raw -F; iptables-legacy -t mangle -F; ipset destroy nfreaim_srv",
            )
        )
    )
    eventually(lambda: router.daemon.log_text().count(_RESTORED) > said, 60.0)
    after = normal(router.lab.firewall_rules("A"))
    assert after == before, f"{before}\n{after}"


def normal(rules: str) -> str:
    """The rules without what changes all the time: pinholes, their chains, and entries that the daemon makes.

    A repair names the protocol in a comment, where the rules were installed for ports alone.
    """
    changing = re.compile(r"add nfreaim_(?!lan )|:NFREAIM_D|-A NFREAIM_D|.*--bytes-lt ")
    lines = [line for line in rules.splitlines() if not changing.match(line)]
    return "\n".join(line.replace(' -m comment --comment "nfreaim oscar"', "") for line in lines)


# With connections running, and how often each is drawn.
RUNNING: dict[Callable[[Router], None], int] = {
    kill: 10, kill_in_a_row: 2, stop_and_start: 1, freeze: 2, flush: 3, link: 2, lock: 2, commit: 2,
    fill_disk: 2, descriptors: 2, second_daemon: 1, damage: 4,
}  # fmt: skip
# Connection tracking loses connections by these.
FLUSHING = (flush, link)


def change_address(router: Router, old: str, new: str) -> None:
    """Connections through the old address end by nature: nothing may run."""
    renew = f"ip address del {old}/24 dev wan; ip address add {new}/24 dev wan"
    router.shell(f"{renew}; ip route replace default via {CORE}")
