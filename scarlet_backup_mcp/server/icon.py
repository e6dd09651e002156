"""The server's icon: a database with a tick, as hosts show it beside the name."""

from __future__ import annotations

import base64

from mcp.types import Icon

_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<path d="M4 7v18c0 2.5 5 4.5 11 4.5S26 27.5 26 25V7" fill="#b3122d"/>'
    '<ellipse cx="15" cy="7" rx="11" ry="4.5" fill="#e8506a"/>'
    '<path d="M4 13c0 2.5 5 4.5 11 4.5S26 15.5 26 13" fill="none" stroke="#fff" stroke-opacity=".5"/>'
    '<circle cx="23" cy="23" r="8" fill="#1a7f37"/>'
    '<path d="M19 23l3 3 5-6" fill="none" stroke="#fff" stroke-width="2.5"/>'
    "</svg>"
)

ICON = Icon(
    src="data:image/svg+xml;base64," + base64.b64encode(_SVG.encode()).decode(),
    mime_type="image/svg+xml",
    sizes=["any"],
)
