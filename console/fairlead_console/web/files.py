"""Scripts and styles, read once; each has an address that changes with its content, so browsers may keep it."""

import hashlib
from collections.abc import Mapping
from importlib import resources

from aiohttp import web

TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
FILES = (
    "console.js",
    "console.css",
    "mark.svg",
    "vendor/htmx.min.js",
    "vendor/hx-sse.min.js",
    "vendor/uplot.min.js",
    "vendor/uplot.min.css",
)


class Static:
    """`addresses["console.css"]` is `/static/console.css?v=1f2e3d4c`."""

    def __init__(self) -> None:
        folder = resources.files("fairlead_console.web") / "static"
        self._content = {name: (folder / name).read_bytes() for name in FILES}
        self.addresses: Mapping[str, str] = {
            name: f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:8]}"
            for name, content in self._content.items()
        }

    async def serve(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        content = self._content.get(name)
        if content is None:
            raise web.HTTPNotFound
        current = self.addresses[name].endswith(f"?v={request.query.get('v', '')}")
        return web.Response(
            body=content,
            content_type=TYPES[name.rpartition(".")[2]],
            charset="utf-8",
            headers={"Cache-Control": "public, max-age=31536000, immutable" if current else "no-cache"},
        )
