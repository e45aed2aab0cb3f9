"""The images of the virtual machines: what they are made of, and the cache that they are built into once.

An image holds a Debian and the libraries of this project, never its code: that is copied in by each run.
So an image stays usable until its recipe changes, and the recipe is part of the name of its folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

REPO: Final = Path(__file__).resolve().parents[2]
BUILDER: Final = REPO / "tests" / "vm" / "image"
MIRROR: Final = "http://deb.debian.org/debian"

BASE: Final = (
    *"systemd-sysv udev kmod dbus openssh-server initramfs-tools zstd ca-certificates procps".split(),
    *"python3 python3-venv python3-dev gcc libc6-dev libnetfilter-queue-dev python3-nftables".split(),
    *"make git iproute2 iptables ipset nftables conntrack ppp linux-image-amd64".split(),
)
LAB: Final = (
    *"ngircd weechat-headless weechat-plugins prosody miniupnpd-iptables".split(),
    *"tshark libpurple0 curl tmux bzip2".split(),
)
"""Programs that tests of the lab talk to; some start services, so the builder installs them later."""
PACKAGING: Final = (
    *"build-essential debhelper dh-python lintian bash-completion python3-pip python3-setuptools".split(),
    *"python3-sphinx python3-myst-parser python3-iptables python3-pyroute2 python3-scapy".split(),
)
"""What builds the Debian package, and Debian's libraries that it depends on: a machine has no mirror."""
NETFILTERQUEUE: Final = ("python3-netfilterqueue",)
"""Debian has it from 13 on."""
TESTING: Final = ("pytest", "hypothesis")
"""How the names of those developers' libraries begin that the tests in a machine need."""


class ImageError(RuntimeError):
    """An image is not there and cannot be built; the text has the remedy."""


class Suite(NamedTuple):
    """What one image is made of. *backports* come from the suite's backports, in addition to its own."""

    name: str
    later: tuple[str, ...] = ()
    backports: tuple[str, ...] = ()


SUITES: Final = {
    "bookworm": Suite("bookworm", PACKAGING),
    "trixie": Suite("trixie", (*PACKAGING, *NETFILTERQUEUE, *LAB), ("linux-image-amd64",)),
}


class Image(NamedTuple):
    """A built image: its folder, and the versions of its kernels, oldest first."""

    suite: str
    folder: Path
    kernels: tuple[str, ...]

    @property
    def disk(self) -> Path:
        return self.folder / "root.ext4"

    @property
    def key(self) -> Path:
        """By which ssh logs in as root."""
        return self.folder / "key"


def requirements(project: str) -> list[str]:
    """The Python libraries that an image holds, from the text of pyproject.toml: those of every extra for
    users, what builds the package, and of the developers' what runs tests."""
    read = tomllib.loads(project)
    extras = read["project"]["optional-dependencies"]
    users = [one for extra in ("top", "metrics", "upstream") for one in extras[extra]]
    tests = [one for one in extras["dev"] if one.startswith(TESTING)]
    return [*read["project"]["dependencies"], *users, *tests, *read["build-system"]["requires"]]


def recipe(suite: Suite, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the builder is told. *environment* may name another mirror (VM_MIRROR) and wheels (VM_WHEELS)."""
    return {
        "MIRROR": environment.get("VM_MIRROR") or MIRROR,
        "PACKAGES": ",".join(sorted(BASE)),
        "LATER": " ".join(suite.later),
        "BACKPORTS": " ".join(suite.backports),
        "REQUIREMENTS": "\n".join(requirements((REPO / "pyproject.toml").read_text())),
        "WHEELS": environment.get("VM_WHEELS", ""),
    }


def name_of(suite: Suite, told: Mapping[str, str], builder: str) -> str:
    """The name of the image's folder: another one whenever the recipe or the builder's text is another."""
    # Where its parts come from does not change what they are.
    content = {key: value for key, value in told.items() if key not in ("MIRROR", "WHEELS")}
    text = json.dumps([suite.name, content, builder], sort_keys=True)
    return f"{suite.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Where images are kept: VM_CACHE, or nfreaim-vm in the user's cache or the system's."""
    if environment.get("VM_CACHE"):
        return Path(environment["VM_CACHE"]).absolute()
    return Path(environment.get("XDG_CACHE_HOME") or "/var/cache") / "nfreaim-vm"


def kernels(names: Iterable[str]) -> tuple[str, ...]:
    """The versions of the kernels among the names of files, oldest first."""
    versions = [name.removeprefix("vmlinuz-") for name in names if name.startswith("vmlinuz-")]
    return tuple(
        sorted(versions, key=lambda version: [int(number) for number in re.findall(r"\d+", version)])
    )


def missing() -> list[str]:
    """Debian's packages without which nothing can be built or started."""
    programs = {
        "debootstrap": "debootstrap",
        "qemu-system-x86_64": "qemu-system-x86",
        "mke2fs": "e2fsprogs",
        "ssh": "openssh-client",
    }
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [package for program, package in programs.items() if shutil.which(program, path=path) is None]


def ensure(suite: Suite, place: Path) -> Image:
    """The image of *suite* in the cache *place*, built if it is not there; earlier recipes' are removed."""
    told = recipe(suite)
    folder = place / name_of(suite, told, BUILDER.read_text())
    place.mkdir(parents=True, exist_ok=True)
    with _alone(place / f"{suite.name}.lock"):
        if not folder.exists():
            _build(suite, told, folder)
        for other in place.glob(f"{suite.name}-*"):
            if other != folder and other.is_dir():
                shutil.rmtree(other)
    return Image(suite.name, folder, kernels(path.name for path in folder.iterdir()))


def _build(suite: Suite, told: Mapping[str, str], folder: Path) -> None:
    if os.geteuid() != 0:
        raise ImageError(f"{folder} is not there, and only root can build it: sudo make vm-test")
    new, log = folder.with_suffix(".new"), folder.parent / f"{suite.name}.log"
    shutil.rmtree(new, ignore_errors=True)
    print(f"Building the image of {suite.name}, once, in some minutes: {folder}", file=sys.stderr, flush=True)
    with log.open("wb") as written:
        done = subprocess.run(
            # What the builder mounts goes with it, however it ends: the folder may be removed later.
            ["unshare", "--mount", "nice", "-n", "10", "sh", str(BUILDER), suite.name, str(new)],
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    if done.returncode != 0:
        shutil.rmtree(new, ignore_errors=True)
        last = "".join(f"\n    {line}" for line in log.read_text(errors="replace").splitlines()[-5:])
        raise ImageError(
            f"the image of {suite.name} could not be built ({log}):{last}\n"
            "it needs a mirror of Debian (VM_MIRROR=URL) and PyPI (PIP_INDEX_URL=URL, or VM_WHEELS=FOLDER)"
        )
    new.rename(folder)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time builds an image."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
