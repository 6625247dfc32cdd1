"""Entry point of `densratio` and `python -m densratio`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say which extra it needs."""
    try:
        from .cli import app
    except ImportError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit('The command line needs typer and rich: pip install "densratio-toolkit[torch,plot,cli]"')
    app()


if __name__ == "__main__":
    main()
