"""Fill a template of report/templates/ and write it as report/index.html of a folder."""

from pathlib import Path
from typing import Any

import jinja2

from utils.files import write_text


def write_page(folder: Path, template: str, **values: Any) -> Path:
    """Write the page, with its style and script in it, and return its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    path = folder / "report" / "index.html"
    write_text(path, environment.get_template(template).render(values))
    return path
