"""Plain text and HTML of a report's facts, balance table, notes and warnings."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Fact", "html_fragment", "html_page", "plain_text", "printable"]

_WIDTH = 100
_LONGEST_NAME = 40
_HEADS = ("Standardized mean difference, source minus target", "before", "after")
_READING = {
    "Effective sample size": "How many equally weighted rows would estimate a mean as precisely: the cost of weighting.",
    "Pareto k-hat": "The shape of the tail of the weights. Above 0.5 the variance of a weighted mean is infinite; above 0.7 the "
    "mean itself converges at no practical number of rows.",
    "Squared MMD": "The squared maximum mean discrepancy, a distance between the two samples over all columns: 0 if they "
    "agree. Weighting should reduce it to the level of samples from one distribution.",
    "Two-sample test": "The probability of a distance at least this large if the samples did not differ.",
    "Target far from source": "Target rows that no source row can represent, whatever its weight.",
    "Standardized mean difference": "For each column the mean of the source minus that of the target, in standard deviations: "
    "negative if the target is larger. Beyond 0.1 in either direction a column is commonly called off balance.",
}

# The surrounding page sets the colors, so that one style sheet works in light and dark mode; only the warning's edge has its own.
_STYLE = """
.densratio { font: 14px/1.45 system-ui, sans-serif; max-width: 52rem; }
.densratio table { border-collapse: collapse; margin: 0 0 1em; background: none; }
.densratio th, .densratio td { padding: .2em .9em .2em 0; text-align: left; border-bottom: 1px solid rgba(128, 128, 128, .35); }
.densratio th { font-weight: 600; }
.densratio td.number, .densratio th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.densratio .aside { opacity: .75; }
.densratio ul { list-style: none; margin: 0 0 1em; padding: 0; }
.densratio li { border-left: 4px solid #D55E00; padding: .2em 0 .2em .8em; margin: 0 0 .6em; }
.densratio img { max-width: 100%; background: white; }
.densratio dt { font-weight: 600; } .densratio dd { margin: 0 0 .6em; }
.densratio figure { margin: 1.5em 0; }
"""
_PAGE_STYLE = ":root { color-scheme: light dark; } body { margin: 2rem auto; max-width: 52rem; padding: 0 1rem; }"


class Fact(NamedTuple):
    """One line of the report: a label, a value, and a note on how to read it."""

    label: str
    value: str
    aside: str = ""


Row = tuple[str, str, str]


def plain_text(facts: Sequence[Fact], balance: Sequence[Row], notes: Sequence[str], warnings: Sequence[str]) -> str:
    """The report as aligned text, at most 100 columns wide unless a word is longer."""
    label, value = max(len(f.label) for f in facts), max(len(f.value) for f in facts)
    lines = ["Density ratio report", ""]
    lines += [f"  {f.label:<{label}}  {f.value:>{value * bool(f.value)}}{'  ' * bool(f.value)}{f.aside}".rstrip() for f in facts]
    rows = [_HEADS, *((_shortened(name), before, after) for name, before, after in balance)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines += ["", *(f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}" for row in rows), ""]
    lines += [line for note in notes for line in _wrapped(note, "  ")]
    lines += ["", *(line for warning in warnings for line in _wrapped(warning, "! "))] if warnings else ["", "No warnings."]
    return "\n".join(lines)


def html_fragment(facts: Sequence[Fact], balance: Sequence[Row], notes: Sequence[str], warnings: Sequence[str]) -> str:
    """The report as one HTML element with its own style, for a notebook or a page."""
    warning_items = "".join(f"<li>{_shown(warning)}</li>" for warning in warnings)
    note_paragraphs = "".join(f"<p class='aside'>{_shown(note)}</p>" for note in notes)
    fact_rows = "".join(
        f"<tr><td>{_shown(f.label)}</td><td class='number'>{_shown(f.value)}</td><td class='aside'>{_shown(f.aside)}</td></tr>"
        for f in facts
    )
    heads = f"<th>{_HEADS[0]}</th><th class='number'>{_HEADS[1]}</th><th class='number'>{_HEADS[2]}</th>"
    balance_rows = "".join(
        f"<tr><td>{_shown(name)}</td><td class='number'>{_shown(before)}</td><td class='number'>{_shown(after)}</td></tr>"
        for name, before, after in balance
    )
    return (
        f"<div class='densratio'><style>{_STYLE}</style>"
        + (f"<ul>{warning_items}</ul>" if warnings else "<p>No warnings.</p>")
        + f"<table><tbody>{fact_rows}</tbody></table>"
        + f"<table><thead><tr>{heads}</tr></thead><tbody>{balance_rows}</tbody></table>{note_paragraphs}</div>"
    )


def html_page(title: str, fragment: str, facts: Mapping[str, str], pictures: Mapping[str, bytes]) -> str:
    """A complete page: facts (label -> text), a fragment, pictures (caption -> PNG bytes), and how to read it all."""
    above = "".join(f"<tr><td>{_shown(label)}</td><td>{_shown(text)}</td></tr>" for label, text in facts.items())
    above = f"<table><tbody>{above}</tbody></table>" if above else ""
    below = "".join(f"<dt>{_shown(term)}</dt><dd>{_shown(text)}</dd>" for term, text in _READING.items())
    figures = "".join(
        f"<figure><img alt='{_shown(caption)}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
        f"<figcaption>{_shown(caption)}</figcaption></figure>"
        for caption, png in pictures.items()
    )
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{_shown(title)}</title><style>{_PAGE_STYLE}</style></head>"
        f"<body class='densratio'><h1>{_shown(title)}</h1>{above}{fragment}{figures}<h2>How to read it</h2><dl>{below}</dl>"
        "</body></html>\n"
    )


def _shown(text: str) -> str:
    # A column name must not control a terminal or a page.
    return escape(printable(text))


def printable(text: str) -> str:
    r"""Text with control characters written out: an escape character as \x1b."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _shortened(name: str) -> str:
    # A line break in a column's name would break the table.
    name = printable(" ".join(name.split()))
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _wrapped(text: str, first: str) -> list[str]:
    return textwrap.wrap(printable(text), _WIDTH, initial_indent=first, subsequent_indent="  ", break_on_hyphens=False)
