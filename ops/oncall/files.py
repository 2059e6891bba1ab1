"""The files of the page."""

import importlib.util
from pathlib import Path
from typing import Final

_PAGE: Final = Path(__file__).parent / "page"


def _plotly() -> Path:
    # Not imported: only the script in the package is used.
    spec = importlib.util.find_spec("plotly")
    assert spec is not None, "plotly is a dependency"
    assert spec.submodule_search_locations, "plotly is a package"
    return Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"


# The page's own files and the chart library, by name.
FILES: Final = {path.name: path for path in (*_PAGE.iterdir(), _plotly())}
