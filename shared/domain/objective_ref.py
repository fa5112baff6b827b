"""The name of an objective: a file or a module, and a function of it. Does not check that it exists."""

from __future__ import annotations

from dataclasses import dataclass

from highnoon.shared.domain.errors import InvalidInput

_GRAMMAR = 'must be "path/file.py:function" or "package.module:function"'


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveRef:
    """`where` is a file's path when it ends in .py, and a dotted module otherwise."""

    where: str
    function: str

    def __str__(self) -> str:
        return f"{self.where}:{self.function}"

    @property
    def is_file(self) -> bool:
        """True for a path, False for a module."""
        return self.where.endswith(".py")

    @classmethod
    def parse(cls, text: str) -> ObjectiveRef:
        """Raises InvalidInput for anything but `path/file.py:function` and `package.module:function`."""
        where, _, function = text.rpartition(":")
        ref = cls(where=where, function=function)
        named = "/" not in where and all(part.isidentifier() for part in where.split(".")) and ".ipynb" not in where
        if not function.isidentifier() or not (ref.is_file or named) or not text.isprintable():
            raise InvalidInput.of("objective", "objective", _GRAMMAR, value=text, hint=_probably_meant(text))
        return ref


def _probably_meant(text: str) -> str:
    where, colon, function = text.rpartition(":")
    if ".ipynb" in text:
        return f"A notebook cannot be imported: save the function in a .py file and write {_script(text)}."
    if text.endswith(".py"):
        return f"Write {text}:objective, with the name of the function."
    if not colon and text.rpartition(".")[0].replace(".", "_").isidentifier():
        return f"Did you mean {':'.join(text.rsplit('.', 1))}?"
    return f"Did you mean {where}.py:{function}?" if "/" in where and function.isidentifier() else ""


def _script(notebook: str) -> str:
    where, _, function = notebook.partition(".ipynb")
    return f"{where}.py:{function.lstrip(':') or 'objective'}"
