"""The page that holds the papers against the package: the names, parameters and commands on it are there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import densratio
from densratio import datasets, plotting, solvers, training
from densratio.training import losses, meta
from densratio.training.meta import lilaw, weight_network

SPANS = re.findall(r"`([^`]+)`", (Path(__file__).parent.parent / "docs" / "papers.md").read_text())
ROOMS = (densratio, datasets, plotting, solvers, training, losses, meta, lilaw, weight_network)
THINGS = {name: getattr(room, name) for room in ROOMS for name in dir(room)}
ELSEWHERE = {"CalibratedClassifierCV", "ConfusionMatrixDisplay", "Objective", "requires_grad_"}
COMMANDS = "\n".join(span for span in SPANS if re.search(r"(^| )--", span))


@pytest.mark.parametrize("call", sorted({span for span in SPANS if re.fullmatch(r"[A-Za-z]\w*\(.*\)", span)}))
def test_a_call_names_what_exists_and_parameters_that_it_has(call):
    name, arguments = re.fullmatch(r"(\w+)\((.*)\)", call).groups()
    given = re.findall(r"(\w+)=", re.sub(r"\(.*\)", "", arguments))
    assert name in ELSEWHERE or set(given) <= set(inspect.signature(THINGS[name]).parameters)


def test_classes_and_parameters_that_stand_alone_exist():
    classes = {span for span in SPANS if re.fullmatch(r"[A-Z]\w+", span)}
    assert classes - ELSEWHERE - set(THINGS) == set()
    owners = [own for own in THINGS.values() if callable(own) and getattr(own, "__module__", "").startswith("densratio")]
    known = {name for owner in owners for name in inspect.signature(owner).parameters}
    assert {span[:-1] for span in SPANS if re.fullmatch(r"\w+=", span)} - known == set()


def test_the_shifts_schedules_methods_and_options_are_those_of_the_benchmark():
    command = pytest.importorskip("benchmarks.paper.__main__")
    from benchmarks.paper.methods import method_of
    from benchmarks.paper.session import decay_of
    from benchmarks.paper.shifts import shift_of

    shifts = [shift for part in re.findall(r"--noise (\S+)", COMMANDS) for shift in part.split(",")]
    assert len([shift_of(shift) for shift in shifts]) > 5
    assert {decay_of(schedule, 200)(0) for schedule in re.findall(r"--schedule ([^\s,]+)", COMMANDS)} == {1.0}
    assert [method_of(name) for names in re.findall(r"--methods (\S+)", COMMANDS) for name in names.split(",")]
    assert set(re.findall(r"--[a-z-]+", COMMANDS)) <= set(re.findall(r"--[a-z-]+", command.parser().format_help()))
