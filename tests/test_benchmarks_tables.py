"""The table benchmark runs from one command, on tiny data and without the other libraries."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not installed

from benchmarks.tables.__main__ import main


def test_the_quick_benchmark_writes_its_tables_and_no_contender_fails(tmp_path, monkeypatch):
    command = ["tables", "--quick", "--threads", "1", "--contenders", "LSIF", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    main()
    assert {path.stem for path in tmp_path.glob("*.md")} >= {"accuracy", "cost", "speed"}
    records = [row for path in tmp_path.glob("*_runs.json") for row in json.loads(path.read_text())["rows"]]
    ours = [row for row in records if row.get("library") == "densratio"]
    assert {row["part"] for row in ours} == {"accuracy", "cost", "race", "large", "stream"}
    assert {row["contender"]: row["status"] for row in ours if row["status"] != "ok"} == {}
