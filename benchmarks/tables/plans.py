"""How large the benchmark is: the whole, and one of under a minute that proves the harness."""

from __future__ import annotations

from typing import NamedTuple

from .workers import Limits

__all__ = ["FULL", "QUICK", "Plan"]


SHIFTS = (*((shift, d) for shift in ("gaussian", "mixture", "heavy tails") for d in (1, 2, 5)), ("subspace", 20))


class Plan(NamedTuple):
    """Sizes of every part. n, m: source and target rows; d: columns."""

    name: str = "full"
    seeds: int = 5
    limits: Limits = Limits()
    # accuracy
    shifts: tuple[tuple[str, int], ...] = SHIFTS
    rows: int = 1000
    n_fresh: int = 2000
    # cost
    cost_rows: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    cost_columns: int = 10
    cost_inputs: tuple[int, ...] = (1, 3, 10, 30, 100)
    cost_inputs_rows: int = 10_000
    cost_target: int = 1_000
    in_fresh_processes: bool = True
    # named speeds
    race: tuple[int, int, int] = (5_000, 1_000, 5)
    rounds: int = 10
    large: tuple[int, int, int] = (1_000_000, 100_000, 10)
    large_limits: Limits = Limits(600.0, 12.0)
    stream_rows: int = 10_000_000
    stream_block: int = 100_000
    stream_columns: int = 10


FULL = Plan()
QUICK = Plan(
    name="quick",
    seeds=1,
    limits=Limits(10.0, 4.0, 60.0),
    shifts=(("gaussian", 1), ("subspace", 3)),
    rows=80,
    n_fresh=50,
    cost_rows=(60, 120),
    cost_columns=2,
    cost_inputs=(1,),
    cost_inputs_rows=60,
    cost_target=40,
    in_fresh_processes=False,
    race=(120, 60, 2),
    rounds=1,
    large=(300, 60, 2),
    large_limits=Limits(10.0, 4.0, 60.0),
    stream_rows=4_000,
    stream_block=1_000,
    stream_columns=2,
)
