"""The command: train every method on each experiment asked for, profile a batch, write tables and figures. See README.md."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runner import RESULTS, environment, limit_threads
from densratio._arrays import to_device
from densratio.datasets import Labelled, load_cifar10n, load_labelled

from .figures import draw_figures
from .methods import LEARNED, OF_ROWS, Method, method_of, title
from .problems import draw
from .records import Files
from .session import Session
from .settings import QUICK, Experiment, settings_of
from .shifts import KNOWN, shift_of
from .stages import profile
from .tables import write_profile, write_tables
from .twice import session_of

SCRATCH = Path(__file__).parents[2] / ".benchdata" / "paper"
"""Where checkpoints are kept unless told; git ignores it."""
METHODS = "uniform,val_only,random,diw,kmm,kliep,lsif,wasserstein,kmm@32,kliep@32,lsif@32,wasserstein@32"


def main() -> None:
    """Read the command line and do what it says; a mistake in it ends in one line and exit status 2."""
    arguments = parser().parse_args()
    try:
        COMMANDS[arguments.command](arguments)
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    parser.add_argument(
        "command", nargs="?", choices=list(COMMANDS), default="run",
        help="run: train and write; profile: seconds of a batch by stage; report: tables and figures again from the records",
    )  # fmt: skip
    add = parser.add_argument
    add("--quick", action="store_true", help="digits, few epochs, runs and profile, in under a minute: proves the harness")
    add(
        "--data",
        default="digits",
        help="digits, letters:FILE, cifar10:FILE, time_series:FILE, or cifar10, cifar100, fashion_mnist:FOLDER",
    )
    add("--noise", default="symmetric:0.4", help=f"{KNOWN}; several separated by commas")
    add("--outside", help="data, named as --data, whose inputs take the place of some rows' under --noise open_set:0.2")
    add("--human-labels", help="an .npz of labels that people gave to CIFAR-10's training rows, for --noise human:worse")
    add(
        "--methods",
        default=METHODS,
        help="names separated by commas; NAME@32: a bank that renews 32 validation rows a step, NAME@32per4: in one of 4",
    )
    add("--seeds", default="3", help="how many, from 0 on; or the seeds themselves with commas, as in 4, or 0,2")
    add("--epochs", type=int, help="passes over the training rows")
    add("--batch-size", type=int, help="rows of a batch")
    add("--optimizer", choices=["adam", "sgd", "momentum"], help="momentum: SGD with momentum 0.9")
    add("--learning-rate", type=float, help="of the optimizer")
    add("--weight-decay", type=float, help="of the optimizer")
    add(
        "--schedule",
        help="of the rate: constant, quarters, linear, cosine, at:80/100 (times 0.1 there), at:160/180:0.01, cosine:10 (begins "
        "anew each 10)",
    )
    add("--crop-padding", type=int, help="images are padded by so many pixels and cropped at random")
    add("--flip", action=argparse.BooleanOptionalAction, help="images are mirrored left to right at random")
    add("--network", help="small, lenet5, convnet, lstm or resnet18")
    add("--n-val", help="clean validation rows; several separated by commas")
    add("--layer", default="losses", help="what is compared: losses (-L), hidden (-F), or a module's name; several, commas")
    add(
        "--parameters",
        default="library",
        help="library: this package's defaults; published: the paper's recipe whole, steps and widths",
    )
    add("--val-in-train", action="store_true", help="the validation rows are training rows too")
    add("--device", default="cpu", help="cpu, cuda or mps")
    add("--amp", action="store_true", help="bfloat16 where autocast takes it")
    add("--minutes", type=float, help="stop cleanly after so many; the same command then goes on")
    add("--resume", action=argparse.BooleanOptionalAction, default=True, help="go on with runs that were stopped")
    add("--batches", type=int, default=200, help="profile: rounds, in each of which every method takes a batch")
    add("--in-a-row", type=int, default=1, help="profile: least number of batches that a method takes in a round")
    add("--threads", type=int, default=1, help="of torch and every numerical library")
    add("--output", type=Path, help="folder of the results")
    add("--checkpoints", type=Path, default=SCRATCH, help="folder of the checkpoints")
    return parser


# ---------------------------------------------------------------- commands


def run(arguments: argparse.Namespace) -> None:
    """Train all runs that are asked for, then write the tables."""
    if arguments.quick:
        _quick(arguments)
    else:
        train(arguments)
    report(arguments)


def train(arguments: argparse.Namespace) -> None:
    """Train all runs that are asked for, or until the time is over."""
    plan, data, facts = _prepare(arguments)
    deadline = time.monotonic() + 60.0 * arguments.minutes if arguments.minutes else float("inf")
    jobs = [(experiment, seed, method) for experiment, seed in plan for method in _methods(arguments)]
    drawn: tuple[Any, Any] = (None, None)
    for number, (experiment, seed, method) in enumerate(jobs, start=1):
        if drawn[0] != (experiment, seed):
            drawn = (experiment, seed), draw(data, experiment, seed)
        problem = drawn[1]
        session = session_of(experiment, method, seed, problem, arguments.device)
        files = Files(_folder(arguments), arguments.checkpoints, session, facts)
        if arguments.resume and files.is_finished():
            _say(f"{number} of {len(jobs)}: {files.name} is there already.")
            continue
        if arguments.resume:
            files.load()
        is_done = session.advance(lambda: time.monotonic() > deadline, files.save)
        if not is_done:
            files.save()
        last = session.history["accuracy"][-1:] or [float("nan")]
        _say(f"{number} of {len(jobs)}: {files.name}, epoch {session.epoch}, accuracy {last[0]:.4f}")
        if not is_done:
            _say("Stopped at the time limit; the same command goes on.")
            break


def profile_batches(arguments: argparse.Namespace) -> None:
    """Seconds of a batch of each method, in turn."""
    plan, data, facts = _prepare(arguments)
    experiment, seed = plan[0]
    problem = draw(data, experiment, seed)
    # No warm-up epoch: every batch has its weight step.
    sessions = {
        title(str(method), experiment.layer): Session(experiment, method, seed, problem, arguments.device, warmup_epochs=0.0)
        for method in _methods(arguments)
    }
    rows = profile(sessions, arguments.batches, arguments.device, baseline="Uniform", batches_in_a_row=arguments.in_a_row)
    setting = experiment.setting
    about = f"{experiment.data}, {setting.network}, batch {setting.batch_size}, {experiment.n_val} validation rows"
    _folder(arguments).mkdir(parents=True, exist_ok=True)
    name = f"cost_{experiment.data}_{setting.network}_{arguments.device}"
    write_profile(_folder(arguments) / name, facts, about, rows)


def report(arguments: argparse.Namespace) -> None:
    """Tables and figures from the records."""
    if write_tables(_folder(arguments)):
        draw_figures(_folder(arguments))
    else:
        _say("No run has come through an epoch yet: there is nothing to report.")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {"run": run, "profile": profile_batches, "report": report}


# ---------------------------------------------------------------- parts


def experiments(arguments: argparse.Namespace) -> Iterator[Experiment]:
    """All combinations of the shifts, validation sizes and layers that are asked for."""
    name = arguments.data.partition(":")[0]
    names = ("network", "epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "schedule", "crop_padding", "flip")
    changes = {name: getattr(arguments, name) for name in names}
    for shift, n_val, layer in product(_listed(arguments.noise), _listed(arguments.n_val or ""), _listed(arguments.layer)):
        shift_of(shift)
        setting = settings_of(name, shift, changes)
        size = _integer(n_val, "--n-val") if n_val else setting.n_val
        yield Experiment(name, shift, setting, size, layer, arguments.parameters, arguments.amp, arguments.val_in_train)


def _prepare(arguments: argparse.Namespace) -> tuple[list[tuple[Experiment, int]], Labelled, dict[str, str]]:
    """Experiments with their seeds, the data, and the environment; everything that can be wrong is told here."""
    _methods(arguments)
    to_device(np.zeros(1, dtype=np.float32), arguments.device)
    data = load_labelled(arguments.data)
    if arguments.human_labels:
        data = data._replace(given=load_cifar10n(arguments.human_labels))
    if arguments.outside:
        data = data._replace(outside=load_labelled(arguments.outside).inputs)
    plan = list(product(experiments(arguments), _seeds(arguments.seeds)))
    limit_threads(arguments.threads)
    return plan, data, environment(arguments.device, (seed for _, seed in plan))


def _quick(arguments: argparse.Namespace) -> None:
    arguments.output = _folder(arguments)
    arguments.checkpoints = arguments.output / "checkpoints"
    arguments.quick, arguments.resume, arguments.data = False, False, "digits"
    arguments.seeds, arguments.batches, arguments.epochs, arguments.n_val = "1", 5, QUICK["epochs"], str(QUICK["n_val"])
    arguments.methods = "uniform,val_only,random,diw,kmm,kliep,lsif,wasserstein,kmm@32,wasserstein@32"
    train(arguments)
    profile_batches(arguments)
    arguments.methods = ",".join((*OF_ROWS, *LEARNED))
    train(arguments)
    arguments.layer, arguments.noise = "hidden", "class_prior:5"
    arguments.methods = "uniform,kmm,kliep,lsif,lsif@32,sliced,auto"
    train(arguments)


def _methods(arguments: argparse.Namespace) -> list[Method]:
    return list(dict.fromkeys(method_of(text) for text in _listed(arguments.methods)))


def _folder(arguments: argparse.Namespace) -> Path:
    return arguments.output or (SCRATCH / "quick" if arguments.quick else RESULTS / "paper")


def _seeds(text: str) -> list[int]:
    numbers = [_integer(part, "--seeds") for part in _listed(text.rstrip(","))]
    return numbers if "," in text else list(range(numbers[0]))


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def _integer(text: str, option: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{option} takes whole numbers, separated by commas; got {text!r}.")
    return int(text)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
