"""One warm-started step of each method against DIW's quadratic program for the same batch of losses.

`step` is the solver's warm start and step on given kernels, against the program on given kernels. `kernels and step` is
DensityRatio.update on the arrays that a loop hands it, and `partial_fit` is DynamicReweighter.partial_fit with its checks and
stored vectors; both are held against the program with its kernels. Wasserstein has no kernels: its step is the whole.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import cvxopt
import numpy as np
import torch
from runner import environment, interleaved, limit_threads, medians, synchronizer, write

from densratio.estimators import IN_LOOPS, objective_of
from densratio.estimators.solve import Assembly, choose_solver
from densratio.training import DynamicReweighter
from densratio.training.ratio.stored_step import cheapest

TARGET = 50.0
MAX_WEIGHT = 50.0
BASELINE = "DIW: cvxopt QP, with its kernels"
BARE = "DIW: cvxopt QP, kernels given"
REPEATS = 20  # of each short call in a round
WARM_STEPS = 20  # taken before the clock starts, so that a step starts from weights and not from ones


def batch(seed: int, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses (n,) of a noisy training batch, half with flipped labels, and (m,) of a clean validation batch."""
    rng = np.random.default_rng(seed)
    clean = rng.gamma(1.5, 0.3, n // 2)
    flipped = rng.normal(3.0, 0.8, n - n // 2).clip(0.05)
    return rng.permutation(np.concatenate([clean, flipped])), rng.gamma(1.5, 0.3, m)


def program(train: np.ndarray, val: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """DIW's kernel matrix (n, n) with its ridge, and kappa (n,)."""
    n, m = len(train), len(val)
    kernel = np.exp(-gamma * (train[:, None] - train[None, :]) ** 2) + 1e-5 * np.eye(n)
    kappa = np.exp(-gamma * (train[:, None] - val[None, :]) ** 2).sum(axis=1) * (n / m)
    return kernel, kappa


def solve(kernel: np.ndarray, kappa: np.ndarray, *, is_sparse: bool) -> np.ndarray:
    """DIW's weights (n,): 0 <= w <= 50, |mean(w) - 1| <= (sqrt(n) - 1) / sqrt(n), by cvxopt to its own tolerance."""
    n = len(kappa)
    eps = (n**0.5 - 1.0) / n**0.5
    bounds = np.r_[n * (1.0 + eps), n * (eps - 1.0), np.full(n, MAX_WEIGHT), np.zeros(n)]
    if is_sparse:
        ones, eye = cvxopt.matrix(1.0, (1, n)), cvxopt.spmatrix(1.0, range(n), range(n))
        constraints = cvxopt.sparse([ones, -ones, eye, -eye])
    else:
        constraints = cvxopt.matrix(np.r_[np.ones((1, n)), -np.ones((1, n)), np.eye(n), -np.eye(n)])
    answer = cvxopt.solvers.qp(cvxopt.matrix(kernel), cvxopt.matrix(-kappa), constraints, cvxopt.matrix(bounds))
    return np.array(answer["x"])[:, 0]


def step_alone(ratio: Any, source: Any, target: Any, coef: Any) -> Callable[[], Any]:
    """The solver's warm start and one step, its samples made beforehand."""
    assembly = Assembly(objective_of(ratio), ratio.update(source, target, coef).features)
    problem = assembly.objective.problem(*assembly.inputs(source, target))
    solver = choose_solver(ratio, problem, to_convergence=False)
    return lambda: solver.step(problem, solver.init(problem, coef))


def calls(seed: int, n: int, m: int, device: str) -> dict[str, Callable[[], Any]]:
    """The named pieces of work on one batch."""
    train, val = batch(seed, n, m)
    train_losses, val_losses = (torch.tensor(x, dtype=torch.float32, device=device) for x in (train, val))
    source, target = train_losses[:, None], val_losses[:, None]
    index, val_index = torch.randperm(n), torch.randperm(m)
    train64, val64 = train_losses.cpu().numpy().astype(np.float64), val_losses.cpu().numpy().astype(np.float64)
    gamma = float(IN_LOOPS["kmm"](gamma="target_spread").update(source, target).features.gamma_)
    kernel, kappa = program(train64, val64, gamma)

    work: dict[str, Callable[[], Any]] = {}
    for name, kind in IN_LOOPS.items():
        ratio = kind(gamma="target_spread")
        reweighter = DynamicReweighter(name, n_train=n, n_val=m, warmup_epochs=0).to(device)
        arrays = cheapest(source, target, torch.ones(n if name in ("kmm", "wasserstein") else m, device=device))
        for _ in range(WARM_STEPS):
            arrays = (*arrays[:2], ratio.update(*arrays).coef)
            reweighter.partial_fit(train_losses, val_losses, index, val_index)
        work[f"{name}, step"] = step_alone(ratio, *arrays)
        work[f"{name}, kernels and step"] = lambda ratio=ratio, arrays=arrays: ratio.update(*arrays)
        work[f"{name}, partial_fit"] = lambda reweighter=reweighter: reweighter.partial_fit(
            train_losses, val_losses, index, val_index
        )
    work[BASELINE] = lambda: solve(*program(train64, val64, gamma), is_sparse=False)
    work[BARE] = lambda: solve(kernel, kappa, is_sparse=False)
    work["cvxopt QP with a sparse constraint matrix"] = lambda: solve(*program(train64, val64, gamma), is_sparse=True)
    return work


def _rival(name: str) -> str:
    return BARE if name.endswith("step") and "kernels" not in name else BASELINE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--n", type=int, default=256, help="training and validation rows of a batch")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="torch and BLAS threads; 0: their own choice")
    arguments = parser.parse_args()
    cvxopt.solvers.options["show_progress"] = False
    limit_threads(arguments.threads)
    torch.manual_seed(0)
    facts = environment(arguments.device, range(arguments.seeds))

    times, fastest, gains = [], [], []
    for seed in range(arguments.seeds):
        work = calls(seed, arguments.n, arguments.n, arguments.device)
        repeats = {name: REPEATS for name in work if "QP" not in name}
        seconds = interleaved(work, arguments.rounds, repeats=repeats, synchronize=synchronizer(arguments.device))
        times.append(medians(seconds))
        fastest.append({name: min(values) for name, values in seconds.items()})
        gains.append({name: times[-1][_rival(name)] / value for name, value in times[-1].items()})
    rows = []
    for name in times[0]:
        gain = [g[name] for g in gains]
        is_ours = "QP" not in name
        rows.append(
            {
                "": name,
                "median us": 1e6 * statistics.median(t[name] for t in times),
                "times faster than its QP": statistics.median(gain),
                "worst seed": min(gain),
                "fastest round, us": 1e6 * statistics.median(t[name] for t in fastest),
                "times faster, fastest rounds": statistics.median(t[_rival(name)] / t[name] for t in fastest),
                f">= {TARGET:.0f}": ("yes" if statistics.median(gain) >= TARGET else "NO") if is_ours else "",
            }
        )
    note = (
        f"n = m = {arguments.n} one-dimensional losses, half of them of flipped labels; {arguments.seeds} seeds, "
        f"{arguments.rounds} interleaved rounds each; medians over rounds, then over seeds. A step on given kernels is "
        "held against the QP on given kernels, the rest against the QP with its kernels. The steps run in float32 "
        f"on {arguments.device}; the QP in numpy and cvxopt on the CPU. Both sides have the same number of threads: batches of "
        "this size gain nothing from more than one, and lose much where another process wants the cores. On a busy machine the "
        "long call is interrupted more often than the short ones, and the medians flatter them: the fastest rounds do not."
    )
    name = "weight_step" if arguments.device == "cpu" else f"weight_step_{arguments.device}"
    write(name, "One warm-started step against DIW's quadratic program", facts, [("One batch", note, rows)])


if __name__ == "__main__":
    main()
