"""Taint tracking in Jinja: templates that record which characters of their output the author wrote.

A separator of addresses or paths has a meaning only where the author of the template wrote it. The record survives
blocks, macros, includes, `~`, `+`, `%` and filters such as `join`, `trim`, `lower` and `upper`. If a filter changes the
author's text in another way, its result is `MIXED`, and counts as one address or one path, whatever it contains.
`| safe` turns the author's text into a value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, wraps
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, cast

from airflow_provider_smtpcm.mail.tainted import DATA, MIXED

if TYPE_CHECKING:
    import jinja2
    from jinja2.ext import Extension
    from jinja2.lexer import Token, TokenStream

_TRACK_FILTER = "_written_by_the_author"
# In these statements, literals name other templates.
_TEMPLATE_STATEMENTS = ("include", "extends", "import", "from")
# The names in these statements count as macros, their parameters included.
_MACRO_STATEMENTS = ("macro", "from")
# After one of these tokens, `[` is a subscript and `(` is a call, unless the token is one of `_OPERATORS`.
_VALUE_ENDS = ("name", "string", "rparen", "rbracket")
_OPERATORS = ("if", "elif", "else", "in", "not", "and", "or", "is", "for", "recursive", "call", "set", "do", "with")
# These filters add their arguments to the text.
_TEXT_FILTERS = ("join", "default", "d")


class TrackedText(str):
    """Text of a template, with a mask that tells the author's characters from those of values.

    Args:
        text: the text itself.
        mask: the same text with `DATA` in place of each character of a value; None: all `MIXED`.
    """

    __slots__ = ("mask",)
    mask: str

    def __new__(cls, text: str, mask: str | None = None) -> Self:
        new = super().__new__(cls, text)
        new.mask = MIXED * len(text) if mask is None else mask
        return new

    def __str__(self) -> str:
        """Return the object itself, since a compiled template passes all its text through `str`."""
        return self

    def __add__(self, other: Any) -> str:
        return join_tracked((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: Any) -> str:
        return join_tracked((other, self)) if isinstance(other, str) else NotImplemented

    def __mod__(self, values: Any) -> str:
        text = str.__mod__(self, values)
        try:
            masked = (
                {key: _mask_value(value) for key, value in values.items()}
                if isinstance(values, Mapping)
                else (tuple(map(_mask_value, values)) if isinstance(values, tuple) else _mask_value(values))
            )
            mask = str.__mod__(self.mask, masked)
        except (TypeError, ValueError, LookupError):
            return TrackedText(text)
        return TrackedText(text, mask if len(mask) == len(text) else None)

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        return TrackedText(str.__getitem__(self, key), str.__getitem__(self.mask, key))

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def join(self, items: Iterable[str]) -> str:
        """Join as `str.join` does, with the masks of all parts."""
        parts: list[str] = []
        for item in items:
            parts += (self, item)
        return join_tracked(parts[1:])

    def strip(self, characters: str | None = None) -> str:
        """Strip as `str.strip` does."""
        return self._cut(str.strip(self, characters), len(self) - len(str.lstrip(self, characters)))

    def lstrip(self, characters: str | None = None) -> str:
        """Strip as `str.lstrip` does."""
        return self._cut(str.lstrip(self, characters), len(self) - len(str.lstrip(self, characters)))

    def rstrip(self, characters: str | None = None) -> str:
        """Strip as `str.rstrip` does."""
        return self._cut(str.rstrip(self, characters), 0)

    def _cut(self, text: str, start: int) -> str:
        return TrackedText(text, self.mask[start : start + len(text)])

    def _convert_case(self, convert: Callable[[str], str]) -> str:
        text, mask = convert(str.__str__(self)), convert(self.mask)
        # A letter may become two in another case ("ß" becomes "SS"), so that the mask no longer fits what follows.
        keeps_positions = all(len(convert(letter)) == 1 for letter in self)
        return TrackedText(text, mask if keeps_positions else None)

    def lower(self) -> str:
        """Convert as `str.lower` does."""
        return self._convert_case(str.lower)

    def upper(self) -> str:
        """Convert as `str.upper` does."""
        return self._convert_case(str.upper)


def _make_mixing_method(name: str) -> Callable[..., Any]:
    """Wrap a method of `str` that may move or replace characters, so that its result is `MIXED`."""
    method = getattr(str, name)

    @wraps(method)
    def call(self: TrackedText, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        if isinstance(result, tuple | list):
            return type(result)(map(TrackedText, result))
        return result if result is NotImplemented else TrackedText(result)

    return call


_MIXING_METHODS = (
    *("__mul__", "__rmul__", "capitalize", "casefold", "center", "expandtabs", "format", "format_map", "ljust"),
    *("partition", "removeprefix", "removesuffix", "replace", "rjust", "rpartition", "rsplit", "split", "splitlines"),
    *("swapcase", "title", "translate", "zfill"),
)
for _name in _MIXING_METHODS:
    setattr(TrackedText, _name, _make_mixing_method(_name))


def join_tracked(parts: Iterable[str]) -> str:
    """Join parts and their masks. The result is tracked if any part is."""
    parts = list(parts)
    text = "".join(parts)
    if not any(type(part) is TrackedText for part in parts):
        return text
    return TrackedText(text, "".join(map(get_mask, parts)))


def get_mask(part: str) -> str:
    """Return the mask of a text. Untracked text is a value, so its mask is all `DATA`."""
    return part.mask if type(part) is TrackedText else DATA * len(part)


def _mask_value(value: Any) -> str:
    return get_mask(value if isinstance(value, str) else str(value))


def make_tracking_environment(environment: jinja2.Environment) -> jinja2.Environment:
    """Return a variant of the environment in which the text and the literals of templates are `TrackedText`."""
    finalize: Any = environment.finalize
    tracking = environment.overlay(
        autoescape=False,
        finalize=_skip_tracked(finalize) if finalize else finalize,
        extensions=[_make_extension_class()],
        bytecode_cache=None,  # both variants have the same cache keys, but their compiled code differs
    )
    tracking.filters = {name: _mix_lost_masks(function) for name, function in environment.filters.items()}
    tracking.filters |= {_TRACK_FILTER: _make_literal_tracker(), "safe": environment.filters["safe"]}
    sandboxed: Any = tracking  # as every environment of Airflow is
    sandboxed.intercepted_binops = sandboxed.intercepted_binops | {"/"}
    sandboxed.binop_table = sandboxed.binop_table | {"/": _divide}
    tracking.concat = join_tracked  # type: ignore[method-assign]
    tracking.template_class = _make_template_class()
    return tracking


def find_template_text(node: jinja2.nodes.Expr) -> str | None:
    """Return the text of a node that is text of the template, tracked or not; None for an expression."""
    from jinja2 import nodes

    if isinstance(node, nodes.TemplateData):
        return node.data
    if isinstance(node, nodes.Filter) and node.name == _TRACK_FILTER and isinstance(node.node, nodes.Const):
        return str(node.node.value)
    return None


def _divide(left: Any, right: Any) -> Any:
    """Divide as `left / right`, also a path by `TrackedText`, which pathlib refuses and whose mask it would lose."""
    if not isinstance(right, str) or not (
        type(left) is TrackedText or (isinstance(left, PurePath) and type(right) is TrackedText)
    ):
        return left / right
    if get_mask(right).startswith("/"):
        return right  # the author's absolute path, as in pathlib; one from a value would leave the author's folder
    return join_tracked((str(left), TrackedText("/", "/"), right))


def _skip_tracked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `finalize`, `escape` or `Markup`, so that it returns `TrackedText` unchanged."""

    @wraps(function)
    def call(*args: Any) -> Any:
        return args[-1] if args and type(args[-1]) is TrackedText else function(*args)

    return call


def _mix_lost_masks(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter, so that its result is `MIXED` if it loses the mask of its input."""
    input_index = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
        except TypeError:  # of `pathlib`, which needs a plain `str`
            plain = [str.__str__(arg) if type(arg) is TrackedText else arg for arg in args]
            if all(map(operator.is_, plain, args)):
                raise
            result = function(*plain, **kwargs)
        if (
            isinstance(result, str)
            and type(result) is not TrackedText
            and len(args) > input_index
            and _has_tracked(args[input_index])
        ):
            return TrackedText(str.__str__(result))
        return result

    return filtered


def _has_tracked(value: Any) -> bool:
    if isinstance(value, tuple | list | set | frozenset):
        return any(map(_has_tracked, value))
    if isinstance(value, Mapping):
        return any(map(_has_tracked, (*value, *value.values())))
    return type(value) is TrackedText


@cache
def _make_literal_tracker() -> Callable[[jinja2.runtime.Context, str], str]:
    """Make the filter `_TRACK_FILTER`, which converts a literal to `TrackedText`."""
    from jinja2 import pass_context

    # The filter takes the context only so that Jinja does not evaluate it at compile time: that would lose the mask.
    @pass_context
    def track(_: jinja2.runtime.Context, text: str) -> str:
        return TrackedText(text, text)

    return track


@cache
def _make_template_class() -> type[jinja2.Template]:
    from jinja2 import Template
    from markupsafe import Markup, escape

    class TrackingTemplate(Template):
        """A template that keeps masks when it joins or escapes text."""

        @classmethod
        def from_code(cls, *args: Any, **kwargs: Any) -> TrackingTemplate:
            template = super().from_code(*args, **kwargs)
            template_globals = template.root_render_func.__globals__
            template_globals["str_join"] = template_globals["markup_join"] = lambda values: join_tracked(
                map(str, values)
            )
            template_globals["escape"], template_globals["Markup"] = _skip_tracked(escape), _skip_tracked(Markup)
            return cast("TrackingTemplate", template)

    return TrackingTemplate


@cache
def _make_extension_class() -> type[Extension]:
    from jinja2.ext import Extension
    from jinja2.lexer import Token

    class TrackingExtension(Extension):
        """Rewrites a template: text as `{{ ("text" | track) }}`, literals that become output as `("text" | track)`."""

        def filter_stream(self, stream: TokenStream) -> Iterable[Token]:
            position = _TokenPosition()
            for token in _join_literals(stream, Token):
                if token.type == "data":
                    yield Token(token.lineno, "variable_begin", "")
                    yield from _track_literal(token, Token)
                    yield Token(token.lineno, "variable_end", "")
                    continue
                position.move_to(token)
                if token.type == "string" and position.is_output:
                    yield from _track_literal(token, Token)
                else:
                    yield token

    return TrackingExtension


class _TokenPosition:
    """The position of a token in a template, to find out whether a literal there becomes part of the output.

    It does not if it names a template, is an argument of a function, or is a subscript.
    """

    def __init__(self) -> None:
        self._brackets: list[bool] = []  # for each open bracket: whether a literal in it becomes output
        self._macros: set[str] = set()
        self._statement = ""
        self._last, self._second_last = ("", ""), ("", "")

    @property
    def is_output(self) -> bool:
        """Whether a literal becomes output here: the innermost bracket and the statement decide."""
        return all(self._brackets[-1:]) and self._statement not in _TEMPLATE_STATEMENTS

    def move_to(self, token: Token) -> None:
        kind = token.type
        if self._last[0] == "block_begin":
            self._statement = token.value
        elif kind in ("block_end", "variable_begin"):
            self._statement = ""
        elif kind == "name" and self._statement in _MACRO_STATEMENTS:
            self._macros.add(token.value)
        elif kind in ("lparen", "lbracket", "lbrace"):
            self._brackets.append(self.is_output and (kind == "lbrace" or self._opens_output()))
        elif kind in ("rparen", "rbracket", "rbrace") and self._brackets:
            self._brackets.pop()
        self._last, self._second_last = (kind, token.value), self._last

    def _opens_output(self) -> bool:
        """Whether the bracket that opens here contains output: a list, a group, or a call of a macro or text filter."""
        kind, name = self._last
        if kind != "name":
            return kind not in _VALUE_ENDS
        if self._second_last[0] == "pipe":
            return name in _TEXT_FILTERS
        return name in self._macros or name in _OPERATORS


def _track_literal(token: Token, token_class: type[Token]) -> Iterator[Token]:
    line = token.lineno
    yield token_class(line, "lparen", "(")
    yield token_class(line, "string", token.value)
    yield token_class(line, "pipe", "|")
    yield token_class(line, "name", _TRACK_FILTER)
    yield token_class(line, "rparen", ")")


def _join_literals(stream: Iterable[Token], token_class: type[Token]) -> Iterator[Token]:
    """Join adjacent literals, since Jinja's parser cannot do so once each has the tracking filter."""
    literal: Token | None = None
    for token in stream:
        if literal is not None and token.type == "string":
            literal = token_class(literal.lineno, "string", literal.value + token.value)
            continue
        if literal is not None:
            yield literal
        literal = token if token.type == "string" else None
        if literal is None:
            yield token
    if literal is not None:
        yield literal
