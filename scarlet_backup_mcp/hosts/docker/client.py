"""docker-py's client, with its connections as they should be. Takes time to import: docker-py comes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docker import APIClient  # pyright: ignore[reportMissingTypeStubs]
from docker.tls import TLSConfig  # pyright: ignore[reportMissingTypeStubs]

from ...errors import EngineUnreachable

NETWORK = ("tcp", "http", "https")
"""Schemes of addresses that TLS is for."""


class Client(APIClient):
    """docker-py's client, except that an authority named for the engine is the only one.

    requests 2.33 prefers REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE, which companies set for the web, to a session's own
    `verify` (its issue 3829).
    """

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Settle the options of a request: a path in `self.verify` comes before the environment's."""
        own = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, own, cert)


def tls(address: str, certificates: Path | None, verify: bool) -> TLSConfig | None:
    """Return docker-py's settings for TLS; None if the engine is reached without. Raises EngineUnreachable if a file
    is missing in `certificates`: ca.pem if it is to `verify`, key.pem with a cert.pem."""
    if certificates is None or urlsplit(address).scheme not in NETWORK:
        return None
    authority, certificate, key = (certificates / f"{name}.pem" for name in ("ca", "cert", "key"))
    needed = [*([authority] if verify else []), *([key] if certificate.exists() else [])]
    if missing := [file.name for file in needed if not file.is_file()]:
        raise EngineUnreachable(
            f"The engine at {address} is reached over TLS, but {' and '.join(missing)} is missing in {certificates}.",
            "Put it there, or set DOCKER_CERT_PATH to the directory that has ca.pem, cert.pem and key.pem.",
        )
    own = (str(certificate), str(key)) if certificate.exists() else None
    return TLSConfig(client_cert=own, ca_cert=str(authority) if verify else None, verify=verify)
