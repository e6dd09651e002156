"""Why a connection over TLS failed, in words: the engine's certificate, ours, or no TLS on one side."""

from __future__ import annotations

import ssl
from pathlib import Path

_EXPIRED, _NOT_YET = 10, 9
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)
_OTHER_NAME = (62, 64)
"""X509_V_ERR_… of OpenSSL's x509_vfy.h."""
_OUR_CERTIFICATE = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "HANDSHAKE_FAILURE", "UNKNOWN_CA", "CERTIFICATE_EXPIRED")
"""Ends of the names of alerts with which an engine turns a client away (RFC 8446, section 6.2)."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")


def why(error: ssl.SSLError, certificates: Path | None) -> tuple[str, str]:
    """Return the reason and the remedy. `certificates` is the directory with ca.pem, cert.pem and key.pem."""
    reason, directory = error.reason or "", str(certificates or "the directory of DOCKER_CERT_PATH")
    if isinstance(error, ssl.SSLCertVerificationError):
        return _not_trusted(error, directory)
    if reason.endswith(_NO_TLS):
        return (
            "what listens there does not speak TLS",
            "Unset DOCKER_TLS_VERIFY and DOCKER_CERT_PATH if it is meant to be reached without TLS, or correct the "
            "port in DOCKER_HOST: an engine's TLS is mostly on 2376.",
        )
    if reason.endswith(_OUR_CERTIFICATE):
        return _client_certificate(certificates, "it asks for", "it turns {} away")
    if isinstance(error, ssl.SSLEOFError):
        return closed(certificates)
    return (
        f"TLS failed ({reason.replace('_', ' ').lower() or 'no reason is known'})",
        "Correct DOCKER_HOST, DOCKER_CERT_PATH or the Docker context (`docker context ls`).",
    )


def closed(certificates: Path | None) -> tuple[str, str]:
    """Describe an engine that closes the connection: it does so after turning a client away, and its alert may come too
    late to be read (seen on dockerd 26.1.5)."""
    closes = "it closes the connection, as an engine does that"
    return _client_certificate(certificates, f"{closes} asks for", f"{closes} does not accept {{}}")


def _client_certificate(certificates: Path | None, asks_for: str, rejects: str) -> tuple[str, str]:
    if certificates is None or not (certificates / "cert.pem").exists():
        there = certificates or "the directory of DOCKER_CERT_PATH"
        return (
            f"{asks_for} a client certificate, and there is none in {there}",
            "Put cert.pem and key.pem there, signed by the engine's authority, or set DOCKER_CERT_PATH to the "
            "directory that has them.",
        )
    return (
        rejects.format(f"the client certificate {certificates / 'cert.pem'}"),
        "Use a certificate that the engine's authority signed and that has not expired.",
    )


def _not_trusted(error: ssl.SSLCertVerificationError, directory: str) -> tuple[str, str]:
    other_authority = "Put the authority that signed the engine's certificate there, or correct DOCKER_CERT_PATH."
    match error.verify_code:
        case code if code in _UNKNOWN_AUTHORITY:
            return f"its certificate is not signed by the authority in {directory}/ca.pem", other_authority
        case code if code in (_EXPIRED, _NOT_YET):
            how = "has expired" if code == _EXPIRED else "is not valid yet"
            return (
                f"its certificate, or its authority's, {how}",
                "Renew it on the engine's machine, or set the clock of this machine right.",
            )
        case code if code in _OTHER_NAME:
            return (
                "its certificate is for another name or address",
                "Name the engine in DOCKER_HOST as its certificate does.",
            )
        case _:
            return f"its certificate is not accepted: {error.verify_message}", other_authority
