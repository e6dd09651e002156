"""Sets: an SQL backup with archives of the stores beside the database. All times are UTC; sizes are bytes.

Like a backup's manifest, these prove that files are intact, not who made them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .common import Model, SparseModel, Utc


class StoreFile(Model):
    """A regular file in a store's archive; hard links to it are only counted."""

    name: str
    bytes: int
    sha256: str


class StoreMember(SparseModel):
    """A store's archive, as its set names it."""

    name: str = Field(description="Of the archive's file.")
    service: str
    container: str
    image: str
    image_id: str
    version: str | None = None
    directory: str = Field(description="Where the store keeps its data, in its container.")
    place: str = Field(description="The volume or directory that holds them.")
    bytes: int = Field(description="Of the archive's file.")
    sha256: str = Field(description="Of the archive's file.")
    files: int
    began_at: Utc
    finished_at: Utc
    saved: bool = Field(default=False, description="It was told to write its data to the disk, which it does not do.")
    stopped_seconds: float | None = Field(default=None, description="null: it did not run.")


class StoreManifest(Model):
    """`<archive>.manifest.json`: what is in a store's archive."""

    manifest_version: Literal[1] = 1
    set_name: str
    member: StoreMember
    tar_bytes: int = Field(description="Of the archive, before compression.")
    directories: int
    links: int = Field(description="Hard and symbolic ones.")
    members: list[StoreFile]


class SetManifest(Model):
    """`memory_….json`: which files belong together. It is written last, when every one of them is there."""

    manifest_version: Literal[1] = 1
    name: str
    created_at: Utc
    finished_at: Utc
    tool_version: str
    backup: str = Field(description="The SQL backup.")
    backup_sha256: str
    stores: list[StoreMember] = Field(description="In the order in which they were copied.")
    paused: bool = Field(
        description="Whether what uses the database or a store was stopped meanwhile, so that all members are of one "
        "moment; else they may be some seconds apart."
    )
    stopped: list[str] = Field(description="Those containers, besides the stores.")
    paused_seconds: float | None = Field(description="How long; null: nothing was stopped besides the stores.")
    not_seen: str = Field(description="Who may have written meanwhile, unseen.")
