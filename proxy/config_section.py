"""What every part of the configuration is."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr

__all__ = ["Secret", "Section"]


def _none_for_empty(text: object) -> object:
    return None if text == "" else text


# A variable that is set and empty means none: an empty admin token would let everybody in.
Secret = Annotated[SecretStr | None, BeforeValidator(_none_for_empty)]


class Section(BaseModel):
    """A part of the configuration: immutable, and strict about its keys."""

    # Its checks are built when it is first read: with the whole, once, and not at the import of each part. So a part
    # that is the default of another is `Part.model_construct()`, of which nothing is checked: Part() would build them.
    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False, defer_build=True
    )
