r"""SSIS expressions as Jinja templates of a DAG: inlined, searched for credentials, with Windows paths mapped.

An expression that contains the account of a connection string is refused, even if it is spread over several literals:
`"User ID=" + "svc" + ";Password=" + ...`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.expressions import (
    Cast,
    Conditional,
    DataType,
    Expression,
    ExpressionError,
    Literal,
    Name,
    NotTranslatable,
    Operation,
    TemplateContext,
    TypeSpec,
    children,
    condition_to_jinja,
    find_leading_strings,
    find_variables,
    merge_strings,
    parse,
    replace_strings,
    to_jinja,
    unparse,
    walk,
)
from airflow_provider_smtpcm.ssis.model import SmtpConnection
from airflow_provider_smtpcm.ssis.writing.conversion import Findings
from airflow_provider_smtpcm.ssis.writing.secrets import has_credentials, sanitize
from airflow_provider_smtpcm.ssis.writing.symbols import Scope, Symbol, SymbolTable, design_value

#: An undefined name of templates: reading an attribute of it fails, so a mail that needs it is not sent.
COMPLETE_ME = "complete_me"
# SSIS splits the value of the whole expression. An operator splits the text of its template, so that a rendered value
# stays one address or one file; only a template that is a single value, or ends in `| safe`, may give several.
_SEPARATORS = {"to": ";,", "cc": ";,", "bcc": ";,", "attachments": "|"}
_WINDOWS_PATH = re.compile(r"\\\\[^\\]|//[^/]|[A-Za-z]:(?:[\\/]|\Z)")
# Replaces a value that is computed at run time. It ends a value in a connection string, and is not one itself.
_COMPUTED = ";"
_MAX_PREFIX = 200
_PASSWORD_KEY = re.compile(r"(?:password|passwd|pwd)\s*[=:]\s*[\"']?\Z", re.IGNORECASE)


class PathMap:
    r"""Maps Windows paths to paths of a worker by their prefixes; the longest prefix wins.

    Drive letters and UNC paths, either kind of slash, any case. A prefix ends where a folder ends: `\\srv\share` is no
    prefix of `\\srv\share2`.

    Args:
        pairs: a Windows path prefix, and the path on a worker.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        known = {_normalize(windows).rstrip("/"): worker.rstrip("/") for windows, worker in pairs}
        self._pairs = sorted(known.items(), key=lambda pair: (-len(pair[0]), pair[0]))

    def map(self, path: str) -> str | None:
        """Return the path on a worker, or None if no prefix matches."""
        normalized = _normalize(path)
        for windows, worker in self._pairs:
            if normalized.startswith(windows) and normalized[len(windows) : len(windows) + 1] in ("", "/"):
                return worker + path.replace("\\", "/")[len(windows) :] or "/"
        return None


def is_windows_path(path: str) -> bool:
    """Whether a text begins like an absolute Windows path."""
    return _WINDOWS_PATH.match(path) is not None


def _normalize(path: str) -> str:
    return path.replace("\\", "/").lower()


@dataclass(slots=True, kw_only=True)
class WritingContext:
    """What the conversion of one package shares.

    Args:
        conn_id_of: returns the id of the Airflow connection for a connection manager.
        macros: the macros that the templates use, by their names in a template.
        used_connections: the ids of the connections that the mails use, in order.
    """

    symbols: SymbolTable
    findings: Findings
    paths: PathMap
    conn_id_of: Callable[[SmtpConnection], str]
    macros: set[str] = field(default_factory=set)
    used_connections: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template, and the texts that its expression contains."""

    text: str
    literals: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateTranslator:
    """Translates the expressions of one mail.

    Args:
        scope: what their names refer to.
        place: whether the mail is a task or a callback.
        where: the SSIS path of the mail, for findings.
        task_name: the value of `System::TaskName`.
    """

    context: WritingContext
    scope: Scope
    place: TemplateContext
    where: str
    task_name: str

    def translate(self, expression: str, *, argument: str = "", is_path: bool = False) -> Template:
        """Return the template for an expression.

        Args:
            argument: that the template is for; addresses and attachments may be several.
            is_path: map Windows paths, in the literals and in the variables that hold one.

        Raises:
            ExpressionError: it cannot be parsed.
            NotTranslatable: it has no template, or contains credentials.
        """
        context, symbols = self.context, self.context.symbols
        original = parse(expression)
        with symbols.params.rollback_on_failure():
            tree = _without_credentials(symbols.inline(original, self.scope, self.task_name))
            symbols.mark_secret(_names_behind_password_key(tree), self.scope)
            if is_path:
                tree = self._with_mapped_paths(tree)
            translation = to_jinja(tree, symbols.jinja_resolver(self.scope, self.place))
        for symbol, mapped in self._mapped_variables(tree) if is_path else ():
            symbols.params.set_default(symbol, mapped)
        if translation.uses_macros:
            context.macros.add("ssis")
        for note in translation.notes:
            context.findings.note("system-variable", self.where, note)
        template = translation.template
        if translation.is_template and any(sign in translation.literal_text for sign in _SEPARATORS.get(argument, "")):
            template = f"{{% set {argument} %}}{template}{{% endset %}}{{{{ {argument} | safe }}}}"
        return Template(text=template, literals=_joined_literals(symbols.inline(original, self.scope)))

    def map_path(self, path: str) -> str:
        """Return a path as it is on a worker; where no mapping gives it, add a finding and return it unchanged."""
        if not path.strip():
            return path
        mapped = self.context.paths.map(path.strip())
        if mapped is not None:
            return mapped
        self._report_unmapped(path.strip())
        return path

    def _report_unmapped(self, path: str) -> None:
        if is_windows_path(path) or path.startswith("\\"):
            self.context.findings.decision(
                "unmapped-path",
                self.where,
                f"{sanitize(path)} is a path of Windows, and no mapping says where it is on a worker.",
                r"Import again with --map-path '\\server\share=/mnt/share', or write the path into the DAG.",
            )
        elif path and not path.startswith("/"):
            self.context.findings.decision(
                "unmapped-path",
                self.where,
                f"{sanitize(path)} does not begin with a drive or a share, so SSIS looks for it in the folder in which "
                "it happens to run; a worker has no such folder.",
                "Write the whole path into the DAG.",
            )

    def _mapped_variables(self, tree: Expression) -> list[tuple[Symbol, str]]:
        """Return the variables in an expression that hold a Windows path, with that path on a worker."""
        found = [self.context.symbols.lookup(name, self.scope) for name in find_variables(tree)]
        values = [(symbol, design_value(symbol)) for symbol in found if symbol is not None]
        paths = [(symbol, text) for symbol, text in values if isinstance(text, str) and is_windows_path(text.strip())]
        return [(symbol, mapped) for symbol, text in paths if (mapped := self.map_path(text)) != text]

    def _with_mapped_paths(self, tree: Expression) -> Expression:
        """Return the tree with the mapping applied to the literals that make up a path, or several with `|` between."""
        tree = merge_strings(tree)
        for text in find_leading_strings(tree):
            if not is_windows_path(text.strip()):
                self._report_unmapped(text.partition("|")[0].strip())
        texts = [one.value for one in walk(tree) if isinstance(one, Literal) and isinstance(one.value, str)]
        # The path may continue in other literals: once a prefix is mapped, backslashes are replaced in all of them.
        is_mapped = any(self.context.paths.map(path.strip()) for text in texts for path in text.split("|"))
        is_mapped = is_mapped or bool(self._mapped_variables(tree))

        def map_text(text: str) -> str:
            paths = text.split("|")
            mapped = [self.map_path(path) if is_windows_path(path.strip()) else path for path in paths]
            has_changed = is_mapped or mapped != paths
            return "|".join(path.replace("\\", "/") if has_changed else path for path in mapped)

        return replace_strings(tree, map_text)


def translate_condition(context: WritingContext, expression: str, scope: Scope) -> str:
    """Return the Jinja expression, without braces, for a condition of a task.

    Raises:
        ExpressionError: it cannot be parsed.
        NotTranslatable: it has no template, or contains credentials.
    """
    symbols = context.symbols
    with symbols.params.rollback_on_failure():
        tree = _without_credentials(symbols.inline(parse(expression), scope))
        template = condition_to_jinja(tree, symbols.jinja_resolver(scope, TemplateContext.TASK))
    if "ssis." in template:
        context.macros.add("ssis")
    return template


def display_expression(expression: str) -> str:
    """Return an expression for a report or a comment, without credentials.

    If the credentials are spread over several literals, all literals are removed.
    """
    try:
        tree = parse(expression)
    except (ExpressionError, RecursionError):
        return sanitize(expression)
    single = {str(one.value).strip(_COMPUTED) for one in walk(tree) if isinstance(one, Literal)}
    if any(has_credentials(text) and text.strip(_COMPUTED) not in single for text in _joined_literals(tree)):
        return unparse(replace_strings(tree, lambda _: "(removed)"))
    return sanitize(expression)


def error_summary(error: Exception) -> str:
    """Return the message of an error without the lines that point at a place in the expression."""
    return sanitize(str(error)).partition("\n    ")[0]


def _joined_literals(tree: Expression) -> list[str]:
    """Return the texts in an expression; those that `+` joins are one text, and a conditional gives several."""
    found: list[str] = []
    remaining = [tree]
    while remaining:
        node = remaining.pop()
        if isinstance(node, Literal | Cast | Operation):
            operands = _concatenated(node)
            text = "".join(map(_text_of, operands))
            found += [text] if text.strip(_COMPUTED) else []
            # Each branch of a conditional is checked by itself, after the text before it.
            before = ""
            for operand in operands:
                if isinstance(operand, Conditional):
                    remaining += [each for test, arm in operand.arms for each in (test, _prepend(before, arm))]
                    remaining.append(_prepend(before, operand.otherwise))
                before += _text_of(operand)
            remaining += [
                inner for operand in operands if not isinstance(operand, Conditional) for inner in children(operand)
            ]
        else:
            remaining += children(node)
    return found


def _without_credentials(tree: Expression) -> Expression:
    """Return the tree unchanged.

    Raises:
        NotTranslatable: a text in it contains credentials.
    """
    if any(has_credentials(text) for text in _joined_literals(tree)):
        raise NotTranslatable(
            "It holds an account, which is not repeated.", remedy="Take it from where secrets are kept."
        )
    return tree


def _names_behind_password_key(tree: Expression) -> Iterator[str]:
    """Yield the names in the place of a password, as in `"Password=" + @[User::Text]`."""
    for node in walk(tree):
        if not isinstance(node, Operation):
            continue
        before = ""
        for operand in _concatenated(node):
            if isinstance(operand, Name) and _PASSWORD_KEY.search(before[-_MAX_PREFIX:]):
                yield operand.name
            before += _text_of(operand)


def _concatenated(node: Expression) -> list[Expression]:
    """Return the operands that `+` joins, in order, also within casts."""
    if isinstance(node, Cast):
        return _concatenated(node.operand)
    if isinstance(node, Operation) and node.is_sum:
        return [part for each in node.operands for part in _concatenated(each)]
    return [node]


def _text_of(node: Expression) -> str:
    return node.value if isinstance(node, Literal) and isinstance(node.value, str) else _COMPUTED


def _prepend(before: str, branch: Expression) -> Expression:
    """Return a branch of a conditional behind the end of the text before it."""
    if not before.strip(_COMPUTED):
        return branch
    prefix = Literal(type=TypeSpec(DataType.WSTR), value=before[-_MAX_PREFIX:])
    return Operation(first=prefix, rest=(("+", branch, 0),))
