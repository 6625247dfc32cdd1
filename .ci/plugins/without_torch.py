"""A pytest plugin for interpreters that torch has no CPU wheel for: tests that use torch are skipped, the rest of their file runs.

Test files import torch at their top. While they are collected a stand-in takes its place; what a test calls of it skips the test.
The library itself meets no stand-in: while tests run there is no torch.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest

find_spec = importlib.util.find_spec
IS_ABSENT = find_spec("torch") is None
is_collecting = True


class Absent:
    """Whatever is asked of it is another; a call skips the test that makes it."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Absent()

    def __call__(self, *_: Any, **__: Any) -> Any:
        if not is_collecting:
            pytest.skip("torch is not installed")
        return Absent()

    def __getitem__(self, _: Any) -> Any:
        return self()

    def __setitem__(self, *_: Any) -> None:
        self()

    def __repr__(self) -> str:
        return "absent"

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return (type("AbsentBase", (AbsentClass,), {}),)  # a class of its own: two bases of one class must differ


class AbsentClass:
    """What stands in for a class of torch that is inherited from."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return Absent()()


class StandIn(ModuleType):
    """A module in which everything is there and nothing works."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return AbsentClass if name == "Tensor" else sys.modules.get(f"{self.__name__}.{name}", Absent())


class Finder:
    """Finds a stand-in for torch and each of its modules."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(name, self, is_package=True) if _is_of_torch(name) else None

    def create_module(self, spec: Any) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


finder = Finder()


def _is_of_torch(name: str) -> bool:
    return name.partition(".")[0] == "torch"


def pytest_sessionstart(session: pytest.Session) -> None:
    if IS_ABSENT:
        sys.meta_path.insert(0, finder)
        # What asks whether torch is there hears the truth.
        importlib.util.find_spec = lambda name, package=None: None if _is_of_torch(name) else find_spec(name, package)


def pytest_collection_finish(session: pytest.Session) -> None:
    global is_collecting
    is_collecting = False
    if IS_ABSENT:
        sys.meta_path.remove(finder)
        importlib.util.find_spec = find_spec
        for name in [*filter(_is_of_torch, sys.modules)]:
            del sys.modules[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Any:
    values = getattr(getattr(item, "callspec", None), "params", {}).values()
    if any(isinstance(value, Absent) for value in values):
        pytest.skip("torch is not installed")
    return (yield from _skipped())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    return (yield from _skipped())


def _skipped() -> Any:
    """Run what the hook stands around, fixtures or a test, and skip the test where torch is missed."""
    try:
        return (yield)
    except BaseException as error:
        if IS_ABSENT and _misses_torch(error):
            pytest.skip("torch is not installed")
        raise


def _misses_torch(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that torch is not there, or tells what to install."""
    while error is not None:
        if any(words in str(error) for words in ("No module named 'torch'", "densratio-toolkit[torch")):
            return True
        error = error.__cause__ or error.__context__
    return False
