"""The shape of the package: which room imports which, and what every public name owes a reader."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import densratio

PACKAGE = Path(densratio.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# Data flows down this list: a module imports only from rooms above its own, or from its own.
ROOMS = [
    "_version",
    "_threads",
    "_arrays",
    "_blocks",
    "_callers",
    "_columns",
    "_distances",
    "_estimator",
    "_names",
    "_progress",
    "_scale",
    "_sentinels",
    "_validation",
    "projections",
    "features",
    "objectives",
    "solvers",
    "model_selection",
    "estimators",
    "diagnostics",
    "two_step",
    "tables",
    "datasets",
    "training",
    "labels",
    "demo",
    "testing",
    "plotting",
    "dask",
    "cli",
    "__main__",
]
COMMAND_LINE = {"cli", "__main__"}


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    """The room of densratio.room.anything; "" for the front door itself."""
    return [*module.split("."), ""][1]


TREES = {module_of(path): ast.parse(path.read_text()) for path in FILES}
MODULES = sorted(TREES)
INNER = [module for module in MODULES if module != "densratio"]
IS_FOLDER = {module_of(path): path.name == "__init__.py" for path in FILES}


def imports(module, tree=None):
    """Absolute names of all modules that a module imports, inside functions too."""
    for node in ast.walk(TREES[module] if tree is None else tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            base = parts[: len(parts) - node.level + IS_FOLDER[module]]
            if node.module:
                yield ".".join([*base, node.module])
            else:
                yield from (".".join([*base, alias.name]) for alias in node.names)


def own_imports(module):
    return {name for name in imports(module) if name.split(".")[0] == "densratio"}


# ---------------------------------------------------------------- layers


def test_every_room_of_the_design_up_to_training_is_there():
    assert {room_of(module) for module in INNER} >= set(ROOMS[: ROOMS.index("training") + 1])


def test_every_module_stands_in_a_room_and_imports_only_from_rooms_above_it():
    assert [module for module in INNER if room_of(module) not in ROOMS] == []
    rank = {module: ROOMS.index(room_of(module)) for module in INNER}
    below = {module: {name for name in own_imports(module) if ROOMS.index(room_of(name)) > rank[module]} for module in INNER}
    assert {module: names for module, names in below.items() if names} == {}


def test_the_front_door_opens_no_room_below_the_tables():
    below = {name for name in own_imports("densratio") if ROOMS.index(room_of(name)) > ROOMS.index("tables")}
    # A type checker is told of what loads when it is first used.
    assert below == {"densratio.labels"}


def test_a_type_checker_sees_at_the_front_door_what_a_person_gets():
    shown = {
        alias.name: importlib.import_module(f"densratio.{node.module}")
        for node in ast.walk(TREES["densratio"])
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert sorted(shown) == sorted(densratio.__all__) and set(densratio.__all__) <= set(dir(densratio))
    assert [name for name, home in shown.items() if getattr(densratio, name) is not getattr(home, name)] == []
    with pytest.raises(AttributeError, match="module 'densratio' has no attribute 'KLM'"):
        densratio.KLM  # noqa: B018


def test_no_module_imports_itself_through_others():
    graph = {module: {name for name in own_imports(module) if name in TREES} - {module} for module in INNER}
    while leaves := {module for module, needs in graph.items() if not needs & graph.keys()}:
        graph = {module: needs for module, needs in graph.items() if module not in leaves}
    assert graph == {}


def private_names(tree):
    """Names with one leading underscore that a module gives to functions, methods, and attributes of self."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        is_stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if is_stored and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def test_no_module_touches_a_private_attribute_of_another_room():
    owners = {}
    for module, tree in TREES.items():
        for name in filter(is_private, private_names(tree)):
            owners.setdefault(name, set()).add(room_of(module))
    doors = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not is_private(node.attr):
                continue
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not is_own and node.attr in owners and room_of(module) not in owners[node.attr]:
                doors.append(f"{module}:{node.lineno} .{node.attr}")
    assert doors == []


def test_an_objective_knows_no_solver_and_a_solver_no_estimator():
    for module in INNER:
        rooms = {room_of(name) for name in own_imports(module)}
        if room_of(module) == "objectives":
            assert not rooms & {"solvers", "estimators"}
        if room_of(module) == "solvers":
            assert "estimators" not in rooms


def test_only_arrays_knows_array_api_compat():
    users = {module for module in MODULES if any(name.split(".")[0] == "array_api_compat" for name in imports(module))}
    assert users == {"densratio._arrays"}


def imports_torch(module, tree=None):
    return any(name.split(".")[0] == "torch" for name in imports(module, tree))


def test_outside_the_rooms_of_training_torch_is_imported_in_to_device_alone():
    users = {module for module in MODULES if room_of(module) not in {"training", "labels", "demo"} and imports_torch(module)}
    assert users == {"densratio._arrays"}
    tree = TREES["densratio._arrays"]
    inside = [node for node in tree.body if imports_torch("densratio._arrays", node)]
    assert [node.name for node in inside if isinstance(node, ast.FunctionDef)] == ["to_device"]
    assert len(inside) == 1


def test_the_package_tells_type_checkers_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()


# ---------------------------------------------------------------- habits


def calls(module, *names):
    return [node.lineno for node in ast.walk(TREES[module]) if isinstance(node, ast.Call) and ast.unparse(node.func) in names]


QUIET = [module for module in MODULES if room_of(module) not in COMMAND_LINE]


def test_nothing_prints_outside_the_command_line():
    found = {module: calls(module, "print", "sys.stdout.write", "sys.stderr.write") for module in QUIET}
    assert {module: lines for module, lines in found.items() if lines} == {}


def test_no_function_passes_keyword_arguments_through_unnamed():
    found = [
        f"{module}, line {node.lineno}"
        for module in MODULES
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.FunctionDef | ast.Lambda)
        and node.args.kwarg is not None
        # scikit-learn fixes the signature of set_params, and skorch those of train_step_single and fit_loop; an observed fit has
        # that of the fit it observes.
        and getattr(node, "name", "") not in ("set_params", "train_step_single", "fit_loop", "observed_fit")
    ]
    assert found == []


def test_no_global_random_state_is_seeded_or_drawn_from():
    legacy = ["seed", "rand", "randn", "randint", "random", "normal", "uniform", "permutation", "shuffle", "choice"]
    of_numpy = [f"np.random.{name}" for name in legacy]
    drawn = {module: calls(module, *of_numpy, "random.seed", "random.random") for module in QUIET}
    assert {module: lines for module, lines in drawn.items() if lines} == {}
    unforked = {module: [n for n in calls(module, "torch.manual_seed") if not _is_forked(module, n)] for module in QUIET}
    assert {module: lines for module, lines in unforked.items() if lines} == {}


def _is_forked(module, line):
    return any(
        isinstance(node, ast.With) and "fork_rng" in ast.unparse(node.items[0]) and node.lineno <= line <= node.end_lineno
        for node in ast.walk(TREES[module])
    )


# ---------------------------------------------------------------- public names


def loaded(module):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # A module of one framework says which command installs it.
        if module.startswith("densratio.training.integrations.") and "pip install" in str(error):
            pytest.skip(str(error))
        raise


PUBLIC = [module for module in MODULES if room_of(module) not in COMMAND_LINE and room_of(module) != "plotting"]


@pytest.mark.parametrize("module", [module for module in PUBLIC if module != "densratio._version"])
def test_every_module_lists_its_public_names_sorted_and_each_is_there(module):
    names = loaded(module).__all__
    assert len(set(names)) == len(names) > 0
    assert [name for name in names if not hasattr(loaded(module), name)] == []


def lacks_docstring(name, value):
    doc = inspect.getdoc(value)
    # A dataclass without a docstring gets its signature for one, and a NamedTuple likewise.
    return not doc or doc.startswith(f"{name}(")


def public_methods(kind):
    for name, value in vars(kind).items():
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            yield name, getattr(kind, name)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_a_docstring(module):
    assert ast.get_docstring(TREES[module])
    public = {name: getattr(loaded(module), name) for name in getattr(loaded(module), "__all__", [])}
    described = {name: value for name, value in public.items() if inspect.isclass(value) or inspect.isfunction(value)}
    assert [name for name, value in described.items() if lacks_docstring(name, value)] == []
    missing = [
        f"{name}.{method}"
        for name, kind in described.items()
        if inspect.isclass(kind)
        for method, value in public_methods(kind)
        if not inspect.getdoc(value)
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("module", "registry", "door"),
    [
        ("densratio.objectives", "OBJECTIVES", "densratio.objectives"),
        ("densratio.solvers", "SOLVERS", "densratio.solvers"),
        ("densratio.features", "FEATURES", "densratio.features"),
        ("densratio.estimators", "ESTIMATORS", "densratio"),
        ("densratio.datasets.images", "LOADERS", "densratio.datasets"),
    ],
)
def test_every_registry_entry_is_exported(module, registry, door):
    entries = getattr(loaded(module), registry)
    assert registry in loaded(module).__all__ and len(entries) >= 3
    exported = {getattr(loaded(door), name) for name in loaded(door).__all__ if name not in ("OBJECTIVES", "SOLVERS")
                if callable(getattr(loaded(door), name))}  # fmt: skip
    assert set(entries.values()) <= exported


@pytest.mark.parametrize("registry", ["objectives.OBJECTIVES", "solvers.SOLVERS", "features.FEATURES"])
def test_every_concrete_kind_stands_in_its_registry(registry):
    room, name = registry.split(".")
    entries = set(getattr(loaded(f"densratio.{room}"), name).values())
    base = inspect.getmro(next(iter(entries)))
    root = next(kind for kind in base if kind.__name__ in ("Objective", "Solver", "Features"))

    def concrete(kind):
        found = set() if inspect.isabstract(kind) else {kind}
        return found.union(*(concrete(sub) for sub in kind.__subclasses__() if sub.__module__.startswith("densratio")))

    assert concrete(root) == entries


# ---------------------------------------------------------------- inheritance


def methods_by_class():
    """For each class of the package: the names of its bases, and of its methods whether they are abstract."""
    found = {}
    for node in (node for tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef)):
        bases = [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]
        functions = [part for part in node.body if isinstance(part, ast.FunctionDef) and not part.name.startswith("__")]
        is_abstract = {part.name: any("abstract" in ast.unparse(mark) for mark in part.decorator_list) for part in functions}
        # The problem that densratio.testing draws has the name of another class.
        found.setdefault(node.name, (bases, is_abstract))
    return found


CLASSES = methods_by_class()


def ancestors(name):
    for base in (base for base in CLASSES[name][0] if base in CLASSES):
        yield base
        yield from ancestors(base)


def test_few_concrete_methods_are_overridden():
    # A default that most classes replace is better abstract, data, or a function that is handed over.
    overridden = []
    for name, (_, methods) in CLASSES.items():
        for method in (method for method, is_abstract in methods.items() if not is_abstract):
            origin = next((base for base in ancestors(name) if method in CLASSES[base][1]), None)
            if origin and not CLASSES[origin][1][method]:
                overridden.append(f"{name}.{method} < {origin}")
    assert len(overridden) < 40, "\n".join(overridden)


def test_no_class_stands_more_than_three_steps_below_its_first_ancestor():
    def steps(name):
        return max((1 + steps(base) for base in CLASSES[name][0] if base in CLASSES), default=0)

    assert {name for name in CLASSES if steps(name) > 3} == set()
