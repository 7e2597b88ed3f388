"""Translates SSIS expressions to Jinja templates: literals as text, plain Jinja where it is exact, else our macros.

`"Failed: " + @[System::PackageName] + " at " + (DT_WSTR,30)GETDATE()` becomes
`Failed: {{ dag.dag_id }} at {{ ssis.text(ssis.getdate(), 30) }}`, where `ssis` is the module `ssis.macros`. It renders
to what `evaluate` returns, and to nothing for a null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airflow_provider_smtpcm.ssis.expressions.ast import (
    Call,
    Cast,
    Conditional,
    Expression,
    Literal,
    Name,
    Null,
    Operation,
    Unary,
    walk,
)
from airflow_provider_smtpcm.ssis.expressions.evaluate import evaluate
from airflow_provider_smtpcm.ssis.expressions.jinja import (
    JinjaExpression,
    JinjaName,
    JinjaType,
    TemplateBuilder,
    call_macro,
    find_common_type,
    find_jinja_type,
    make_literal,
    quote_string,
    quote_type,
    read_variable,
)
from airflow_provider_smtpcm.ssis.expressions.parser import parse
from airflow_provider_smtpcm.ssis.expressions.types import STRINGS, TIMES, DataType, ExpressionError, NotTranslatable
from airflow_provider_smtpcm.ssis.expressions.values import Value

# Maximum length of a computed constant that is written into a template, in characters.
_MAX_CONSTANT = 10_000
_COMPARISONS = {"==", "!=", "<", ">", "<=", ">="}
_LOGICAL = {"&&": "and", "||": "or"}
_FILTERS = {"UPPER": "upper", "LOWER": "lower", "REVERSE": "reverse"}
_STRIP_METHODS = {"TRIM": "strip", "LTRIM": "lstrip", "RTRIM": "rstrip"}
# The types of functions' results; a text where a function is missing.
_RESULT_TYPES = {
    **dict.fromkeys(
        ["FINDSTRING", "LEN", "TOKENCOUNT", "SIGN", "DATEDIFF", "DATEPART", "DAY", "MONTH", "YEAR"], JinjaType.WHOLE
    ),
    **dict.fromkeys(["CODEPOINT", "ABS", "CEILING", "EXP", "FLOOR", "LN", "LOG", "POWER", "ROUND"], JinjaType.NUMBER),
    **dict.fromkeys(["SQRT", "SQUARE"], JinjaType.NUMBER),
    **dict.fromkeys(["DATEADD", "GETDATE", "GETUTCDATE"], JinjaType.DATE),
    "ISNULL": JinjaType.BOOL,
}
# Functions whose result may be null although no argument is.
_NULLABLE_RESULTS = {"CODEPOINT", "LN", "LOG", "POWER"}
_CLOCK_NOTES = {
    "GETDATE": "GETDATE() is the moment at which the mail is made, in the local time of the Airflow worker, which "
    "often is UTC; SSIS took that of its server.",
    "GETUTCDATE": "GETUTCDATE() is the moment at which the mail is made.",
}

Resolver = Callable[[str], JinjaName | str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A template.

    Args:
        template: its text.
        is_template: whether it holds anything for Jinja; false: it is plain text.
        text: what it renders outside of braces, and the string literals inside of them.
        uses_macros: whether the DAG needs `user_defined_macros={"ssis": macros}`.
        notes: what differs from SSIS, one or two sentences each.
    """

    template: str
    is_template: bool
    text: str
    uses_macros: bool
    notes: tuple[str, ...]


def to_jinja(expression: str | Expression, resolve: Resolver) -> Translation:
    """Translate an expression to a template.

    Args:
        expression: its text, or its syntax tree.
        resolve: returns what a variable is in a template (or its Jinja expression, without braces), by the name that
            the expression has for it; None: it has no equivalent.

    Raises:
        ExpressionError: it cannot be parsed.
        NotTranslatable: it has no Jinja equivalent.
    """
    tree = parse(expression) if isinstance(expression, str) else expression
    translator = _Translator(resolve)
    builder = TemplateBuilder()
    translator.write(tree, builder)
    template, is_template = builder.build()
    return Translation(
        template=template,
        is_template=is_template,
        text=builder.literal_text(),
        uses_macros=builder.uses_macros,
        notes=tuple(dict.fromkeys(translator.notes)),
    )


def condition_to_jinja(expression: str | Expression, resolve: Resolver) -> str:
    """Translate a Boolean expression to a Jinja expression without braces, for an `if`.

    Args:
        expression: its text, or its syntax tree.
        resolve: as of `to_jinja`.

    Raises:
        ExpressionError: it cannot be parsed.
        NotTranslatable: it has no Jinja equivalent, or is no Boolean.
    """
    tree = parse(expression) if isinstance(expression, str) else expression
    condition = _Translator(resolve).translate(tree)
    if condition.type not in {JinjaType.BOOL, JinjaType.UNKNOWN}:
        raise NotTranslatable(f"The condition gives {condition.type}, no Boolean.", remedy="Compare it with something.")
    condition.check_depth()
    is_bool = condition.is_plain and condition.type is JinjaType.BOOL
    return condition.code if is_bool else f"ssis.is_true({condition.code})"


class _Translator:
    """Translates nodes, and collects the notes."""

    def __init__(self, resolve: Resolver) -> None:
        self._resolve = resolve
        self.notes: list[str] = []

    def write(self, node: Expression, builder: TemplateBuilder) -> None:
        """Add a node to a template; strings, concatenations and choices of strings are written outside of braces."""
        if (value := _fold_constant(node)) is not None:
            builder.add_text(str(value))
            return
        if isinstance(node, Operation) and node.is_sum:
            operands = [self.translate(operand) for operand in node.operands]
            if _is_concatenation(operands):
                for operand, translated in zip(node.operands, operands, strict=True):
                    if _is_long(operand):
                        self.write(operand, builder)
                    else:
                        builder.add_expression(translated)
                return
        if isinstance(node, Conditional) and (tests := self._translate_tests(node)):
            keyword = "if"
            for test, (_, chosen) in zip(tests, node.arms, strict=True):
                builder.add_statement(f"{keyword} {test}")
                self.write(chosen, builder)
                keyword = "elif"
            builder.add_statement("else")
            self.write(node.otherwise, builder)
            builder.add_statement("endif")
            return
        builder.add_expression(self.translate(node))

    def _translate_tests(self, node: Conditional) -> list[str]:
        """Return the tests of an `{% if %}`; none where the node is a Jinja expression rather than a statement."""
        if not _is_long(node):
            return []
        tests = [self.translate(test) for test, _ in node.arms]
        for test in tests:
            test.check_depth()
        # A null test selects nothing, which {% if %} cannot express.
        return [] if any(test.nullable for test in tests) else [test.as_bool().code for test in tests]

    def translate(self, node: Expression) -> JinjaExpression:  # noqa: PLR0911 - one for each node
        """Return the Jinja expression of a node."""
        if (constant := _fold_plain_constant(node)) is not None:
            return make_literal(constant)
        match node:
            case Literal():
                # A number of another type than DT_I4.
                arguments = [f"'{node.value}'", *quote_type(node.type)]
                return call_macro("cast", *arguments, type_=JinjaType.NUMBER, nullable=False, native=False)
            case Null():
                type_ = find_jinja_type(node.type.data_type)
                return call_macro("null", f"'{node.type.data_type}'", type_=type_, nullable=True, native=False)
            case Name():
                return self._translate_name(node)
            case Cast():
                return self._translate_cast(node)
            case Unary():
                return self._translate_unary(node)
            case Operation():
                return self._translate_operation(node)
            case Conditional():
                return self._translate_conditional(node)
            case Call():
                return self._translate_call(node)

    def _translate_name(self, node: Name) -> JinjaExpression:
        found = self._resolve(node.name)
        if found is None:
            raise NotTranslatable(
                f"Nothing in Airflow is what the variable {node.name} is.",
                remedy="Write the value into the DAG by hand.",
            )
        if isinstance(found, str):
            found = JinjaName(text=found)
        if found.note:
            self.notes.append(found.note)
        return read_variable(found)

    def _translate_cast(self, node: Cast) -> JinjaExpression:
        operand = self.translate(node.operand)
        if node.type.data_type in STRINGS:
            length = node.type.length
            if operand.is_text:
                code = operand.code if length is None else f"{operand.operand}[:{length}]"
                return JinjaExpression(code=code, type=JinjaType.TEXT, depth=operand.depth + 1)
            lengths = [] if length is None else [str(length)]
            return call_macro("text", operand, *lengths, type_=JinjaType.TEXT, nullable=operand.nullable)
        type_ = find_jinja_type(node.type.data_type)
        native = type_ in {JinjaType.BOOL, JinjaType.WHOLE}
        return call_macro(
            "cast", operand, *quote_type(node.type), type_=type_, nullable=operand.nullable, native=native
        )

    def _translate_unary(self, node: Unary) -> JinjaExpression:
        operand = self.translate(node.operand)
        if node.operator == "!" and operand.is_plain and operand.type is JinjaType.BOOL:
            code = f"not {operand.operand}"
            return JinjaExpression(code=code, type=JinjaType.BOOL, primary=False, depth=operand.depth + 1)
        type_ = JinjaType.BOOL if node.operator == "!" else JinjaType.NUMBER
        sign = quote_string(node.operator)
        native = type_ is JinjaType.BOOL
        return call_macro("unary", sign, operand, type_=type_, nullable=operand.nullable, native=native)

    def _translate_operation(self, node: Operation) -> JinjaExpression:
        operators = [operator for operator, _, _ in node.rest]
        operands = [self.translate(operand) for operand in node.operands]
        if operators[0] in _LOGICAL:
            return _translate_logical(operators[0], operands)
        depth = 1 + max(operand.depth for operand in operands)
        if node.is_sum and _is_concatenation(operands):
            code = " ~ ".join(operand.operand for operand in operands)
            return JinjaExpression(code=code, type=JinjaType.TEXT, primary=False, depth=depth)
        if operators[0] in _COMPARISONS:
            if len(operands) == 2 and _is_plain_comparison(operators[0], *operands):
                code = f"{operands[0].operand} {operators[0]} {operands[1].operand}"
                return JinjaExpression(code=code, type=JinjaType.BOOL, primary=False, depth=depth)
            _check_comparison(operators[0], operands)
        arguments: list[JinjaExpression | str] = [operands[0]]
        for operator, operand in zip(operators, operands[1:], strict=True):
            arguments += [quote_string(operator), operand]
        type_ = JinjaType.BOOL if operators[0] in _COMPARISONS else _find_arithmetic_type(node, operands)
        nullable = any(operand.nullable for operand in operands)
        native = type_ in {JinjaType.BOOL, JinjaType.TEXT}
        return call_macro("calc", *arguments, type_=type_, nullable=nullable, native=native)

    def _translate_conditional(self, node: Conditional) -> JinjaExpression:
        result = self.translate(node.otherwise)
        for test_node, chosen_node in reversed(node.arms):
            test, chosen = self.translate(test_node), self.translate(chosen_node)
            depth = 1 + max(test.depth, chosen.depth, result.depth)
            code = f"{chosen.operand} if {test.as_bool().operand} else {result.operand}"
            if test.nullable:
                # The code repeats the test and the choice, so their depth is checked before it doubles their length.
                test.check_depth()
                chosen.check_depth()
                code = f"ssis.null({chosen.code}) if ssis.isnull({test.code}) else ({code})"
            result = JinjaExpression(
                code=code,
                type=find_common_type(chosen.type, result.type),
                nullable=test.nullable or chosen.nullable or result.nullable,
                native=chosen.native and result.native,
                primary=False,
                depth=depth + (1 if test.nullable else 0),
            )
        return result

    def _translate_call(self, node: Call) -> JinjaExpression:
        if note := _CLOCK_NOTES.get(node.function):
            self.notes.append(note)
        arguments = [self.translate(argument) for argument in node.arguments]
        if plain := _translate_plain_call(node, arguments):
            return plain
        type_ = _RESULT_TYPES.get(node.function, JinjaType.TEXT)
        nullable = node.function in _NULLABLE_RESULTS or any(argument.nullable for argument in arguments)
        if node.function == "ISNULL":
            nullable = False
        elif node.function in {"REPLACENULL", "TOKENCOUNT"}:
            # A null in the first argument does not make the result null.
            type_ = arguments[0].type if node.function == "REPLACENULL" else type_
            nullable = arguments[1].nullable
        native = type_ in {JinjaType.TEXT, JinjaType.WHOLE, JinjaType.BOOL}
        return call_macro(node.function.lower(), *arguments, type_=type_, nullable=nullable, native=native)


def _fold_constant(node: Expression) -> Value | None:
    """Return the value of a constant expression; None where it depends on a variable or on the time.

    Raises:
        NotTranslatable: its evaluation fails.
    """
    if not isinstance(node, Literal):
        for one in walk(node):
            # A time is cast to a date by adding today's date.
            uses_today = isinstance(one, Cast) and one.type.data_type in TIMES
            if uses_today or isinstance(one, Name) or (isinstance(one, Call) and one.function in _CLOCK_NOTES):
                return None
    try:
        return evaluate(node)
    except ExpressionError as error:
        remedy = f"{error.remedy} It fails in SSIS too.".strip()
        raise NotTranslatable(f"The expression always fails: {error.message}", remedy=remedy) from None


def _fold_plain_constant(node: Expression) -> str | bool | int | None:
    """Return the value of a constant expression, if it is a text, a Boolean or a number of DT_I4."""
    value = None if isinstance(node, Null) else _fold_constant(node)
    if value is None or value.type.data_type not in {DataType.WSTR, DataType.STR, DataType.BOOL, DataType.I4}:
        return None
    if not isinstance(value.data, str | bool | int):
        return None
    return value.data if isinstance(node, Literal) or len(str(value.data)) <= _MAX_CONSTANT else None


def _is_long(node: Expression) -> bool:
    """Whether a node is easier to read as text and statements than as one Jinja expression."""
    if isinstance(node, Conditional):
        return len(node.arms) > 1 or _is_long(node.arms[0][1]) or _is_long(node.otherwise)
    return isinstance(node, Operation) and node.is_sum


def _is_concatenation(operands: Sequence[JinjaExpression]) -> bool:
    """Whether `+` between these joins texts, none of which can be null.

    Raises:
        NotTranslatable: one of them is no text, and has to be cast.
    """
    types = {operand.type for operand in operands}
    if JinjaType.TEXT not in types:
        return False
    if wrong := types - {JinjaType.TEXT, JinjaType.DATE, JinjaType.UNKNOWN}:
        raise NotTranslatable(
            f"+ cannot join a text and {wrong.pop()}; it fails in SSIS too.",
            remedy="Cast it to a text: (DT_WSTR,20)…",
        )
    return not any(operand.nullable for operand in operands)


def _is_plain_comparison(operator: str, left: JinjaExpression, right: JinjaExpression) -> bool:
    """Whether Python compares the two as SSIS does."""
    if not (left.is_plain and right.is_plain):
        return False
    is_equality = operator in {"==", "!="}
    types = {left.type, right.type}
    if len(types) == 1:
        return types <= {JinjaType.TEXT, JinjaType.WHOLE} or (is_equality and types == {JinjaType.BOOL})
    # A variable of unknown type has the other's type, or the package would not run.
    known = types & {JinjaType.TEXT, JinjaType.WHOLE, JinjaType.BOOL}
    return is_equality and JinjaType.UNKNOWN in types and bool(known)


def _check_comparison(operator: str, operands: Sequence[JinjaExpression]) -> None:
    """Refuse to compare a text with a number, which SSIS cannot do."""
    types = {operand.type for operand in operands}
    numbers = types & {JinjaType.WHOLE, JinjaType.NUMBER, JinjaType.BOOL}
    if JinjaType.TEXT in types and numbers:
        raise NotTranslatable(f"{operator} cannot compare a text with {numbers.pop()}.", remedy="Cast one of them.")


def _find_arithmetic_type(node: Operation, operands: Sequence[JinjaExpression]) -> JinjaType:
    """Return the type of an arithmetic operation or of a concatenation that may be null."""
    for type_ in (JinjaType.TEXT, JinjaType.UNKNOWN) if node.is_sum else ():
        if any(operand.type is type_ for operand in operands):
            return type_
    return JinjaType.NUMBER


def _translate_logical(operator: str, operands: Sequence[JinjaExpression]) -> JinjaExpression:
    """Translate `&&` and `||`, whose right side is evaluated only where the left one does not decide."""
    if not any(operand.nullable for operand in operands):
        bools = [operand.as_bool() for operand in operands]
        code = f" {_LOGICAL[operator]} ".join(operand.operand for operand in bools)
        depth = len(operands) // 4 + max(operand.depth for operand in bools)
        return JinjaExpression(code=code, type=JinjaType.BOOL, primary=False, depth=depth)
    result = operands[-1]
    for operand in reversed(operands[:-1]):
        rest = call_macro("calc", operand, quote_string(operator), result, type_=JinjaType.BOOL, nullable=True)
        decisive = "false" if operator == "&&" else "true"
        code = f"({decisive} if ssis.is_{decisive}({operand.code}) else {rest.code})"
        result = JinjaExpression(code=code, type=JinjaType.BOOL, nullable=True, depth=rest.depth + 1)
        # The code repeats the left side, so its depth is checked before the next operand doubles its length.
        result.check_depth()
    return result


def _translate_plain_call(node: Call, arguments: list[JinjaExpression]) -> JinjaExpression | None:
    """Translate a function of texts that cannot be null to plain Jinja; None where that is not exactly the same."""
    if not arguments:
        return None
    first = arguments[0]
    depth = 1 + max(argument.depth for argument in arguments)
    code, type_, primary = "", JinjaType.TEXT, False
    if node.function == "ISNULL" and isinstance(node.arguments[0], Name) and first.native:
        code, type_ = f"{first.operand} is none", JinjaType.BOOL
    elif not first.is_text:
        return None
    elif node.function in _FILTERS:
        code = f"{first.operand} | {_FILTERS[node.function]}"
    elif node.function in _STRIP_METHODS:
        code, primary = f"{first.operand}.{_STRIP_METHODS[node.function]}(' ')", True
    elif node.function == "LEN":
        code, type_ = f"{first.operand} | length", JinjaType.WHOLE
    elif node.function == "REPLACE" and arguments[1].text and arguments[2].is_text:
        code = f"{first.operand} | replace({arguments[1].code}, {arguments[2].code})"
    elif bounds := _find_slice(node.function, [_read_integer(argument) for argument in arguments[1:]]):
        code, primary, depth = f"{first.operand}[{bounds}]", True, 1 + first.depth
    if not code:
        return None
    return JinjaExpression(code=code, type=type_, primary=primary, depth=depth)


def _find_slice(function: str, numbers: list[int | None]) -> str | None:
    """Return the bounds of the slice that LEFT, RIGHT or SUBSTRING gives."""
    match function, numbers:
        case "LEFT", [int(count)] if count >= 0:
            return f":{count}"
        case "RIGHT", [int(count)] if count > 0:
            return f"-{count}:"
        case "SUBSTRING", [int(position), int(length)] if position > 0 and length >= 0:
            start = "" if position == 1 else str(position - 1)
            return f"{start}:{position - 1 + length}"
        case _:
            return None


def _read_integer(expression: JinjaExpression) -> int | None:
    """Return the number of an integer literal."""
    is_literal = expression.type is JinjaType.WHOLE and expression.code.removeprefix("-").isdecimal()
    return int(expression.code) if is_literal else None
