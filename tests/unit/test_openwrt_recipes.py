"""The recipes of the OpenWrt packages: what `make` reads in them, and whether they agree with the tree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nfreaim
from nfreaim.host.check.native_remedies import FW4_FILE
from nfreaim.host.rules import nft_table, nft_text
from nfreaim.host.rules.rule_settings import Settings
from nfreaim.kernel_helpers import Assignment
from nfreaim.marks import DEFAULT

REPO = Path(__file__).resolve().parents[2]
RECIPES = REPO / "packaging" / "openwrt"
FILES = RECIPES / "nfreaim" / "files"
PACKAGES = {"nfreaim": "nfreaim", "python-netfilterqueue": "python3-netfilterqueue"}
FIELDS = ("PKG_NAME", "PKG_VERSION", "PKG_RELEASE", "PKG_LICENSE", "PKG_MAINTAINER")
OF_PACKAGE = ("SECTION", "CATEGORY", "TITLE", "DEPENDS")

# The words of the table's rules by the packages that bring their modules, from OpenWrt's tree:
# package/kernel/linux/modules/netfilter.mk, and include/netfilter.mk for its lists NFT_CORE and so on. A new
# word has to be looked up there.
BRINGS = {
    "kmod-nft-core": "accept ack assured burst bypass comment counter ct daddr delete direction doff"
    " dport drop fin flags goto hdrlength helper iifname ip jump l4proto length limit local map mark"
    " meta new notrack num oifname original over packets priority protocol rate return rst saddr second"
    " set skuid sport state status syn tcp to type udp update urg type_filter",
    "kmod-nft-nat": "dnat type_nat",
    "kmod-nft-fib": "fib",
    "kmod-nft-queue": "queue",
}
# The kernel's parts that Python talks to. kmod-nfnetlink-cthelper, for host.netfilter.conntrack_helper, is
# not among them: older trees lack it, and nobody could install a package that depends on what does not exist.
SUBSYSTEMS = {"packet_queue": "kmod-nfnetlink-queue", "conntrack": "kmod-nf-conntrack-netlink"}
# Programs by their packages, and a use of each that shows why: BusyBox's ip has no JSON and its flock no -w,
# OpenWrt's has no unshare, and a libnftables without JSON prints none.
PROGRAMS = {
    "ip-full": r'"ip", "-4", "-j"',
    "nftables-json": r'"nft", "-j"',
    "unshare": r'"unshare"',
    "flock": r"flock -w",
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
    have = read("python-netfilterqueue", tmp_path)["PKG_VERSION"]
    assert [int(part) for part in have.split(".")] >= [
        int(part) for part in least["netfilterqueue"].split(".")
    ]
    assert {"scapy", "python3-pyroute2", *PACKAGES.values()} - {"nfreaim"} <= depends(tmp_path)


def words_of_the_rules() -> set[str]:
    """With all that options add: clients on the router, a helper of the kernel, a flowtable."""
    words = "--lan lan --wan wan --protocol oscar:5190 --queue 5190 --workers 2 --local-client 1000"
    settings = Settings.of_words([*words.split(), "--firewall", "nft"])
    helpers = [Assignment("sip", "udp", (5060,))]
    text = nft_text.text(nft_table.source(), settings, helpers, guarded=True, native_queue=True)
    rules = (rule.partition("#")[0] for chain, rule in nft_text.rules_in(text))
    code = re.sub(r'"[^"]*"|[@$]\w+|(?<=goto )\w+|(?<=jump )\w+', "", "\n".join(rules))
    types = re.findall(r"^ *type (\w+) hook", text, re.MULTILINE)
    return {*re.findall(r"\b[a-z]\w*", code), *(f"type_{name}" for name in types)}


@needs_make
def test_every_word_of_the_rules_has_the_package_of_its_module(tmp_path: Path) -> None:
    brought = {word: package for package, words in BRINGS.items() for word in words.split()}
    used = words_of_the_rules()
    assert {"queue", "fib", "dnat", "type_nat"} < used
    assert used - brought.keys() == set()
    assert {brought[word] for word in used} == BRINGS.keys()
    assert BRINGS.keys() <= depends(tmp_path)


@needs_make
def test_every_part_of_the_kernel_and_every_program_that_is_used_has_its_package(tmp_path: Path) -> None:
    sources = [*(REPO / "nfreaim" / "host").rglob("*.py"), REPO / "rules" / "nfreaim-rules"]
    text = "\n".join(path.read_text() for path in sources)
    for package, use in PROGRAMS.items():
        assert re.search(use, text), package
        assert package in depends(tmp_path)
    for module, package in SUBSYSTEMS.items():
        assert REPO / "nfreaim" / "host" / "netfilter" / f"{module}.py" in sources
        assert package in depends(tmp_path)


@needs_make
def test_nothing_of_iptables_or_ipset_is_asked_for(tmp_path: Path) -> None:
    assert [name for name in depends(tmp_path) if re.search("ipt|ipset|xtables", name)] == []


@needs_make
def test_every_part_of_pythons_library_that_is_imported_has_its_package(tmp_path: Path) -> None:
    script = (
        "import sys, pkgutil, importlib, nfreaim\n"
        "from contextlib import suppress\n"
        "from nfreaim.errors import BackendError\n"
        "optional = ('iptc', 'rich', 'prometheus_client', 'miniupnpc')\n"  # the package has none of them
        "sys.modules.update(dict.fromkeys(optional))\n"
        "for one in pkgutil.walk_packages(nfreaim.__path__, 'nfreaim.'):\n"
        "    with suppress(BackendError, ModuleNotFoundError):\n"
        "        one.name.endswith('__main__') or importlib.import_module(one.name)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, timeout=120, check=True
    )
    needed = {f"python3-{name}" for name in set(SPLIT) & set(done.stdout.split()) - NOT_NEEDED}
    assert "python3-logging" in needed
    assert needed - depends(tmp_path) == set()


def test_the_page_says_which_libraries_are_new_enough() -> None:
    wanted = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["dependencies"]
    least = dict(line.split(">=") for line in wanted)
    page = (REPO / "docs" / "openwrt.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) \| (?:yes|no)\b.*\| ([\d.]+) \|$", page, re.MULTILINE))
    assert rows == {name: version for name, version in least.items() if name != "python-iptables"}


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
