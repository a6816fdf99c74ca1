"""CSV files as downloads."""

import io
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from django.http import FileResponse, HttpResponse

from common.csv_files import csv_lines


def csv_response(rows: Iterable[Sequence[str]], *, name: str) -> HttpResponse:
    """The rows as a file that is made in memory: for those of a page, which are bounded."""
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response.writelines(csv_lines(rows))
    return response


def csv_download(rows: Iterable[Sequence[str]], *, name: str) -> FileResponse:
    """The rows as a file, which a client may take its time to read: no connection waits for it."""
    with ExitStack() as on_failure:
        file = on_failure.enter_context(tempfile.NamedTemporaryFile())
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        text.writelines(csv_lines(rows))
        text.detach()
        file.seek(0)
        on_failure.pop_all()  # the response closes it
    return FileResponse(
        file, as_attachment=True, filename=name, content_type="text/csv; charset=utf-8"
    )
