"""The floors of the design: an arrow points down. Read from the sources, nothing is imported."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "ofrl_robot"
FLOORS = [
    {"errors"},
    {"specs", "files", "processes", "config", "registry"},
    {"images", "sessions"},
    {"control", "nets"},
    {"data", "sim"},
    {"algos"},
    {"policy"},
    {"robots", "cameras", "teleop"},
    {"recording", "training"},
    {"evaluation"},
    {"workflow"},
    {"pages"},
    {"cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Floors inside a folder: what a room of it may import of the same folder is below it.
INNER_FLOORS = {
    "data": [{"episodes"}, {"datasets"}, {"verify", "replay", "convert"}],
    "workflow": [{"flags", "corrections"}, {"diagnosis"}, {"choose_checkpoint"}, {"sweeps"}],
    "evaluation": [{"conditions"}, {"trials", "simulated"}, {"fidelity", "stress"}],
    "algos": [{"configs"}, {"registry", "divergence", "base", "build", "actor_critic"},
              {"bc", "cql", "brac"}],
}  # fmt: skip
SIDEWAYS: set = set()  # arrows within a floor
LIBRARY = sorted((ROOT / PACKAGE).rglob("*.py"))
NODES = sorted((ROOT / "ros").rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in LIBRARY}


class Imports(ast.NodeVisitor):
    """Names that a module imports, those under ``if TYPE_CHECKING`` apart."""

    def __init__(self, path):
        self.real, self.typing_only, self._typing = set(), set(), False
        self.relative = False
        self.visit(ast.parse(path.read_text(), str(path)))

    def visit_If(self, node):
        before = self._typing
        self._typing = before or "TYPE_CHECKING" in ast.dump(node.test)
        for child in node.body:
            self.visit(child)
        self._typing = before
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node):
        self._add(alias.name for alias in node.names)

    def visit_ImportFrom(self, node):
        self.relative = self.relative or node.level > 0
        base = node.module or ""
        names = [f"{base}.{alias.name}" for alias in node.names]
        self._add(name if name in MODULES else base for name in names)

    def _add(self, names):
        (self.typing_only if self._typing else self.real).update(names)


IMPORTS = {name: Imports(path) for name, path in MODULES.items()}


def room(module):
    """Room of a module of the library, None for the package itself (its version)."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def inner(names):
    return sorted(n for n in names if n.split(".")[0] == PACKAGE)


def test_every_room_has_a_floor():
    assert {room(m) for m in MODULES} - {None} == set(FLOOR)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module):
    here, wrong = room(module), []
    for target in inner(IMPORTS[module].real | IMPORTS[module].typing_only):
        there = room(target)
        if here is None or there is None or there == here:
            if here is None and there is not None:
                wrong.append(target)  # importing the package must load nothing
            continue
        if FLOOR[there] >= FLOOR[here] and (here, there) not in SIDEWAYS:
            wrong.append(target)
    assert not wrong, f"{module} (floor {FLOOR.get(here)}) imports {wrong}"
    assert not IMPORTS[module].relative, "write imports in full"


@pytest.mark.parametrize("folder", sorted(INNER_FLOORS))
def test_imports_point_down_inside_a_folder(folder):
    floor = {name: k for k, names in enumerate(INNER_FLOORS[folder]) for name in names}
    prefix = f"{PACKAGE}.{folder}."
    inside = {module for module in MODULES if module.startswith(prefix)}
    assert {module[len(prefix) :].split(".")[0] for module in inside} == set(floor)
    wrong = []
    for module in sorted(inside):
        here = module[len(prefix) :].split(".")[0]
        for target in inner(IMPORTS[module].real | IMPORTS[module].typing_only):
            there = target[len(prefix) :].split(".")[0]
            if target.startswith(prefix) and there != here and floor[there] > floor[here]:
                wrong.append(f"{module} -> {target}")
            if target.startswith(prefix) and folder == "data" and there != here:
                wrong += [f"{module} -> {target}"] * (floor[there] == floor[here])
    assert not wrong


def test_no_import_cycles():
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join(path[path.index(module) :] + [module])
        if module in done:
            return
        path.append(module)
        for target in inner(IMPORTS[module].real):
            if target in MODULES:
                visit(target)
        done.add(path.pop())

    for module in sorted(MODULES):
        visit(module)


@pytest.mark.parametrize(
    ("rooms", "forbidden"),
    [
        (set(FLOOR), {"rospy", "roslib", "rospkg", "sensor_msgs", "std_msgs", "geometry_msgs"}),
        (set(FLOOR), {"dill", "joblib"}),
        (set(FLOOR) - {"sim"}, {"pybullet"}),
        (set(FLOOR) - {"data"}, {"h5py"}),
        ({"control"}, {"torch", "threading", "socket", "subprocess", "pathlib", "os"}),
        ({"specs", "errors", "control"}, {"torch", "gymnasium", "tyro", "rich"}),
        ({"policy"}, {"tensorboard", "scipy", "matplotlib"}),
    ],
)
def test_a_library_stays_in_its_room(rooms, forbidden):
    found = {
        module: hit
        for module, imports in IMPORTS.items()
        if room(module) in rooms
        for hit in [{n.split(".")[0] for n in imports.real} & forbidden]
        if hit
    }
    assert not found


def test_only_the_converter_that_disarms_pickles_knows_them():
    assert {m for m, i in IMPORTS.items() if "pickle" in i.real} == {
        "ofrl_robot.data.convert.unpickle"
    }


def test_the_cli_loads_nothing_heavy_before_a_verb_runs():
    """`ofrl --help` must be quick: torch and the simulator are imported inside the verbs."""
    seen, todo = set(), [f"{PACKAGE}.cli.commands"]
    while todo:
        module = todo.pop()
        if module in seen or module not in MODULES:
            continue
        seen.add(module)
        for node in ast.parse(MODULES[module].read_text()).body:  # top level only
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                joined = [f"{node.module}.{a.name}" for a in node.names]
                names = [n if n in MODULES else node.module for n in joined]
            else:
                continue
            heavy = {n.split(".")[0] for n in names} & {"torch", "pybullet", "h5py", "scipy"}
            assert not heavy, f"{module} imports {heavy}"
            todo += names


@pytest.mark.parametrize("path", LIBRARY + NODES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_3_8_can_parse_it(path):
    ast.parse(path.read_text(), str(path), feature_version=(3, 8))
