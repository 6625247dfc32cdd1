"""Sphinx: `sphinx-build -W -n docs OUT` from the repository root; it needs no network."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

from densratio import __version__  # noqa: E402

project = "densratio"
author = "The densratio developers"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "plain_docstrings"]
exclude_patterns = ["_extensions"]
html_theme = "furo"
html_title = f"densratio {release}"
highlight_language = "text"  # of formulas
smartquotes = False  # quoted names are code
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["wrap.css"]

myst_heading_anchors = 3
autodoc_typehints = "none"  # the docstrings describe the arguments
autodoc_default_options = {"members": True, "no-value": True}


def keep_together(app, name, source):
    """A number and its deviation, 77.4 ± 1.4, stay on one line of a table."""
    source[0] = source[0].replace(" ± ", "\u00a0±\u00a0")


def setup(app):
    app.connect("source-read", keep_together)
