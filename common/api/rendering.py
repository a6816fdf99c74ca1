"""How answers become JSON. Settings name the renderer, so nothing here imports views."""

from collections.abc import Mapping

import msgspec
from rest_framework.renderers import BaseRenderer


class JsonRenderer(BaseRenderer):
    """Renders structs, and whatever JSON has a form for."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: object,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, object] | None = None,
    ) -> bytes:
        return b"" if data is None else msgspec.json.encode(data)
