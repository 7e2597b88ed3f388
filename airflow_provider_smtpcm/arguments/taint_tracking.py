"""A Jinja environment whose templates remember which characters of their text the author wrote.

What separates addresses or paths counts only where the author of the template wrote it. Text keeps its marks through
blocks, macros, includes, `~`, `+`, `%` and the filters that only join, strip or change its case. What any other filter
makes of it is `MIXED`: it is one address or one path, whatever is in it. `| safe` makes a value of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, cast

from airflow_provider_smtpcm.mail.tainted import DATA, MIXED

if TYPE_CHECKING:
    import jinja2
    from jinja2.ext import Extension
    from jinja2.lexer import Token, TokenStream

_MARK = "_written_by_the_author"
# The statements whose literals name other templates.
_NAMES_TEMPLATES = ("include", "extends", "import", "from")
# The statements whose names are macros, which are called as functions are.
_NAMES_MACROS = ("macro", "from")
# After one of these, a `[` or a `(` looks something up or calls something, unless the name is an operator.
_ENDS_OF_A_VALUE = ("name", "string", "rparen", "rbracket")
_OPERATORS = ("if", "elif", "else", "in", "not", "and", "or", "is", "for", "recursive", "call", "set", "do", "with")
# The filters whose arguments become a part of the text.
_ADDING_TEXT = ("join", "default", "d")


class TrackedText(str):
    """Text with the characters that the author of a template wrote.

    Args:
        text: the whole text.
        mask: the same text with `DATA` in place of each character of a value; None: `MIXED` in place of all of it.
    """

    __slots__ = ("mask",)
    mask: str

    def __new__(cls, text: str, mask: str | None = None) -> Self:
        new = super().__new__(cls, text)
        new.mask = MIXED * len(text) if mask is None else mask
        return new

    def __str__(self) -> str:
        """Itself, since a compiled template passes all that it writes through `str`."""
        return self

    def __add__(self, other: Any) -> str:
        return join_tracked((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: Any) -> str:
        return join_tracked((other, self)) if isinstance(other, str) else NotImplemented

    def __mod__(self, values: Any) -> str:
        text = str.__mod__(self, values)
        try:
            masked = (
                {key: _masked_value(value) for key, value in values.items()}
                if isinstance(values, Mapping)
                else (tuple(map(_masked_value, values)) if isinstance(values, tuple) else _masked_value(values))
            )
            mask = str.__mod__(self.mask, masked)
        except (TypeError, ValueError, LookupError):
            return TrackedText(text)
        return TrackedText(text, mask if len(mask) == len(text) else None)

    def __getitem__(self, at: SupportsIndex | slice) -> str:
        return TrackedText(str.__getitem__(self, at), str.__getitem__(self.mask, at))

    def __iter__(self) -> Iterator[str]:
        return (self[at] for at in range(len(self)))

    def join(self, items: Iterable[str]) -> str:
        """As `str.join`, with the marks of all."""
        parts: list[str] = []
        for item in items:
            parts += (self, item)
        return join_tracked(parts[1:])

    def strip(self, characters: str | None = None) -> str:
        """As `str.strip`, and likewise its marks."""
        return self._cut(str.strip(self, characters), len(self) - len(str.lstrip(self, characters)))

    def lstrip(self, characters: str | None = None) -> str:
        """As `str.lstrip`."""
        return self._cut(str.lstrip(self, characters), len(self) - len(str.lstrip(self, characters)))

    def rstrip(self, characters: str | None = None) -> str:
        """As `str.rstrip`."""
        return self._cut(str.rstrip(self, characters), 0)

    def _cut(self, text: str, begins: int) -> str:
        return TrackedText(text, self.mask[begins : begins + len(text)])

    def _in_another_case(self, convert: Callable[[str], str]) -> str:
        text, mask = convert(str.__str__(self)), convert(self.mask)
        # Some letters become two in another case; where each stands is known only if none did.
        alone = all(len(convert(letter)) == 1 for letter in self)
        return TrackedText(text, mask if alone else None)

    def lower(self) -> str:
        """As `str.lower`."""
        return self._in_another_case(str.lower)

    def upper(self) -> str:
        """As `str.upper`."""
        return self._in_another_case(str.upper)


def _mixing(name: str) -> Callable[..., Any]:
    """A method of `str` whose result does not tell where the author's characters are."""
    method = getattr(str, name)

    @wraps(method)
    def call(self: TrackedText, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        if isinstance(result, tuple | list):
            return type(result)(map(TrackedText, result))
        return result if result is NotImplemented else TrackedText(result)

    return call


_MIXING = (
    *("__mul__", "__rmul__", "capitalize", "casefold", "center", "expandtabs", "format", "format_map", "ljust"),
    *("partition", "removeprefix", "removesuffix", "replace", "rjust", "rpartition", "rsplit", "split", "splitlines"),
    *("swapcase", "title", "translate", "zfill"),
)
for _name in _MIXING:
    setattr(TrackedText, _name, _mixing(_name))


def join_tracked(parts: Iterable[str]) -> str:
    """The parts as one text, with the marks of those that have some."""
    parts = list(parts)
    text = "".join(parts)
    if not any(type(part) is TrackedText for part in parts):
        return text
    return TrackedText(text, "".join(map(get_mask, parts)))


def get_mask(part: str) -> str:
    """Its mask; text without marks is a value."""
    return part.mask if type(part) is TrackedText else DATA * len(part)


def _masked_value(value: Any) -> str:
    return get_mask(value if isinstance(value, str) else str(value))


def make_tracking_environment(environment: jinja2.Environment) -> jinja2.Environment:
    """The same environment, in which the texts of templates, and the literals in them, are `TrackedText`."""
    finalize: Any = environment.finalize
    marking = environment.overlay(
        autoescape=False,
        finalize=_but_for_text(finalize) if finalize else finalize,
        extensions=[_marking_extension()],
        bytecode_cache=None,  # its key does not tell how the code was compiled
    )
    marking.filters = {name: _keeping_marks(function) for name, function in environment.filters.items()}
    marking.filters |= {_MARK: _as_written(), "safe": environment.filters["safe"]}
    marking.concat = join_tracked  # type: ignore[method-assign]
    marking.template_class = _marking_template()
    return marking


def _but_for_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that changes all that is filled in, but for what the author wrote."""

    @wraps(function)
    def call(*args: Any) -> Any:
        return args[-1] if args and type(args[-1]) is TrackedText else function(*args)

    return call


def _keeping_marks(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose result is `MIXED` where it loses the marks of what it was given."""
    at = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if isinstance(result, str) and type(result) is not TrackedText and len(args) > at and _has_marks(args[at]):
            return TrackedText(str.__str__(result))
        return result

    return filtered


def _has_marks(value: Any) -> bool:
    if isinstance(value, tuple | list | set | frozenset):
        return any(map(_has_marks, value))
    if isinstance(value, Mapping):
        return any(map(_has_marks, (*value, *value.values())))
    return type(value) is TrackedText


@cache
def _as_written() -> Callable[[jinja2.runtime.Context, str], str]:
    """The filter behind `_MARK`."""
    from jinja2 import pass_context

    # It asks for the context only so that Jinja does not evaluate it when it compiles, and lose the mark.
    @pass_context
    def as_written(_: jinja2.runtime.Context, text: str) -> str:
        return TrackedText(text, text)

    return as_written


@cache
def _marking_template() -> type[jinja2.Template]:
    from jinja2 import Template
    from markupsafe import Markup, escape

    class MarkingTemplate(Template):
        """A template that keeps the marks wherever it joins text, or escapes it."""

        @classmethod
        def from_code(cls, *args: Any, **kwargs: Any) -> MarkingTemplate:
            template = super().from_code(*args, **kwargs)
            own = template.root_render_func.__globals__
            own["str_join"] = own["markup_join"] = lambda values: join_tracked(map(str, values))
            own["escape"], own["Markup"] = _but_for_text(escape), _but_for_text(Markup)
            return cast("MarkingTemplate", template)

    return MarkingTemplate


@cache
def _marking_extension() -> type[Extension]:
    from jinja2.ext import Extension
    from jinja2.lexer import Token

    class MarkingExtension(Extension):
        """Writes the text of a template as `{{ ("text" | mark) }}`, and the literals in it as `("text" | mark)`."""

        def filter_stream(self, stream: TokenStream) -> Iterable[Token]:
            position = _Position()
            for token in _literals_joined(stream, Token):
                if token.type == "data":
                    yield Token(token.lineno, "variable_begin", "")
                    yield from _marked(token, Token)
                    yield Token(token.lineno, "variable_end", "")
                    continue
                position.move_to(token)
                if token.type == "string" and position.is_in_the_text:
                    yield from _marked(token, Token)
                else:
                    yield token

    return MarkingExtension


class _Position:
    """Where in a template a token stands: whether a literal there becomes a part of the text.

    One that names a template, that a function is called with, or that looks up a part of a value, does not.
    """

    def __init__(self) -> None:
        self._within: list[bool] = []  # for each bracket that is open
        self._macros: set[str] = set()
        self._statement = ""
        self._last, self._last_but_one = ("", ""), ("", "")

    @property
    def is_in_the_text(self) -> bool:
        return all(self._within[-1:]) and self._statement not in _NAMES_TEMPLATES

    def move_to(self, token: Token) -> None:
        kind = token.type
        if self._last[0] == "block_begin":
            self._statement = token.value
        elif kind in ("block_end", "variable_begin"):
            self._statement = ""
        elif kind == "name" and self._statement in _NAMES_MACROS:
            self._macros.add(token.value)
        elif kind in ("lparen", "lbracket", "lbrace"):
            self._within.append(self.is_in_the_text and (kind == "lbrace" or self._opens_a_value()))
        elif kind in ("rparen", "rbracket", "rbrace") and self._within:
            self._within.pop()
        self._last, self._last_but_one = (kind, token.value), self._last

    def _opens_a_value(self) -> bool:
        """Whether what stands behind a bracket becomes text: in a list, for a macro, for some filters."""
        kind, name = self._last
        if kind != "name":
            return kind not in _ENDS_OF_A_VALUE
        if self._last_but_one[0] == "pipe":
            return name in _ADDING_TEXT
        return name in self._macros or name in _OPERATORS


def _marked(token: Token, new: type[Token]) -> Iterator[Token]:
    line = token.lineno
    yield new(line, "lparen", "(")
    yield new(line, "string", token.value)
    yield new(line, "pipe", "|")
    yield new(line, "name", _MARK)
    yield new(line, "rparen", ")")


def _literals_joined(stream: Iterable[Token], new: type[Token]) -> Iterator[Token]:
    """The tokens, with literals that follow one another as the one that they mean."""
    held: Token | None = None
    for token in stream:
        if held is not None and token.type == "string":
            held = new(held.lineno, "string", held.value + token.value)
            continue
        if held is not None:
            yield held
        held = token if token.type == "string" else None
        if held is None:
            yield token
    if held is not None:
        yield held
