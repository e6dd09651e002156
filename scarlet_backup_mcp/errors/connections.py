"""Why a server lets nobody in: each cause with its own way out."""

from __future__ import annotations

from .places import PermissionDenied, ServerError


class PasswordNeeded(PermissionDenied):
    """The server asks for a password, and none is known."""

    code = "password_needed"
    default_remedy = (
        "Set SCARLET_BACKUP_PASSWORD to the role's password, or write it into libpq's password file and set PGPASSFILE "
        "to that file."
    )


class PasswordRejected(PermissionDenied):
    """The server rejects the password, or has no such role: it does not say which."""

    code = "password_rejected"
    default_remedy = (
        "Set SCARLET_BACKUP_PASSWORD to the role's current password. In Docker the password of the container's "
        "environment is set only when the cluster is created; ALTER ROLE may have changed it since."
    )


class RoleMissing(PermissionDenied):
    """The role does not exist on the server, or may not log in."""

    code = "role_missing"
    default_remedy = (
        "Set SCARLET_BACKUP_USER to a superuser of this server: in Docker it is POSTGRES_USER in the container's "
        "environment, else `postgres`."
    )


class NotAdmitted(PermissionDenied):
    """No line of the server's pg_hba.conf lets this role in from here."""

    code = "not_admitted"
    default_remedy = (
        "Add a line for the role, the database and this machine's address to the server's pg_hba.conf (`SHOW hba_file` "
        "says where it is), then run `SELECT pg_reload_conf()`."
    )


class EncryptionRequired(PermissionDenied):
    """The server lets this role in only over an encrypted connection."""

    code = "encryption_required"
    default_remedy = "Write sslmode=require (or verify-full) into SCARLET_BACKUP_DSN."


class EncryptionUnsupported(PermissionDenied):
    """The settings ask for an encrypted connection, which the server does not offer."""

    code = "encryption_unsupported"
    default_remedy = (
        "Turn on `ssl` in the server's configuration; or write sslmode=prefer into SCARLET_BACKUP_DSN, if nobody can "
        "listen in on the way to it."
    )


class RootCertificateMissing(PermissionDenied):
    """The settings ask to verify the server's certificate, but the file to verify it with does not exist."""

    code = "root_certificate_missing"
    default_remedy = (
        "Put the certificate of the server's authority there, or name its file with sslrootcert in SCARLET_BACKUP_DSN."
    )


class CertificateUntrusted(PermissionDenied):
    """The server's certificate does not verify: it may be another server."""

    code = "certificate_untrusted"
    default_remedy = (
        "Name the certificate of the server's authority with sslrootcert in SCARLET_BACKUP_DSN, and the server as its "
        "certificate does."
    )


class TooManyConnections(ServerError):
    """The server has no connection left for this role or database."""

    code = "too_many_connections"
    default_remedy = (
        "Close other programs' connections (`SELECT * FROM pg_stat_activity` shows them), or raise max_connections, "
        "then try again."
    )
