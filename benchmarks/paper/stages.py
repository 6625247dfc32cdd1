"""Where the time of a batch goes: seconds of each stage, and of whole batches of all methods in turn."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.runner import Row, interleaved, medians, synchronizer

from .session import Session

__all__ = ["STAGES", "StageClock", "profile"]

_MODEL = ("training forward", "validation forward", "weight step", "backward", "optimizer step")
STAGES = ("training fetch", "validation fetch", *_MODEL, "rest")


class StageClock:
    """Seconds of each stage of each batch that a session takes by it.

    Passes of the model are told apart by whether gradients are recorded; the weight step is the reweighter's `partial_fit`
    (`check`s, stored vectors and all); the rest is losses and what a validation pass keeps out of the model's state.
    """

    def __init__(self, synchronize: Callable[[], Any] | None = None, clock: Callable[[], float] = time.perf_counter):
        self.batches: list[dict[str, float]] = []
        self._wait, self._clock = synchronize or (lambda: None), clock

    def now(self) -> float:
        """Seconds, when the device has done what it was given."""
        self._wait()
        return self._clock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Within it time counts for `name`."""
        start = self.now()
        yield
        self.batches[-1][name] += self.now() - start

    def step(self, session: Session, batches: Iterator[Any]) -> None:
        """One batch of the session, by stages."""
        self.batches.append(dict.fromkeys(STAGES, 0.0))
        start = self.now()
        with self._listening(session):
            with self.stage("training fetch"):
                batch = next(batches)
            session.optimizer.zero_grad(set_to_none=True)
            loss = session.loss(batch)
            with self.stage("backward"):
                loss.backward()
            with self.stage("optimizer step"):
                session.optimizer.step()
        self.batches[-1]["rest"] = self.now() - start - sum(self.batches[-1].values())

    def means(self) -> dict[str, float]:
        """Mean seconds of each stage over the batches; of some methods only one batch in several looks at validation rows."""
        return {stage: statistics.fmean(batch[stage] for batch in self.batches) for stage in STAGES}

    @contextmanager
    def _listening(self, session: Session) -> Iterator[None]:
        started: list[float] = []

        def begin(*_: Any) -> None:
            started.append(self.now())

        def end(*_: Any) -> None:
            name = "training forward" if torch.is_grad_enabled() else "validation forward"
            self.batches[-1][name] += self.now() - started.pop()

        model, reweighter = session.model, session.reweighter
        hooks = [model.register_forward_pre_hook(begin), model.register_forward_hook(end)]
        calls = [(session, "next_validation", "validation fetch"), (reweighter, "partial_fit", "weight step")]
        calls = [call for call in calls if hasattr(*call[:2])]
        for owner, name, stage in calls:
            setattr(owner, name, self._timed(getattr(owner, name), stage))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for owner, name, _ in calls:
                delattr(owner, name)

    def _timed(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            with self.stage(stage):
                return call(*given, **named)

        return timed


def profile(sessions: dict[str, Session], rounds: int, device: str, *, baseline: str, batches_in_a_row: int = 1) -> list[Row]:
    """A row for each session: median seconds of a batch, times the baseline's, and mean seconds by stage.

    Each round all sessions take `batches_in_a_row` batches in an order drawn anew, without a wait in between: at least so many,
    and as many as hold whole cycles of every session, from one look at validation rows to the next. Then as many batches more are
    taken by stages, with a wait for the device around each. On the CPU seconds are those of this process, which
    others that want the cores do not lengthen.
    """
    synchronize, clock = synchronizer(device), time.process_time if device == "cpu" else time.perf_counter
    streams = {name: _endless(session) for name, session in sessions.items()}

    def whole(name: str) -> Callable[[], Any]:
        return lambda: sessions[name].step(next(streams[name]))

    def by_stage(name: str) -> Callable[[], Any]:
        return lambda: clocks[name].step(sessions[name], streams[name])

    for session in sessions.values():
        session.model.train()
    warm_up, cycle = max(3, rounds // 10), math.lcm(*(session.cycle for session in sessions.values()))
    in_a_row = -(-batches_in_a_row // cycle) * cycle
    seconds = interleaved(
        {name: whole(name) for name in sessions}, rounds, warm_up=warm_up, synchronize=synchronize,
        repeats=dict.fromkeys(sessions, in_a_row), clock=clock,
    )  # fmt: skip
    clocks = {name: StageClock(synchronize, clock) for name in sessions}
    interleaved({name: by_stage(name) for name in sessions}, rounds, warm_up=0)
    typical, first = medians(seconds), seconds.get(baseline, [])
    return [_row(name, typical[name], seconds[name], first, clocks[name]) for name in sessions]


def _row(name: str, typical: float, seconds: list[float], baseline: list[float], clock: StageClock) -> Row:
    # Of each round by itself: what slows the machine for a while slows both.
    ratios = sorted(mine / base for mine, base in zip(seconds, baseline, strict=False))
    stages = {f"{stage}, ms": 1e3 * value for stage, value in clock.means().items()}
    times = ratios[len(ratios) // 2] if ratios else None
    return {"method": name, "ms a batch": 1e3 * typical, "times Uniform": times, **stages}


def _endless(session: Session) -> Iterator[Any]:
    while True:
        yield from session.train
