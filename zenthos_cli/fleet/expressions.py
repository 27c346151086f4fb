"""Unit conversions as arithmetic over columns: `100 * vwc_5cm`, `(fahrenheit - 32) / 1.8`.

Numbers, column names (`vwc_5cm`, or `soil.vwc_5cm` where two files have it), + - * /, parentheses
and the functions below; nothing else, so a mapping file can run no code.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

_BINARY: Final[dict[type[ast.operator], Callable[[pl.Expr, pl.Expr], pl.Expr]]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}
_FUNCTIONS: Final[dict[str, tuple[int, Callable[..., pl.Expr]]]] = {
    "min": (2, lambda a, b: pl.when(a < b).then(a).otherwise(b)),
    "max": (2, lambda a, b: pl.when(a > b).then(a).otherwise(b)),
    "abs": (1, lambda a: a.abs()),
    "exp": (1, lambda a: a.exp()),
    "log": (1, lambda a: a.log()),
    "sqrt": (1, lambda a: a.sqrt()),
}
FUNCTIONS: Final = tuple(_FUNCTIONS)


@dataclass(frozen=True)
class Expression:
    """A parsed conversion; `columns` are the names it uses."""

    columns: frozenset[str]
    _tree: ast.expr

    def over(self, columns: Mapping[str, pl.Expr]) -> pl.Expr:
        """The conversion with each name standing for one of `columns`."""
        return _build(self._tree, columns)


def parse(text: str) -> Expression:
    """Read a conversion; ValueError saying what is wrong with it."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"`{text}` is not an expression: {error}") from None
    names = frozenset(_names(tree))
    if not names:
        raise ValueError(f"`{text}` names no column")
    return Expression(names, tree)


def _names(node: ast.expr) -> list[str]:
    """Every column in the tree; ValueError for a node that is not allowed."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return []
        case ast.Name(id=name):
            return [name]
        case ast.Attribute(value=ast.Name(id=role), attr=name):
            return [f"{role}.{name}"]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _names(operand)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
            return _names(left) + _names(right)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            if len(args) != _FUNCTIONS[name][0]:
                raise ValueError(f"{name}() takes {_FUNCTIONS[name][0]} values, not {len(args)}")
            return [found for arg in args for found in _names(arg)]
    raise ValueError(
        f"`{ast.unparse(node)}` is not allowed: use numbers, column names, + - * / and "
        + ", ".join(f"{name}()" for name in FUNCTIONS)
    )


def _build(node: ast.expr, columns: Mapping[str, pl.Expr]) -> pl.Expr:
    match node:
        case ast.Constant(value=int() | float() as value):
            return pl.lit(float(value))
        case ast.Name(id=name):
            return columns[name]
        case ast.Attribute(value=ast.Name(id=role), attr=name):
            return columns[f"{role}.{name}"]
        case ast.UnaryOp(operand=operand):
            return -_build(operand, columns)
        case ast.BinOp(left=left, op=operator, right=right):
            return _BINARY[type(operator)](_build(left, columns), _build(right, columns))
        case ast.Call(func=ast.Name(id=name), args=args):
            return _FUNCTIONS[name][1](*(_build(arg, columns) for arg in args))
    raise AssertionError(ast.dump(node))  # parse() lets nothing else through
