"""The recipes of the OpenWrt packages: what `make` reads in them, and whether they agree with the tree."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nfreaim
from nfreaim.host.check.native_remedies import FW4_FILE
from nfreaim.marks import DEFAULT

REPO = Path(__file__).resolve().parents[2]
RECIPES = REPO / "packaging" / "openwrt"
FILES = RECIPES / "nfreaim" / "files"
PACKAGES = {
    "nfreaim": "nfreaim",
    "python-iptables": "python3-iptables",
    "python-netfilterqueue": "python3-netfilterqueue",
}
FIELDS = ("PKG_NAME", "PKG_VERSION", "PKG_RELEASE", "PKG_LICENSE", "PKG_MAINTAINER")
OF_PACKAGE = ("SECTION", "CATEGORY", "TITLE", "DEPENDS")

# The packages that bring each match and target of iptables: the program's part and the kernel's.
BUILT_IN = ("iptables-zz-legacy", "kmod-ipt-core")
CONNTRACK = ("iptables-zz-legacy", "kmod-ipt-conntrack")
BRINGS = {
    **dict.fromkeys(("comment", "limit", "mark", "multiport", "MARK"), BUILT_IN),
    **dict.fromkeys(("conntrack", "CT"), CONNTRACK),
    **dict.fromkeys(("connmark", "CONNMARK"), ("iptables-mod-conntrack-extra", "kmod-ipt-conntrack-extra")),
    **dict.fromkeys(("addrtype", "owner"), ("iptables-mod-extra", "kmod-ipt-extra")),
    **dict.fromkeys(("set", "SET"), ("iptables-zz-legacy", "kmod-ipt-ipset", "ipset")),
    "bpf": ("iptables-mod-filter", "kmod-ipt-filter"),
    "hashlimit": ("iptables-mod-hashlimit", "kmod-ipt-hashlimit"),
    "NFQUEUE": ("iptables-mod-nfqueue", "kmod-ipt-nfqueue", "kmod-nfnetlink-queue"),
    "raw": ("kmod-ipt-raw",),
    **dict.fromkeys(("nat", "SNAT"), ("kmod-ipt-nat",)),
}
# Parts of Python's library with packages of their own (lang/python/python3/files/*.mk of the feed).
SPLIT = (
    "asyncio ctypes dbm decimal email lib2to3 logging lzma multiprocessing pydoc sqlite3 unittest urllib uuid"
    " venv webbrowser xml"
).split()
# shutil imports it if it is there, for archives that nobody here makes.
NOT_NEEDED = {"lzma"}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is absent; apt install make")


def read(recipe: str, tmp: Path) -> dict[str, str]:
    """The fields of a recipe, as `make` evaluates it, with stand-ins for OpenWrt's own files."""
    for name in ("rules.mk", "include/package.mk", "feeds/packages/lang/python/pypi.mk"):
        (tmp / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp / name).write_text("")
    package = "\n".join(f"$(info $(1).{name}=$({name}))" for name in OF_PACKAGE)
    fields = "\n".join(f"$(info {name}=$({name}))" for name in (*FIELDS, "PKG_HASH", "PKG_BUILD_DEPENDS"))
    (tmp / "feeds/packages/lang/python/python3-package.mk").write_text(
        "Py3Package =\n"
        f"define BuildPackage\n$(if $(filter %-src,$(1)),,$(eval $(value Package/$(1))){package})\nendef\n"
        f"{fields}\nall:\n"
    )
    done = subprocess.run(
        ["make", "-s", "--no-print-directory", f"TOPDIR={tmp}", f"INCLUDE_DIR={tmp}/include"],
        cwd=RECIPES / recipe,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def depends(tmp: Path) -> set[str]:
    return {word.removeprefix("+") for word in read("nfreaim", tmp)["nfreaim.DEPENDS"].split()}


def test_each_folder_is_a_recipe() -> None:
    assert {path.parent.name for path in RECIPES.glob("*/Makefile")} == set(PACKAGES)


@needs_make
@pytest.mark.parametrize(("recipe", "package"), PACKAGES.items())
def test_a_recipe_has_what_every_package_needs(recipe: str, package: str, tmp_path: Path) -> None:
    fields = read(recipe, tmp_path)
    for name in (*FIELDS, *(f"{package}.{name}" for name in OF_PACKAGE)):
        assert fields[name].strip(), name
    assert fields["PKG_NAME"] == recipe
    if recipe != "nfreaim":
        assert re.fullmatch(r"[0-9a-f]{64}", fields["PKG_HASH"])


@needs_make
def test_the_version_is_the_projects(tmp_path: Path) -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert read("nfreaim", tmp_path)["PKG_VERSION"] == nfreaim.__version__ == project["version"]


@needs_make
def test_libraries_that_the_feed_lacks_are_new_enough(tmp_path: Path) -> None:
    wanted = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["dependencies"]
    least = dict(line.lower().split(">=") for line in wanted)
    for recipe, name in (("python-iptables", "python-iptables"), ("python-netfilterqueue", "netfilterqueue")):
        have = read(recipe, tmp_path)["PKG_VERSION"]
        assert [int(part) for part in have.split(".")] >= [int(part) for part in least[name].split(".")]
    assert {"scapy", "python3-pyroute2", *PACKAGES.values()} - {"nfreaim"} <= depends(tmp_path)


@needs_make
def test_every_match_and_target_of_the_rules_has_its_package(tmp_path: Path) -> None:
    rules = (REPO / "rules" / "nfreaim-rules").read_text()
    code = "\n".join(line for line in rules.splitlines() if not line.lstrip().startswith("#"))
    used = set(re.findall(r"-(?:m|j) ([A-Za-z]+)", code)) - {"ACCEPT", "DROP", "RETURN", "nfreaim"}
    assert {"set", "NFQUEUE"} < used
    needed = {package for name in used | {"raw", "nat"} for package in BRINGS[name]}
    assert needed - depends(tmp_path) == set()


@needs_make
def test_every_part_of_pythons_library_that_is_imported_has_its_package(tmp_path: Path) -> None:
    script = (
        "import sys, pkgutil, importlib, nfreaim\n"
        "from contextlib import suppress\n"
        "from nfreaim.errors import BackendError\n"
        "optional = ('rich', 'prometheus_client', 'miniupnpc')\n"  # the package has none of them
        "sys.modules.update(dict.fromkeys(optional))\n"
        "for one in pkgutil.walk_packages(nfreaim.__path__, 'nfreaim.'):\n"
        "    with suppress(BackendError):\n"
        "        one.name.endswith('__main__') or importlib.import_module(one.name)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, timeout=120, check=True
    )
    needed = {f"python3-{name}" for name in set(SPLIT) & set(done.stdout.split()) - NOT_NEEDED}
    assert "python3-logging" in needed
    assert needed - depends(tmp_path) == set()


def test_fw4_takes_in_the_line_that_accepts_pinholes() -> None:
    (name,) = (path.name for path in FILES.glob("*.nft"))
    place = Path(FW4_FILE.format(chain="forward"))
    assert place.name == name
    makefile = (RECIPES / "nfreaim" / "Makefile").read_text()
    assert f"./files/{name} $(1){place.parent}/" in makefile
    (line,) = (line for line in (FILES / name).read_text().splitlines() if not line.startswith("#"))
    bit = f"{DEFAULT.pinhole:#x}"
    assert line == f"ct mark and {bit} == {bit} ct status dnat accept"


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is absent; apt install nftables")
def test_nft_understands_the_line(tmp_path: Path) -> None:
    (path,) = FILES.glob("*.nft")
    whole = tmp_path / "fw4.nft"
    whole.write_text(
        "table inet fw4 {\nchain forward {\ntype filter hook forward priority filter; policy drop;\n"
        f'include "{path}"\n}}\n}}\n'
    )
    done = subprocess.run(["nft", "-c", "-f", str(whole)], capture_output=True, text=True, timeout=30)
    if "Operation not permitted" in done.stderr:
        pytest.skip("nft asks the kernel, which wants root")
    assert done.returncode == 0, done.stderr


def test_sysupgrade_keeps_the_configuration() -> None:
    makefile = (RECIPES / "nfreaim" / "Makefile").read_text()
    kept = re.search(r"^define Package/nfreaim/conffiles\n(.*?)\nendef", makefile, re.DOTALL | re.MULTILINE)
    assert kept is not None
    assert kept[1].split() == ["/etc/config/nfreaim"]
    assert "$(INSTALL_CONF) ./files/nfreaim.config $(1)/etc/config/nfreaim" in makefile


@needs_make
@pytest.mark.skipif(shutil.which("patch") is None, reason="patch is absent; apt install patch")
def test_the_patch_fits_the_version_of_its_recipe(tmp_path: Path) -> None:
    version = read("python-iptables", tmp_path)["PKG_VERSION"]
    installed = importlib.metadata.distribution("python-iptables")
    if installed.version != version:
        pytest.skip(f"python-iptables {installed.version} is installed, and the recipe is for {version}")
    source = Path(str(installed.locate_file("iptc")))
    shutil.copytree(source, tmp_path / "iptc", ignore=shutil.ignore_patterns("__pycache__"))
    (patch,) = (RECIPES / "python-iptables" / "patches").glob("*.patch")
    command = ["patch", "-p1", "--fuzz=0", "-i", str(patch)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in (tmp_path / "iptc").glob("*.py"):
        ast.parse(path.read_text())
