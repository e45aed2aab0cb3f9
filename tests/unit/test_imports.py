"""Who may import whom, and how long a file may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "nfreaim"
LONGEST = 400

# What a part of the package may import besides the standard library and itself. The longest prefix counts.
ALLOWED = {
    "nfreaim": {"nfreaim.cli"},  # __init__ and __main__
    "nfreaim.errors": set(),
    "nfreaim.exit_status": {"nfreaim.errors"},
    "nfreaim.old_spellings": {"nfreaim.errors"},
    "nfreaim.protocols": {"nfreaim.errors", "nfreaim.core", "nfreaim.helpers", "nfreaim.old_spellings"},
    "nfreaim.kernel_helpers": {"nfreaim.errors", "nfreaim.protocols"},
    "nfreaim.marks": set(),
    "nfreaim.same_program": set(),
    "nfreaim.config": {
        "nfreaim.errors",
        "nfreaim.marks",
        "nfreaim.kernel_helpers",
        "nfreaim.core",
        "nfreaim.helpers",
        "nfreaim.old_spellings",
        "nfreaim.protocols",
        "nfreaim.config_values",
    },
    "nfreaim.config_values": {"nfreaim.errors", "nfreaim.core", "nfreaim.protocols"},
    "nfreaim.interface_options": {"nfreaim.config_values"},
    "nfreaim.setting_options": {
        *("nfreaim.interface_options", "nfreaim.protocols", "nfreaim.config", "nfreaim.config_values"),
        *("nfreaim.errors", "nfreaim.marks", "nfreaim.old_spellings", "nfreaim.host.netfilter.interfaces"),
    },
    "nfreaim.uci": {"nfreaim.config", "nfreaim.config_values", "nfreaim.errors", "nfreaim.exit_status"},
    "nfreaim.core": {"nfreaim.errors"},
    "nfreaim.layers": {"scapy.packet", "scapy.fields"},
    "nfreaim.helpers": {"nfreaim.core", "nfreaim.layers", "nfreaim.errors"},
    "nfreaim.capture": {"nfreaim.core", "nfreaim.errors"},
    "nfreaim.replay": {
        *("nfreaim.core", "nfreaim.errors", "nfreaim.exit_status", "nfreaim.capture", "nfreaim.protocols"),
    },
    "nfreaim.recording": {"nfreaim.core", "nfreaim.errors", "nfreaim.capture"},
    "nfreaim.explain": {
        *("nfreaim.core", "nfreaim.errors", "nfreaim.capture", "nfreaim.protocols"),
        *("nfreaim.recording", "nfreaim.replay", "nfreaim.exit_status"),
    },
    "nfreaim.host.record": {"nfreaim.capture", "nfreaim.recording", "nfreaim.interface_options"},
    "nfreaim.host": {
        *("nfreaim.core", "nfreaim.errors", "nfreaim.config", "nfreaim.config_values"),
        *("nfreaim.old_spellings", "nfreaim.same_program"),
        *("nfreaim.kernel_helpers", "nfreaim.protocols", "nfreaim.marks", "nfreaim.exit_status"),
    },
    "nfreaim.host.netfilter.packet_queue": {"netfilterqueue"},
    "nfreaim.host.netfilter.iptables": {"iptc"},
    "nfreaim.host.slim_imports": {"scapy"},
    "nfreaim.host.netfilter.conntrack": {"pyroute2"},
    "nfreaim.host.report.status": {"nfreaim.__version__"},
    "nfreaim.show": {
        *("nfreaim.__version__", "nfreaim.core", "nfreaim.errors", "nfreaim.config", "nfreaim.helpers"),
        *("nfreaim.host.events", "nfreaim.host.report", "nfreaim.host.rules", "nfreaim.exit_status"),
        "nfreaim.same_program",
    },
    "nfreaim.show.top": {"rich"},
    "nfreaim.show.exposition": {"prometheus_client"},
    "nfreaim.host.upstream.igd": {"miniupnpc"},
    "nfreaim.cli": {"nfreaim"},
}


def imports(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Absolute names of the modules that `source`, which is `module`, imports anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".") if is_package else module.split(".")[:-1]
            parents = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            # `from nfreaim import cli` imports a module: of our packages, what is taken counts too.
            ours = base == "nfreaim" or (PACKAGE.parent / base.replace(".", "/")).is_dir()
            yield from (f"{base}.{alias.name}" if ours else base for alias in node.names)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def forbidden(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports of a module that the rule above does not allow."""
    parts = [part for part in ALLOWED if within(module, part)]
    own = max((part for part in parts if part.count(".") <= 1), key=len)
    allowed = set().union(*(ALLOWED[part] for part in parts if part != "nfreaim" or own == "nfreaim"))
    if own != "nfreaim":
        allowed.add(own)
    return [
        name
        for name in imports(source, module, is_package)
        if name.partition(".")[0] not in sys.stdlib_module_names
        and not any(within(name, prefix) for prefix in allowed)
    ]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(REPO).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


@pytest.mark.parametrize(("module", "path"), [pytest.param(*pair, id=pair[0]) for pair in modules()])
def test_module_imports_only_what_its_layer_may(module: str, path: Path) -> None:
    assert forbidden(path.read_text(), module, path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nfreaim.core.engine", "import scapy.packet"),
        ("nfreaim.core.engine", "from nfreaim.layers import oscar"),
        ("nfreaim.core.engine", "from ..layers import oscar"),
        ("nfreaim.core.engine", "from nfreaim import cli"),
        ("nfreaim.core.engine", "def late():\n    import nfreaim.host.netfilter.packet_queue"),
        ("nfreaim.layers.oscar_messages", "from scapy.layers.inet import IP"),
        ("nfreaim.layers.oscar_messages", "from nfreaim.core.tcp.segment import Segment"),
        ("nfreaim.helpers.oscar.session", "from nfreaim.host import rules"),
        ("nfreaim.helpers.oscar.session", "import scapy.packet"),
        ("nfreaim.host.loop", "import iptc"),
        ("nfreaim.host.netfilter.packet_queue", "import pyroute2"),
        ("nfreaim.host.loop", "from nfreaim.helpers import HELPERS"),
        ("nfreaim.replay", "from nfreaim.host.netfilter.packet_queue import Queue"),
        ("nfreaim.capture", "from nfreaim.cli import main"),
        ("nfreaim.errors", "import nfreaim.core"),
    ],
)
def test_forbidden_import_is_caught(module: str, source: str) -> None:
    assert forbidden(source, module) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nfreaim.core.engine", "from nfreaim.core import flow\nfrom .packet import Segment\nimport struct"),
        ("nfreaim.host.netfilter.packet_queue", "import netfilterqueue\nfrom nfreaim.config import Settings"),
        (
            "nfreaim.helpers.oscar.session",
            "from nfreaim.layers import oscar\nfrom nfreaim.errors import Malformed",
        ),
        ("nfreaim.cli", "from nfreaim.host import check\nfrom nfreaim import replay"),
    ],
)
def test_allowed_import_passes(module: str, source: str) -> None:
    assert forbidden(source, module) == []


def targets(sources: dict[str, str]) -> dict[str, set[str]]:
    """For each module its imports among *sources*, wherever they stand in it (also under TYPE_CHECKING)."""
    found: dict[str, set[str]] = {}
    for module, source in sources.items():
        package = (REPO / module.replace(".", "/")).is_dir()
        names = set(imports(source, module, package))
        # `from nfreaim.core.flow import Flow` names a module, `from nfreaim.core import records` another.
        found[module] = {name for name in names if name in sources} - {module}
    return found


def rings(edges: dict[str, set[str]]) -> list[str]:
    """One ring of nodes that import each other for each node that is in one; empty where there is none."""
    found = []
    for start in sorted(edges):
        way: dict[str, str] = {}
        queue = [start]
        while queue and start not in way:
            here = queue.pop(0)
            for there in sorted(edges.get(here, ())):
                if there not in way:
                    way[there] = here
                    queue.append(there)
        if start in way:
            ring = [start]
            while len(ring) == 1 or ring[-1] != start:
                ring.append(way[ring[-1]])
            found.append(" < ".join(ring))
    return found


def folded(edges: dict[str, set[str]], package: str) -> dict[str, set[str]]:
    """The imports among the children of *package*: its modules, and its packages as one node each."""

    def child(module: str) -> str:
        return package + "." + module.removeprefix(f"{package}.").partition(".")[0]

    inside = {module: goals for module, goals in edges.items() if module.startswith(f"{package}.")}
    children: dict[str, set[str]] = {}
    for module, goals in inside.items():
        children.setdefault(child(module), set()).update(child(goal) for goal in goals if goal in inside)
    return {node: goals - {node} for node, goals in children.items()}


PACKAGES = sorted({module.rpartition(".")[0] for module, _ in modules() if "." in module})


@pytest.mark.parametrize("package", PACKAGES)
def test_no_ring_among_the_modules_and_packages_of_a_package(package: str) -> None:
    edges = targets({module: path.read_text() for module, path in modules()})
    assert rings(folded(edges, package)) == []


def test_a_ring_is_found_also_under_type_checking() -> None:
    sources = {
        "nfreaim.core.one": "from nfreaim.core.two import Two",
        "nfreaim.core.two": "if TYPE_CHECKING:\n    from nfreaim.core.deep.three import Three",
        "nfreaim.core.deep.three": "def late():\n    from nfreaim.core import one",
    }
    assert rings(targets(sources))
    assert rings(folded(targets(sources), "nfreaim.core"))
    del sources["nfreaim.core.two"]
    assert not rings(targets(sources))


def test_no_module_name_stands_twice() -> None:
    names: dict[str, list[str]] = {}
    for module, _ in modules():
        names.setdefault(module.rpartition(".")[2], []).append(module)
    assert {name: where for name, where in names.items() if len(where) > 1} == {}


def test_each_third_party_library_has_one_door() -> None:
    doors: dict[str, set[str]] = {}
    for module, path in modules():
        for name in imports(path.read_text(), module, path.name == "__init__.py"):
            library = name.partition(".")[0]
            if library not in sys.stdlib_module_names and library not in {"nfreaim", "scapy"}:
                doors.setdefault(library, set()).add(module)
    assert {library: users for library, users in doors.items() if len(users) > 1} == {}


def test_the_tcp_of_the_tests_shares_nothing_with_what_it_judges() -> None:
    for path in (REPO / "tests" / "tcp").glob("*.py"):
        taken = imports(path.read_text(), f"tests.tcp.{path.stem}")
        assert not [name for name in taken if within(name, "nfreaim")], path.name


def test_no_file_is_longer_than_a_sitting() -> None:
    folders = [PACKAGE, *(REPO / name for name in ("tests", "bench", "demo", "stress", "pcaps", "scripts"))]
    lengths = {
        str(path.relative_to(REPO)): len(path.read_text().splitlines())
        for folder in folders
        for path in folder.rglob("*.py")
    }
    assert lengths, "no files found: the test looks in the wrong place"
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_the_command_line_alone_loads_no_library_that_reads_files_when_it_is_imported() -> None:
    heavy = {"scapy", "iptc", "pyroute2", "rich", "prometheus_client"}
    script = f"import sys, nfreaim.cli; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, timeout=60
    )
    assert found.stdout == "[]\n", found.stderr
