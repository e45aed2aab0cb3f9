"""The Debian package of this checkout, for the release that this machine has: what `make deb` runs.

    python3 -m scripts.debian_package [REVISION]

A directory below build/ gets a copy of what the package is made of, with packaging/debian as its debian/, and
what differs from release to release: the version, and which Python libraries come from Debian. Those that
Debian lacks, or has only older ones than pyproject.toml asks for, come from PyPI into the package's own
directory. dpkg-buildpackage does the rest, and lintian judges.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable
from email.utils import formatdate
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
DEBIAN: Final = ROOT / "packaging" / "debian"
BUILD: Final = ROOT / "build"

CONTENT: Final = (
    *("nfreaim", "rules", "docs", "scripts", "pcaps", "Makefile", "LICENSE", "README.md", "SECURITY.md"),
    *("CONTRIBUTING.md", "CHANGELOG.md"),
)
PACKAGES: Final = {
    "NetfilterQueue": "python3-netfilterqueue",
    "scapy": "python3-scapy",
    "python-iptables": "python3-iptables",
    "pyroute2": "python3-pyroute2",
}
"""Debian's name of each library that pyproject.toml asks for."""

_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9-]+)>=([0-9.]+)$")
_CANDIDATE: Final = re.compile(r"^ +Candidate: (?:[0-9]+:)?([0-9]\S*)$", re.MULTILINE)


class Libraries(NamedTuple):
    """*debian*: relations for Depends. *private*: requirements for pip."""

    debian: tuple[str, ...]
    private: tuple[str, ...]


def libraries(requirements: Iterable[str], candidate: Callable[[str], str]) -> Libraries:
    """Where each of *requirements* comes from. *candidate*: Debian's version of a package, or ""."""
    debian, private = [], []
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        if found is None or found[1] not in PACKAGES:
            raise SystemExit(f"{requirement}: PACKAGES in {__file__} has no Debian package for it")
        package, least = PACKAGES[found[1]], found[2]
        if _numbers(candidate(package)) >= _numbers(least):
            debian.append(f"{package} (>= {least})")
        else:
            private.append(requirement)
    return Libraries(tuple(debian), tuple(private))


def _numbers(version: str) -> tuple[int, ...]:
    """Of the upstream part: "2.6.1+dfsg-1" is (2, 6, 1)."""
    return tuple(map(int, re.findall(r"\d+", re.split(r"[^0-9.]", version)[0])))


def candidate_of(package: str) -> str:
    """The version of a package that apt would install; "" if it knows none."""
    policy = subprocess.run(
        ["apt-cache", "policy", package],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    found = _CANDIDATE.search(policy.stdout)
    return found[1] if found else ""


def version_of(release: str, revision: str) -> str:
    """The package's version, from the text of os-release: lower than that of the next release of Debian."""
    number = re.search(r'^VERSION_ID="?(\d+)"?$', release, re.MULTILINE)
    if "ID=debian\n" not in release or number is None:
        raise SystemExit("make deb is for a release of Debian, and this is none")
    ours = re.search(r'^__version__ = "(.+)"$', (ROOT / "nfreaim" / "__init__.py").read_text(), re.MULTILINE)
    assert ours is not None
    return f"{ours[1]}+deb{number[1]}.{revision}"


def revision_of(root: Path, now: float) -> str:
    """The end of the version of a package that is made of *root*: a time in UTC, so that the later is newer.

    It is that of the last commit; where the package has changes that are not committed, or git cannot tell,
    it is *now* (seconds since 1970).
    """
    # root may build a user's checkout, and leaves its index alone
    git = ["git", "--no-optional-locks", "-C", str(root), "-c", f"safe.directory={root}"]
    try:
        asked = [
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (
                ["status", "--porcelain", "--", *CONTENT, *("packaging", "pyproject.toml")],
                ["log", "-1", "--format=%ct"],
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        asked = ["unknown", ""]
    changed, committed = asked
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(now if changed else int(committed)))


def lay_out(place: Path, version: str, found: Libraries) -> None:
    """Fill the new directory *place* with the package's sources."""
    place.mkdir(parents=True)
    left_out = shutil.ignore_patterns("__pycache__", "reference", "*.pcap", "*.pcapng")
    for name in CONTENT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=left_out)
        else:
            shutil.copy(ROOT / name, place / name)
    debian = place / "debian"
    shutil.copytree(DEBIAN, debian)
    changes = f"nfreaim ({version}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n"
    maintainer = re.search(r"^Maintainer: (.+)$", (debian / "control").read_text(), re.MULTILINE)
    assert maintainer is not None
    date = formatdate((ROOT / "CHANGELOG.md").stat().st_mtime)
    earlier = (debian / "changelog").read_text()
    (debian / "changelog").write_text(f"{changes} -- {maintainer[1]}  {date}\n\n{earlier}")
    (debian / "private-libraries").write_text("".join(f"{one}\n" for one in found.private))
    (debian / "nfreaim.libraries.substvars").write_text(f"nfreaim:Libraries={', '.join(found.debian)}\n")


def build(place: Path) -> Path:
    """Build the package and have lintian look at it; returns its path."""
    log = place.with_suffix(".log")
    with log.open("w") as output:
        done = subprocess.run(
            ["dpkg-buildpackage", "-b", "-us", "-uc"],
            cwd=place,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        sys.stderr.write("".join(log.read_text().splitlines(keepends=True)[-40:]))
        raise SystemExit(f"the package was not built; all of it is in {log}")
    (package,) = place.parent.glob("nfreaim_*.deb")
    subprocess.run(["lintian", "--allow-root", "--fail-on", "error", str(package)], check=True)
    return package


def main(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = version_of(
        Path("/etc/os-release").read_text(), words[0] if words else revision_of(ROOT, time.time())
    )
    found = libraries(project["dependencies"], candidate_of)
    place = BUILD / "deb"
    shutil.rmtree(place, ignore_errors=True)
    lay_out(place / f"nfreaim-{version}", version, found)
    package = build(place / f"nfreaim-{version}")
    for earlier in BUILD.glob("nfreaim_*.deb"):
        earlier.unlink()
    print(f"Written: {shutil.move(package, BUILD / package.name)}")


if __name__ == "__main__":
    main(sys.argv[1:])
