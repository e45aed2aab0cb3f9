"""The Debian package's files: what they say, and what differs between releases."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nfreaim import __version__
from nfreaim.host.netfilter.names import OWN_GROUP
from scripts import debian_package
from scripts.debian_package import Libraries, lay_out, libraries, revision_of, version_of
from tests.reachable import REPO

DEBIAN = REPO / "packaging" / "debian"
RULES = (DEBIAN / "rules").read_text()
REQUIRED = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["dependencies"]
OS_RELEASE = 'PRETTY_NAME="Debian GNU/Linux {0}"\nVERSION_ID="{0}"\nID=debian\n'
BOOKWORM = {"python3-scapy": "2.5.0+dfsg-2", "python3-pyroute2": "0.7.2-2", "python3-iptables": "1.0.1-1"}
TRIXIE = {"python3-scapy": "2.6.1+dfsg-1", "python3-pyroute2": "0.7.7-4", "python3-iptables": "1.0.1-4+b1"}
TRIXIE["python3-netfilterqueue"] = "1.1.0-4"


def paragraph(number: int) -> dict[str, str]:
    """The fields of a paragraph of debian/control."""
    text = (DEBIAN / "control").read_text().split("\n\n")[number]
    return {
        name: value.strip()
        for name, value in re.findall(r"^([\w-]+):((?:.*\n?(?: .*\n?)*))", text, re.MULTILINE)
    }


def test_control_has_what_policy_asks_for_and_every_program_that_is_started() -> None:
    source, binary = paragraph(0), paragraph(1)
    for name in ("Source", "Section", "Priority", "Maintainer", "Build-Depends", "Standards-Version"):
        assert source[name], name
    assert binary["Package"] == source["Source"] == "nfreaim"
    depends = {word.strip() for word in binary["Depends"].split(",")}
    for program in ("conntrack", "ipset", "iproute2", "iptables", "nftables", "python3-nftables"):
        assert program in depends
    variables = {"${misc:Depends}", "${nfreaim:Libraries}", "${python3:Depends}", "${shlibs:Depends}"}
    assert variables < depends
    synopsis = binary["Description"].splitlines()[0]
    assert len(synopsis) <= 80
    assert synopsis[0].islower(), "a synopsis completes a sentence"


def test_what_the_build_needs_is_installed_by_bootstrap() -> None:
    script = (REPO / "scripts" / "bootstrap").read_text()
    for word in paragraph(0)["Build-Depends"].split(", "):
        name = word.split()[0].replace("debhelper-compat", "debhelper")
        assert re.search(rf"\b{name}\b", script), name
    for name in ("build-essential", "lintian"):
        assert name in script


def test_every_library_comes_from_debian_where_that_has_it_new_enough() -> None:
    assert {one.split(">=")[0] for one in REQUIRED} == set(debian_package.PACKAGES)
    trixie = libraries(REQUIRED, lambda package: TRIXIE.get(package, ""))
    assert trixie.private == ()
    assert {one.split()[0] for one in trixie.debian} == set(debian_package.PACKAGES.values())
    bookworm = libraries(REQUIRED, lambda package: BOOKWORM.get(package, ""))
    assert {one.split(">=")[0] for one in bookworm.private} == {"NetfilterQueue", "scapy"}
    assert bookworm.debian == ("python3-iptables (>= 1.0.1)", "python3-pyroute2 (>= 0.7.2)")
    with pytest.raises(SystemExit, match="no Debian package for it"):
        libraries(["leftpad>=1.0"], lambda package: "1.0")


def test_a_later_release_has_the_higher_version_and_another_system_none() -> None:
    versions = [version_of(OS_RELEASE.format(number), "1") for number in (12, 13)]
    assert versions == [f"{__version__}+deb12.1", f"{__version__}+deb13.1"]
    with pytest.raises(SystemExit, match="for a release of Debian"):
        version_of('ID=arch\nVERSION_ID="12"\n', "1")


def git(place: Path, *words: str, date: str = "") -> None:
    """Run git without the operator's own settings."""
    who = ("-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_COMMITTER_DATE": date}
    subprocess.run(["git", "-C", place, *who, *words], check=True, capture_output=True, env=environment)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is absent; apt install git")
def test_a_later_commit_has_the_higher_version_and_changes_of_ones_own_the_highest(tmp_path: Path) -> None:
    now = 1_900_000_000.0
    built = "20300317174640"
    source, other = tmp_path / "nfreaim" / "a.py", tmp_path / "tests" / "b.py"
    for file in (source, other):
        file.parent.mkdir()
        file.write_text("1")
    assert revision_of(tmp_path, now) == built, "no repository"
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "1", date="2026-11-30T20:00:00+0200")
    first = revision_of(tmp_path, now)
    assert first == "20261130180000"
    source.write_text("2")
    assert revision_of(tmp_path, now) == built
    git(tmp_path, "commit", "-qam", "2", date="2026-11-30T18:30:00+0000")
    assert revision_of(tmp_path, now) == "20261130183000"
    other.write_text("2")
    assert revision_of(tmp_path, now) == "20261130183000", "no part of the package"
    source.with_name("new.py").write_text("")
    assert revision_of(tmp_path, now) == built, "a file that git does not know yet is packed, too"
    older = version_of(OS_RELEASE.format(12), "1")
    for newer in (version_of(OS_RELEASE.format(12), one) for one in (first, built)):
        compared = ["dpkg", "--compare-versions", older, "lt", newer]
        if shutil.which("dpkg"):
            assert subprocess.run(compared).returncode == 0
        older = newer


@pytest.mark.skipif(shutil.which("git") is None, reason="git is absent; apt install git")
@pytest.mark.skipif(os.geteuid() != 0, reason="root alone builds in another user's checkout")
def test_root_builds_a_users_checkout_as_it_is(tmp_path: Path) -> None:
    """git refuses to read another user's repository, unless it is named."""
    (tmp_path / "README.md").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "1", date="2026-11-30T18:00:00+0000")
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 12345, 12345)
    assert revision_of(tmp_path, 1_900_000_000.0) == "20261130180000"


def test_the_makefile_leaves_the_revision_to_git_unless_it_is_named() -> None:
    words = ["make", "-n", "-C", str(REPO), "deb"]
    environment = {name: value for name, value in os.environ.items() if name not in ("REVISION", "MAKEFLAGS")}
    for more, end in (([], "scripts.debian_package"), (["REVISION=7"], "scripts.debian_package 7")):
        done = subprocess.run([*words, *more], capture_output=True, text=True, check=True, env=environment)
        commands = [line.strip() for line in done.stdout.splitlines()]
        assert f"/usr/bin/python3 -m {end}" in commands
    assert (
        "REVISION="
        in subprocess.run(["make", "-s", "-C", REPO, "help"], capture_output=True, text=True).stdout
    )


def test_the_build_directory_has_what_the_package_is_made_of(tmp_path: Path) -> None:
    place = tmp_path / "nfreaim-1"
    lay_out(place, "1+deb12.1", Libraries(("python3-scapy (>= 2.6)",), ("NetfilterQueue>=1.1.0",)))
    for name in (
        "debian/rules",
        "debian/control",
        "rules/nfreaim-rules",
        "scripts/manual_pages.py",
        "docs/conf.py",
    ):
        assert (place / name).is_file(), name
    assert os.access(place / "debian/rules", os.X_OK)
    assert not (place / "tests").exists()
    assert not list(place.rglob("__pycache__"))
    debian = place / "debian"
    assert (debian / "private-libraries").read_text() == "NetfilterQueue>=1.1.0\n"
    assert (
        debian / "nfreaim.libraries.substvars"
    ).read_text() == "nfreaim:Libraries=python3-scapy (>= 2.6)\n"
    changes = (debian / "changelog").read_text()
    assert changes.startswith("nfreaim (1+deb12.1) unstable;")
    head, date = r"nfreaim \(\S+\) unstable; urgency=medium", r"\w{3}, \d\d? \w{3} \d{4} [\d:]{8} [+-]\d{4}"
    entry = rf"{head}\n\n(?:  .*\n)+\n -- .+ <.+>  {date}\n"
    assert re.fullmatch(rf"{entry}\n{entry}", changes), changes
    if shutil.which("dpkg-parsechangelog"):
        words = ["dpkg-parsechangelog", "-l", str(debian / "changelog"), "-S", "Version"]
        assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "1+deb12.1\n"
    news = (DEBIAN / "NEWS").read_text().split("\n")[0]
    assert news.split(")")[0] in changes, "a version of NEWS is one of the changelog"


def test_the_users_are_those_of_the_units_and_the_group_has_its_number() -> None:
    users = (DEBIAN / "nfreaim.sysusers").read_text()
    assert re.search(r"^u nfreaim - ", users, re.MULTILINE)
    assert re.search(rf"^g nfreaim-own {OWN_GROUP}$", users, re.MULTILINE)
    assert f":{OWN_GROUP}:" in (DEBIAN / "nfreaim.postinst").read_text()
    unit = (REPO / "rules" / "nfreaim.service").read_text()
    assert "User=nfreaim\n" in unit
    assert "SupplementaryGroups=root nfreaim-own\n" in unit
    assert "f /run/xtables.lock 0640 root root -\n" in (DEBIAN / "nfreaim.tmpfiles").read_text()


def test_the_configuration_is_the_only_file_below_etc_and_what_serves_is_enabled() -> None:
    assert re.findall(r"\$\(PACKAGE\)/etc/\S+ .*", RULES) == ["$(PACKAGE)/etc/nfreaim rules/nfreaim.toml"]
    enabled, other = re.findall(r"dh_installsystemd --no-start --no-stop-on-upgrade ?(.*)", RULES)
    assert enabled.split() == ["nfreaim-sets.service", "nfreaim-rules.service", "nfreaim.service"]
    assert other.split() == ["--no-enable", "nfreaim-metrics.service", "nfreaim-textfile.timer"]


def test_the_program_runs_without_the_environment_of_its_caller(tmp_path: Path) -> None:
    program = tmp_path / "nfreaim"
    program.write_text((DEBIAN / "program").read_text().replace("/usr/lib/nfreaim", str(REPO)))
    (tmp_path / "nfreaim.py").write_text("raise SystemExit('what stands beside it is not looked at')")
    done = subprocess.run(
        [sys.executable, "-I", str(program), "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        timeout=60,
    )
    assert done.stdout == f"nfreaim {__version__}\n", done.stderr
    assert (DEBIAN / "program").read_text().startswith("#!/usr/bin/python3 -I\n")
