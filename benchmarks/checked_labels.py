"""How well rows that are drawn at random and looked at tell the number of wrong labels: its error, and what its interval holds.

    python benchmarks/checked_labels.py --data /path/with/letterdata.csv --seeds 0,1,2

The problems and their probabilities are those of label_issues.py, and in the same folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from label_issues import CASES, Problem, is_there, problem
from runner import RESULTS, Row, markdown

from densratio import label_issues_from_probabilities
from densratio.labels.checked import Checked, recalibrated

N_CHECKED, N_DRAWS = (50, 200, 1000), 100


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".benchdata"))
    parser.add_argument("--cache", type=Path, default=Path(".benchdata"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="", help="names of data sets; empty: all that are there")
    arguments = parser.parse_args()
    seeds, rows = list(map(int, arguments.seeds.split(","))), []
    for case in CASES:
        if case[0] in arguments.only.split(",") if arguments.only else is_there(case[0], arguments.data, arguments.cache):
            drawn = [problem(case, seed, arguments.data, arguments.cache) for seed in seeds]
            rows += rows_of(case, drawn)
            print(rows[-1], flush=True)
    note = (
        f"Each problem of the seeds {arguments.seeds} has {N_DRAWS} draws of rows that are looked at. Off by: the number of wrong "
        "labels by the scores against the true one, in percent, the mean and the deviation over all draws. The interval is that of "
        "90 %, `n_issues_interval`. By counting: the deviation of the share among these rows, which needs no model."
    )
    (RESULTS / "checked_labels.md").write_text(f"# Rows that are looked at\n\n{note}\n\n{markdown(rows)}\n")


def rows_of(case: tuple[str, str, float], problems: list[Problem]) -> list[Row]:
    """A row for each number of rows that are looked at."""
    labels = f"{case[1]} {case[2]:.0%}" if case[2] else f"people, {case[1]}"
    unseen, found = [], {n: [] for n in N_CHECKED if 5 * n <= len(problems[0].true)}
    for data in problems:
        is_wrong = data.true != data.given
        score = label_issues_from_probabilities(data.given, data.proba).sort_values("row").score.to_numpy()
        unseen.append(score.sum() / is_wrong.sum() - 1.0)
        for n, own in found.items():
            own += [looked_at(score, is_wrong, n, draw) for draw in range(N_DRAWS)]
    share = np.mean([np.mean(data.true != data.given) for data in problems])
    rows = [
        {
            "data": case[0],
            "labels": labels,
            "looked at": "none",
            "off by %": told(unseen),
            "interval holds it": "",
            "by counting": "",
        }
    ]
    for n, own in found.items():
        errors, holds = zip(*own, strict=True)
        counted = 100.0 * np.sqrt((1.0 - share) / (share * n))
        rows.append({
            "data": case[0], "labels": labels, "looked at": f"{n:,}", "off by %": told(errors),
            "interval holds it": f"{np.mean(holds):.2f}", "by counting": f"± {counted:.1f}",
        })  # fmt: skip
    return rows


def looked_at(score: np.ndarray, is_wrong: np.ndarray, n: int, draw: int) -> tuple[float, bool]:
    """Relative error of the number, and whether the interval holds it."""
    rows = np.random.default_rng(draw).permutation(len(score))[:n]
    checked = Checked(rows, np.zeros(n, dtype=int), is_wrong[rows])
    scores, (least, most) = recalibrated(score, np.zeros(len(score), dtype=bool), checked)
    return scores.sum() / is_wrong.sum() - 1.0, bool(least <= is_wrong.sum() <= most)


def told(errors: list[float]) -> str:
    """Mean and deviation in percent."""
    return f"{100 * np.mean(errors):.1f} ± {100 * np.std(errors, ddof=1):.1f}" if len(errors) > 1 else f"{100 * errors[0]:.1f}"


if __name__ == "__main__":
    main()
