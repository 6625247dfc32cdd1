"""StreamMonitor: chunks of a stream, each tested against a reference table."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.random import SeedSequence

from .._sentinels import warn_of_sentinels
from .._validation import check_count, seed_of
from ..diagnostics.ratio_test import ratio_test
from ..diagnostics.two_sample import check_max_rows
from .differences import differences
from .encoder import TableEncoder, as_names
from .reading import column_names, read_column, table_of

__all__ = ["ChunkTest", "StreamMonitor"]


class ChunkTest(NamedTuple):
    """One chunk against the reference.

    label : as given, or the number of the chunk from 0. n_rows : of the chunk.
    statistic : estimated Pearson divergence of the chunk from the pooled chunk and reference; 0 if nothing differs.
    p_value : of the permutation test. is_alarm : whether it is at most the monitor's level.
    columns : after an alarm, names of the columns that differ significantly on their own.
    dropped : the columns that the test leaves out, besides those of `drop`, each with the reason.
    """

    label: Any
    n_rows: int
    statistic: float
    p_value: float
    is_alarm: bool
    columns: tuple[Any, ...] = ()
    dropped: tuple[str, ...] = ()


class StreamMonitor:
    """Test each chunk of a stream against a reference table, with a stated rate of false alarms.

    Both are encoded together, and the score of the least-squares ratio of the chunk is compared with its values under random
    relabelings of the rows: `densratio.diagnostics.ratio_test`. If the rows of a chunk and the reference are independent draws
    from one distribution, P(p_value <= level) <= level, for every size of the chunk. So a share `level` of many unchanged chunks
    still gives an alarm; rows that depend on their neighbors, as in a slow process, give more.

    reference : table (n, d), as `importance_weights` takes it. drop : columns to leave out.
    level : rate of false alarms, for each chunk. n_permutations : of each test; 1 / (n_permutations + 1) must not exceed level.
    max_rows : most rows of chunk and reference together in a test. random_state : of the relabelings.

    Attributes: history, the ChunkTest of each chunk so far.
    """

    def __init__(
        self,
        reference: Any,
        *,
        drop: Any = (),
        level: float = 0.01,
        n_permutations: int = 999,
        max_rows: int = 10_000,
        random_state: Any = 0,
    ):
        check_count("n_permutations", n_permutations)
        check_max_rows(max_rows)
        if not (isinstance(level, float) and 1.0 / (n_permutations + 1) <= level < 1.0):
            least = 1.0 / (n_permutations + 1)
            raise ValueError(
                f"level must be from 1 / (n_permutations + 1), here {least:.3g}, to 1; got {level!r}. A lower one needs more "
                "permutations."
            )
        self.reference = table_of(reference, "reference")
        for name in column_names(self.reference):
            if name not in as_names(drop):
                read_column(self.reference, name, "reference")
        self.drop = drop
        self.level = level
        self.n_permutations = n_permutations
        self.max_rows = max_rows
        self.history: list[ChunkTest] = []
        self._seed = seed_of(random_state)

    def update(self, chunk: Any, label: Any = None) -> ChunkTest:
        """Test the next chunk (m, d), and add the result to `history`. Raises as `importance_weights` does."""
        number = len(self.history)
        # A permutation test is exact if no earlier step used the sample of any row.
        encoder = TableEncoder(self.drop).set_output(transform="default")
        try:
            encoder.fit_samples(self.reference, chunk, pooled=True)
        except ValueError as error:
            raise ValueError(f"{error} Here the source is the monitor's reference, and the target the chunk.") from error
        rows = encoder.transform(self.reference), encoder.transform(chunk)
        left_out = [use.name for use in encoder.columns_ if use.kind == "dropped"]
        warn_of_sentinels({"reference": self.reference, "chunk": chunk}, 2, drop=left_out)
        settings = {"n_permutations": self.n_permutations, "max_rows": self.max_rows}
        # Chunks of equal size must not share their relabelings.
        seed = int(SeedSequence([self._seed, number]).generate_state(1)[0])
        names: tuple[Any, ...] = ()
        with warnings.catch_warnings():
            # Told above, in the words of this call.
            warnings.filterwarnings("ignore", "Rows of .* share the number")
            statistic, p = ratio_test(*rows, random_state=np.random.default_rng(seed), **settings)
            is_alarm = p <= self.level
            if is_alarm:
                # What the encoder says of the columns was said above.
                warnings.simplefilter("ignore", UserWarning)
                found = differences(self.reference, chunk, drop=self.drop, random_state=seed)
                names = tuple(column.name for column in found.columns if column.p_value <= self.level)
        done = ChunkTest(number if label is None else label, len(rows[1]), statistic, p, is_alarm, names, _left_out(encoder))
        self.history.append(done)
        return done

    def to_frame(self) -> Any:
        """The history as a pandas frame, a row for each chunk."""
        import pandas

        return pandas.DataFrame(self.history, columns=list(ChunkTest._fields))


def _left_out(encoder: TableEncoder) -> tuple[str, ...]:
    asked = as_names(encoder.drop)
    return tuple(str(use) for use in encoder.columns_ if use.kind == "dropped" and use.name not in asked)
