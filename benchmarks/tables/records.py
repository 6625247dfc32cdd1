"""The runs as they come, in one JSON file with the environment, from which tables and figures are made."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from benchmarks.runner import Row

__all__ = ["Record", "read"]


class Record:
    """Rows of one part of the benchmark; `save` writes them whole, so that a run that is stopped leaves what it had."""

    def __init__(self, path: Path, facts: dict[str, str]):
        self.path, self.facts, self.rows = path, facts, list[Row]()
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.rows.append({key: _plain(value) for key, value in row.items()})

    def save(self) -> None:
        """Write everything so far."""
        lines = ",\n".join("  " + json.dumps(row) for row in self.rows)
        text = f'{{"environment": {json.dumps(self.facts, indent=1)},\n "rows": [\n{lines}\n ]}}\n'
        part = self.path.with_suffix(".part")
        part.write_text(text)
        os.replace(part, self.path)


def read(path: Path) -> tuple[dict[str, str], list[Row]]:
    """The environment and the rows that a Record wrote."""
    record = json.loads(path.read_text())
    return record["environment"], record["rows"]


def _plain(value: Any) -> Any:
    """JSON has no NaN or infinity: None and text stand for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
