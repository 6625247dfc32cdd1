"""The driver's side of a worker: starts it with so many threads, sends it jobs, and ends it at the limits of time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from benchmarks.runner import Row

from .environments import ROOT

__all__ = ["Crew", "Limits", "variables"]

HERE = Path(__file__).parent
POLL_SECONDS = 0.02
ENDED_ITSELF = "ended by itself"
PACKAGE_FOLDER = {"own": str(ROOT)}
THREAD_VARIABLES = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "VECLIB_MAXIMUM_THREADS",
]


class Limits(NamedTuple):
    """Seconds of the timed part, GiB resident, and seconds of the import and the warm-up."""

    seconds: float = 120.0
    gib: float = 8.0
    start_seconds: float = 300.0


class _EndedError(Exception):
    """The worker has ended: at which limit or how it went, and its last words where it went by itself."""

    def __init__(self, status: str, reason: str | None):
        super().__init__(status)
        self.outcome: Row = {"status": status} if reason is None else {"status": status, "reason": reason}


class Worker:
    """One process of worker.py in `python`, for one library."""

    def __init__(self, library: str, environment: str, python: Path, threads: int, limits: Limits, scratch: Path):
        self.limits, self._unread, self._log = limits, b"", scratch / f"{library}.log"
        command = [str(python), "-P", str(HERE / "worker.py"), str(HERE / "libraries" / f"for_{library}.py")]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=variables(environment, threads),
                cwd=scratch, start_new_session=True,
            )  # fmt: skip
        self.versions: dict[str, str] = self._await("ready", limits.start_seconds)["versions"]

    def run(self, job: Row) -> Row:
        """The job's outcome; raises `_EndedError` where the worker didn't live to tell."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((json.dumps(job) + "\n").encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._end(ENDED_ITSELF)
        self._await("started", self.limits.start_seconds)
        return self._await("done", self.limits.seconds)

    def close(self) -> None:
        """End the process and what it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):  # a job that was never read
                if pipe is not None:
                    pipe.close()
        self._process.wait()

    def _await(self, event: str, seconds: float) -> Row:
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                # Two messages may have come in one read, and the pipe is silent about the second.
                if b"\n" in self._unread or selector.select(POLL_SECONDS):
                    message = self._read()
                    if message is not None and message["event"] == event:
                        return message
                if (_resident_gib(self._process.pid) or 0.0) > self.limits.gib:
                    self._end(f"over {self.limits.gib:g} GiB")
        self._end(f"over {seconds:g} s" if event == "done" else f"over {seconds:g} s before it began")

    def _read(self) -> Row | None:
        """The next whole message, or None."""
        assert self._process.stdout is not None
        if b"\n" not in self._unread:
            part = os.read(self._process.stdout.fileno(), 65536)
            if not part:
                self._end(ENDED_ITSELF)
            self._unread += part
        line, newline, rest = self._unread.partition(b"\n")
        if not newline:
            return None
        self._unread = rest
        return json.loads(line)

    def _end(self, status: str) -> NoReturn:
        self.close()
        words = self._log.read_text(errors="replace").split("\n") if status == ENDED_ITSELF else []
        last = next((line.strip()[:300] for line in reversed(words) if line.strip()), None)
        raise _EndedError(status, last)


class Crew:
    """The workers by library: started when first needed, kept from job to job, and started anew after one is ended."""

    def __init__(self, interpreters: dict[str, Path | None], threads: int, limits: Limits):
        self.interpreters, self.threads, self.limits = interpreters, threads, limits
        self.versions: dict[str, dict[str, str]] = {}
        self._workers: dict[str, Worker] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="densratio-tables-")
        self.scratch = Path(self._scratch.name)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: Any) -> None:
        for library in list(self._workers):
            self.dismiss(library)
        self._scratch.cleanup()

    def run(
        self, library: str, environment: str, job: Row, *, limits: Limits | None = None, alone: bool = False
    ) -> tuple[Row, dict[str, np.ndarray]]:
        """A job's outcome, and the arrays that it wrote ("weights", "fresh"), which are none where it failed.

        job: problem, method, params, seed. alone: in a process of its own. limits: others than the crew's.
        """
        if self.interpreters[environment] is None:
            return {"status": "absent", "reason": f"no environment {environment!r}"}, {}
        output = self.scratch / "answer.npz"
        output.unlink(missing_ok=True)
        if alone:
            self.dismiss(library)
        try:
            outcome = self._hired(library, environment, limits).run({**job, "output": str(output)})
        except _EndedError as ended:
            self._workers.pop(library, None)
            return ended.outcome, {}
        finally:
            if alone:
                self.dismiss(library)
        if outcome["status"] != "ok":
            return outcome, {}
        with np.load(output) as file:
            return outcome, {name: file[name] for name in file.files}

    def dismiss(self, library: str) -> None:
        """End the library's worker, if there is one."""
        worker = self._workers.pop(library, None)
        if worker is not None:
            worker.close()

    def _hired(self, library: str, environment: str, limits: Limits | None) -> Worker:
        if library not in self._workers:
            python = self.interpreters[environment]
            assert python is not None
            arguments = (library, environment, python, self.threads, self.limits, self.scratch)
            self._workers[library] = Worker(*arguments)
            self.versions[library] = self._workers[library].versions
        worker = self._workers[library]
        worker.limits = limits or self.limits
        return worker


def variables(environment: str, threads: int) -> dict[str, str]:
    """Environment variables of a process in `environment`: so many threads in every pool, no GPU, our package in our own alone."""
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    variables |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    variables |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if environment in PACKAGE_FOLDER:
        variables["PYTHONPATH"] = PACKAGE_FOLDER[environment]
    return variables


def _resident_gib(pid: int) -> float | None:
    """Resident memory of a process now; None where the system doesn't say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        line = next(x for x in lines if x.startswith("VmRSS"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) / 2**20
