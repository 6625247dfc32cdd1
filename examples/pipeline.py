"""A scikit-learn Pipeline with categories, trained and tuned under covariate shift.

    python examples/pipeline.py [--seeds 10]

scikit-learn's diabetes table, with sex as a category and age in three bands. Rows with a high blood value s5 are rare in the source
and common in the target, and the model does not use that column. Needs the extra `cli` (pandas).
"""

import argparse
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from densratio import KLIEP, ImportanceWeighted, make_iw_scorer, stack_domains
from densratio.datasets import make_selection_bias

CATEGORIES = ["sex", "age"]
FOR_THE_MODEL = ["sex", "age", "bmi", "bp"]


class Samples(NamedTuple):
    source: pd.DataFrame
    target: pd.DataFrame
    source_outcome: np.ndarray
    target_outcome: np.ndarray


def draw(seed: int) -> Samples:
    data = load_diabetes(as_frame=True, scaled=False)
    shift = make_selection_bias(data.data, data.target, column="s5", probabilities=(0.95, 0.05), random_state=seed)
    table = data.data.assign(
        sex=data.data["sex"].map({1.0: "first", 2.0: "second"}),
        age=pd.cut(data.data["age"], [0, 40, 55, 100], labels=["to 40", "to 55", "over 55"]).astype(str),
    )
    rows = table.iloc[shift.index].reset_index(drop=True)
    return Samples(rows[shift.y == 0], rows[shift.y == 1], shift.labels_source, shift.labels_target)


def fit_ratio(samples: Samples) -> Pipeline:
    """One-hot encode the categories, in both samples at once, then fit the ratio."""
    encode = make_column_transformer((OneHotEncoder(sparse_output=False), CATEGORIES), remainder="passthrough")
    return make_pipeline(encode, KLIEP(gamma="cv", random_state=0)).fit(*stack_domains(samples.source, samples.target))


def new_model() -> Pipeline:
    """The model selects its columns from the whole table, so that the ratio around it sees all columns."""
    scaled = [name for name in FOR_THE_MODEL if name not in CATEGORIES]
    encode = make_column_transformer((OneHotEncoder(), CATEGORIES), (StandardScaler(), scaled), remainder="drop")
    return make_pipeline(encode, Ridge())


def study(samples: Samples) -> dict[str, float]:
    """Mean absolute errors: estimates by cross-validation, and the errors on the target."""
    X, y = samples.source, samples.source_outcome
    ratio, folds = fit_ratio(samples), KFold(5, shuffle=True, random_state=0)
    weighted = ImportanceWeighted(new_model(), ratio)
    scorer = make_iw_scorer(ratio, "neg_mean_absolute_error")
    # The search is around ImportanceWeighted, and its scorer weights the held-out rows, too.
    grid = {"estimator__ridge__alpha": [0.1, 1.0, 10.0, 100.0]}
    search = GridSearchCV(weighted, grid, scoring=scorer, cv=folds).fit(X, y)

    def on_target(model) -> float:
        return mean_absolute_error(samples.target_outcome, model.predict(samples.target))

    return {
        "plain model, plain cross-validation": -cross_val_score(
            new_model(), X, y, scoring="neg_mean_absolute_error", cv=folds
        ).mean(),
        "plain model, weighted cross-validation": -cross_val_score(new_model(), X, y, scoring=scorer, cv=folds).mean(),
        "plain model, on the target": on_target(new_model().fit(X, y)),
        "weighted model, weighted cross-validation": -cross_val_score(weighted, X, y, scoring=scorer, cv=folds).mean(),
        "weighted model, on the target": on_target(weighted.fit(X, y)),
        "searched model, on the target": on_target(search),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="random selections")
    options = parser.parse_args(arguments)
    runs = [study(draw(seed)) for seed in range(options.seeds)]
    print(f"Mean absolute error, mean ± standard deviation over {options.seeds} selections")
    for name in runs[0]:
        found = [run[name] for run in runs]
        print(f"  {name:42s} {np.mean(found):6.2f} ± {np.std(found):.2f}")


if __name__ == "__main__":
    main()
