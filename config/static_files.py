"""Static files as browsers get them: named by their content, compressed beforehand, kept for good.

`collect_static_files` gathers them in DATA_DIR once for each version, before the web process
starts. Where it has not run (tests), files are served from the packages as they are.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from whitenoise.compress import Compressor
from whitenoise.storage import CompressedManifestStaticFilesStorage

try:
    import brotli
except ImportError:  # WhiteNoise leaves out these copies, too
    brotli = None

STYLESHEET: Final = "dashboard/dashboard.css"
IMPORT: Final = re.compile(r'@import url\("([^"]+)"\);\n')
# The best two of its eleven levels take half a minute for plotly, and save a tenth of it.
BROTLI_QUALITY: Final = 9
# Not asked for by any page.
LEFT_OUT: Final = ("redoc", "rest_framework", "widgetbundle.js", "datasets", "templates")


class QuickCompressor(Compressor):  # type: ignore[misc]
    """WhiteNoise's, with a level that a start can wait for."""

    @staticmethod
    def compress_brotli(data: bytes) -> bytes:
        compressed: bytes = brotli.compress(data, quality=BROTLI_QUALITY)
        return compressed


class StaticFiles(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """Files with a name for each content. One that was not collected keeps its own."""

    def create_compressor(self, **options: object) -> Compressor:
        return QuickCompressor(**{**options, "quiet": True})

    def post_process(self, paths: dict[str, Any], **options: Any) -> Iterator[Any]:
        stylesheet = Path(self.path(STYLESHEET))
        stylesheet.write_text(one_stylesheet(stylesheet))
        whole = {**paths, STYLESHEET: (self, STYLESHEET)}
        yield from super().post_process(whole, **options)

    def stored_name(self, name: str) -> str:
        stored: str = self.hashed_files.get(self.hash_key(self.clean_name(name)), name)
        return stored


def one_stylesheet(path: Path) -> str:
    """Return the stylesheet with those that it imports put in, so that browsers ask once."""
    return IMPORT.sub(lambda match: (path.parent / match[1]).read_text(), path.read_text())


def collect_static_files() -> None:
    """Gather all files, unless those in place are of this version."""
    root = Path(settings.STATIC_ROOT)
    mark = root / "version"
    version = _version()
    if mark.exists() and mark.read_text() == version:
        return
    call_command(
        "collectstatic", interactive=False, clear=True, verbosity=0, ignore_patterns=list(LEFT_OUT)
    )
    mark.write_text(version)


def _version() -> str:
    """Return a digest of what is gathered, by name, size and time."""
    files = sorted(
        (name, status.st_size, status.st_mtime_ns)
        for finder in get_finders()
        for name, storage in finder.list(LEFT_OUT)
        for status in [Path(storage.path(name)).stat()]
    )
    return hashlib.sha256(repr((brotli is None, files)).encode()).hexdigest()
