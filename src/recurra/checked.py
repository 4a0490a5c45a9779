"""Settings that say what is wrong with them: the base of every task's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from recurra.errors import invalid_settings


class CheckedSettings(BaseModel):
    """Settings that raise a ConfigError naming every value that is wrong.

    about   what they are settings of, in the words of that error
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    about: ClassVar[str]

    # Hidden from type checkers, which know the keyword arguments from the fields of each class.
    if not TYPE_CHECKING:

        def __init__(self, /, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                fields = type(self).model_fields
                raise invalid_settings(self.about, error.errors(), fields) from None

    @classmethod
    def out_of(cls, arguments: Mapping[str, Any]) -> Self:
        """The settings among the arguments of a call, which has others beside them."""
        return cls(**{name: arguments[name] for name in cls.model_fields})

    def written(self) -> str:
        """As the arguments of a call that makes them: "hidden_size=32, steps=5"."""
        given = self.model_dump(exclude_defaults=True)
        return ", ".join(f"{name}={value!r}" for name, value in given.items())
