"""What the models share: their base, the names of kinds, levels and states, and times in UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_serializer,
)

Utc = Annotated[datetime, PlainSerializer(lambda t: t.isoformat().replace("+00:00", "Z"), when_used="json")]


UtcSecond = Annotated[datetime, PlainSerializer(lambda t: f"{t:%Y-%m-%dT%H:%M:%SZ}", when_used="json")]
"""A time that is shown to the second."""


UtcDay = Annotated[datetime, PlainSerializer(lambda t: f"{t:%Y-%m-%d}", when_used="json")]
"""A time of which the day is shown."""


Kind = Literal["sql", "volume"]


Scope = Literal["database", "memory"]
"""What an SQL backup is of: the database, or the whole memory with the stores beside it."""


Compression = Literal["none", "gzip", "zstd"]
"""An SQL backup is "none" or "zstd", an archive of a volume "gzip" or "zstd"."""


Packing = Literal["none", "gzip", "zstd", "xz"]
"""How any file, foreign ones included, is compressed."""


Level = Literal["quick", "full", "drill"]


BackupLevel = Literal["auto", "full", "drill"]


CodePage = Literal[437, 850, 852, 858, 1250, 1252, 65001]
"""Windows code pages that PowerShell may have decoded a dump with; 65001 is UTF-8."""


CodePageText = Annotated[
    CodePage,
    BeforeValidator(lambda page: int(page) if isinstance(page, str) and page.isdecimal() else page),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "enum": [str(page) for page in get_args(CodePage)]}),
]
"""The same as tools take and give it: as text, since some hosts refuse an enum that is not of strings."""


DrillMode = Literal["full", "sample"]


State = Literal[
    "good",
    "unverified",
    "damaged",
    "foreign",
    "newer",
    "unreadable",
    "partial",
    "differs",
    "will_not_load",
    "constraint_violated",
]
"""What is known of a backup. "newer": its manifest is of a higher version than this tool reads. "unreadable":
this user may not read it, or what belongs to it."""


Verdict = Literal["proved", "sound", "differs", "damaged", "will_not_load", "constraint_violated", "unknown"]
"""A drill's verdict on a backup: see `Drill`."""


SearchPath = Literal["empty", "database"]
"""The search_path that a dump was loaded with: the empty one that pg_dump writes, or the database's own."""


class Model(BaseModel):
    """The base of all models: unknown fields are an error. Readers of stored files skip those of a newer version."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, defer_build=True)


class SparseModel(Model):
    """The base of what comes by the dozen: fields with their default values are left out of its data."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        usual = {field.alias or name for name, field in fields.items() if getattr(self, name) == field.default}
        return {name: value for name, value in handler(self).items() if name not in usual}


class OpenModel(Model):
    """The base of what is read, changed and written again: a newer version's fields stay in it."""

    model_config = ConfigDict(extra="allow")


def unknown_as(fallback: object) -> WrapValidator:
    """Read a word that only a newer version knows as `fallback`. For words that decide nothing by themselves."""

    def read(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:
            return fallback

    return WrapValidator(read)


class Step(Model):
    """A step of PROC-004, as a result reports it."""

    step: str = Field(description="PROC-004's name of the step, e.g. 'Passo 3' or 'Verifica Finale'.")
    title: str
    ok: bool | None = Field(description="null: it was not needed or could not be checked.")
    detail: str = ""
