"""What params.yaml names with settings: `poly(power=0.9)`, or sums such as `dice + 0.5 * lovasz`.

Read with Python's own parser, and nothing of it is ever run: names, numbers, `+` and `*` are all that there is.
"""

import ast
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from roadseg.errors import UserError

Setting = float | str
T = TypeVar("T")


@dataclass(frozen=True)
class Term:
    """FACTOR * NAME(key=value, ...)."""

    factor: float
    name: str
    settings: dict[str, Setting]
    """Numbers, and words that name something else."""


def terms(kind: str, text: str, forms: str = "NAME, NAME(key=value) or a sum, NAME + 0.5 * NAME") -> list[Term]:
    """The parts of a sum; of a single name, one part. For people, `kind` is what is named, `forms` how to write it.

    Raises UserError where it cannot be read, or a factor is none.
    """
    try:
        found = list(_terms(ast.parse(text.strip(), mode="eval").body, 1.0))
    except (SyntaxError, ValueError, TypeError, OverflowError):
        raise UserError(f"{kind} {text!r} cannot be read: write {forms}") from None
    for term in found:
        if not 0 < term.factor < math.inf:
            raise UserError(
                f"{kind} {text!r}: {term.name} has the factor {term.factor:g}, which must be above 0 and finite"
            )
    return found


def made(kind: str, text: str, table: Mapping[str, Callable[..., T]]) -> T:
    """What the one name in `text` makes with its settings, all of them numbers.

    Raises UserError where it cannot be read, or there is no such name or setting in `table`.
    """
    first, *more = terms(kind, text, "NAME or NAME(key=value)")
    if more or first.factor != 1:
        raise UserError(f"{kind} {text!r} is a sum: name one of {', '.join(table)}")
    check(kind, text, first, table, settings(table[first.name]) if first.name in table else ())
    return called(kind, text, table[first.name], first.settings)


def check(kind: str, text: str, term: Term, table: Mapping[str, Any], known: Mapping[str, type] | tuple[()]) -> None:
    """Raises UserError where the term's name is not in `table`, or a setting is not among `known`: name -> type."""
    if term.name not in table:
        raise UserError(f"there is no {kind} {term.name!r}: choose one of {', '.join(table)}")
    types = dict(known)
    for key, value in term.settings.items():
        if key not in types or not isinstance(value, types[key]) or value in (math.inf, -math.inf):
            listed = ", ".join(types) or "none"
            raise UserError(f"{kind} {text!r}: {term.name} takes no {key}={value}; its settings: {listed}")


def called(kind: str, text: str, function: Callable[..., T], given: Mapping[str, Any]) -> T:
    """What the function makes of its settings. UserError where it raises ValueError, for a number out of its range."""
    try:
        return function(**given)
    except ValueError as error:
        raise UserError(f"{kind} {text!r}: {error}") from None


def in_range(**given: tuple[float, float, float]) -> None:
    """Of each setting by name, (value, least, largest). Raises ValueError where a value is not between them."""
    for name, (value, low, high) in given.items():
        if not low <= value <= high:
            raise ValueError(f"`{name}` (={value:g}) must be from {low:g} to {high:g}")


def settings(function: Callable[..., Any]) -> dict[str, type]:
    """The numbers that a function takes by name."""
    return dict.fromkeys(inspect.signature(function).parameters, float)


def _terms(node: ast.expr, factor: float) -> Iterator[Term]:
    match node:
        case ast.BinOp(left, ast.Add(), right):
            yield from _terms(left, factor)
            yield from _terms(right, factor)
        case ast.BinOp(ast.Constant(int() | float() as number), ast.Mult(), part):
            yield from _terms(part, factor * float(number))
        case ast.Name(name):
            yield Term(factor, name, {})
        case ast.Call(ast.Name(name), [], keywords):
            yield Term(factor, name, {str(one.arg): _setting(one.value) for one in keywords})
        case _:
            raise ValueError


def _setting(node: ast.expr) -> Setting:
    match node:
        case ast.Constant(int() | float() as number):
            return float(number)
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)):
            return -float(number)
        case ast.Name(word):
            return word
    raise ValueError
