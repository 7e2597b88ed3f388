"""Translates SSIS expressions to Jinja templates.

Literals become text, operations become plain Jinja where its semantics are the same, and macros where they are not:
`"Failed: " + @[System::PackageName] + " at " + (DT_WSTR,30)GETDATE()` becomes
`Failed: {{ dag.dag_id }} at {{ ssis.text(ssis.getdate(), 30) }}`, where `ssis` is the module `ssis.macros`. A template
renders as the value that `evaluate` returns, and as nothing for a null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airflow_provider_smtpcm.ssis.expressions.ast import (
    COMPARISONS,
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
from airflow_provider_smtpcm.ssis.expressions.casts import Value
from airflow_provider_smtpcm.ssis.expressions.evaluate import evaluate
from airflow_provider_smtpcm.ssis.expressions.jinja import (
    JinjaExpression,
    JinjaName,
    JinjaType,
    TemplateBuilder,
    call_macro,
    find_common_type,
    make_literal,
    quote_string,
    quote_type,
    read_variable,
    to_jinja_type,
)
from airflow_provider_smtpcm.ssis.expressions.parser import parse
from airflow_provider_smtpcm.ssis.expressions.types import STRINGS, TIMES, DataType, ExpressionError, NotTranslatable

# Maximum length, in characters, of a constant that is computed at import and written into the template.
_MAX_CONSTANT = 10_000
_LOGICAL = {"&&": "and", "||": "or"}
_STRIP_METHODS = {"TRIM": "strip", "LTRIM": "lstrip", "RTRIM": "rstrip"}
# The types of function results; a function that is missing here returns a string.
_RESULT_TYPES = {
    **dict.fromkeys(
        ["FINDSTRING", "LEN", "TOKENCOUNT", "SIGN", "DATEDIFF", "DATEPART", "DAY", "MONTH", "YEAR"], JinjaType.INTEGER
    ),
    **dict.fromkeys(["CODEPOINT", "ABS", "CEILING", "EXP", "FLOOR", "LN", "LOG", "POWER", "ROUND"], JinjaType.NUMBER),
    **dict.fromkeys(["SQRT", "SQUARE"], JinjaType.NUMBER),
    **dict.fromkeys(["DATEADD", "GETDATE", "GETUTCDATE"], JinjaType.DATE),
    "ISNULL": JinjaType.BOOL,
}
# Functions whose result may be null even if no argument is.
_NULLABLE_RESULTS = {"CODEPOINT", "LN", "LOG", "POWER"}
_CLOCK_NOTES = {
    "GETDATE": "GETDATE() is the time at which the mail is rendered, in the local time of the Airflow worker, which "
    "is often UTC; in SSIS, it is the local time of its server.",
    "GETUTCDATE": "GETUTCDATE() is the time at which the mail is rendered.",
}
#: The note about the text of a DT_DATE, which is right in a package whose locale is US English.
DATE_FORMAT_NOTE = (
    "A DateTime as text is in US English, such as 1/31/2026 5:30:00 PM; SSIS uses the locale of the package."
)

Resolver = Callable[[str], JinjaName | str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A translated expression.

    Args:
        template: the Jinja template.
        is_template: whether Jinja has anything to render; False: `template` is plain text.
        constant: the text of an expression that is a constant; None for any other.
        literal_text: the text outside the braces and the string literals inside them, concatenated.
        uses_macros: whether the DAG needs `user_defined_macros={"ssis": macros}`.
        notes: differences from SSIS, one or two sentences each.
    """

    template: str
    is_template: bool
    constant: str | None
    literal_text: str
    uses_macros: bool
    notes: tuple[str, ...]


def to_jinja(expression: str | Expression, resolve: Resolver) -> Translation:
    """Translate an expression to a template.

    Args:
        expression: text or syntax tree.
        resolve: maps the name of a variable, as the expression writes it, to a `JinjaName` or to Jinja code without
            braces; None: the variable has no equivalent.

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
        constant=builder.get_constant(),
        literal_text=builder.get_literal_text(),
        uses_macros=builder.uses_macros,
        notes=tuple(dict.fromkeys(translator.notes)),
    )


def condition_to_jinja(expression: str | Expression, resolve: Resolver) -> str:
    """Translate a Boolean expression to a Jinja expression without braces, for an `if`.

    Args:
        expression: text or syntax tree.
        resolve: as in `to_jinja`.

    Raises:
        ExpressionError: it cannot be parsed.
        NotTranslatable: it has no Jinja equivalent, or is not a Boolean.
    """
    tree = parse(expression) if isinstance(expression, str) else expression
    condition = _Translator(resolve).translate(tree)
    if condition.type not in {JinjaType.BOOL, JinjaType.UNKNOWN}:
        raise NotTranslatable(f"The condition is {condition.type}, not a Boolean.", remedy="Compare it with a value.")
    condition.check_depth()
    is_bool = condition.is_plain and condition.type is JinjaType.BOOL
    return condition.code if is_bool else f"ssis.is_true({condition.code})"


def find_non_boolean_type(tree: Expression, resolve: Resolver) -> str:
    """Return a description of the type of an expression, such as `a string`; empty if it is or may be a Boolean.

    Raises:
        NotTranslatable: it has no Jinja equivalent.
    """
    type_ = _Translator(resolve).translate(tree).type
    return "" if type_ in {JinjaType.BOOL, JinjaType.UNKNOWN} else str(type_)


class _Translator:
    """Translates the nodes of one expression.

    Attributes:
        notes: the notes of the variables and functions so far.
    """

    def __init__(self, resolve: Resolver) -> None:
        self._resolve = resolve
        self.notes: list[str] = []

    def write(self, node: Expression, builder: TemplateBuilder) -> None:
        """Add a node to a template: constants and concatenations as text, a long `?:` as `{% if %}` statements."""
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
        """Return the tests for `{% if %}` and `{% elif %}`; empty if the node becomes an inline `if` expression."""
        if not _is_long(node):
            return []
        tests = [self.translate(test) for test, _ in node.arms]
        for test in tests:
            test.check_depth()
        if any(test.nullable for test in tests):
            return []  # the result of `?:` with a null test is null, which {% if %} cannot express
        codes = [test.to_bool() for test in tests]
        # Jinja takes an inline `if` as a test only in parentheses.
        return [
            code.operand if isinstance(test, Conditional) else code.code
            for code, (test, _) in zip(codes, node.arms, strict=True)
        ]

    def translate(self, node: Expression) -> JinjaExpression:  # noqa: PLR0911 - one return for each node type
        """Translate a node to a Jinja expression."""
        if (constant := _fold_plain_constant(node)) is not None:
            return make_literal(constant)
        match node:
            case Literal():
                # Only numbers other than DT_I4: all other literals are plain constants, handled above.
                arguments = [f"'{node.value}'", *quote_type(node.type)]
                return call_macro("cast", *arguments, type_=JinjaType.NUMBER, nullable=False, native=False)
            case Null():
                type_ = to_jinja_type(node.type.data_type)
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
        variable = self._resolve(node.name)
        if variable is None:
            raise NotTranslatable(
                f"Airflow has no equivalent of the variable {node.name}.",
                remedy="Write the value in the DAG.",
            )
        if isinstance(variable, str):
            variable = JinjaName(code=variable)
        if variable.note:
            self.notes.append(variable.note)
        return read_variable(variable)

    def _translate_cast(self, node: Cast) -> JinjaExpression:
        operand = self.translate(node.operand)
        if node.type.data_type in STRINGS:
            if self._has_local_format(node.operand):
                self.notes.append(DATE_FORMAT_NOTE)
            length = node.type.length
            if operand.is_string:
                code = operand.code if length is None else f"{operand.operand}[:{length}]"
                return JinjaExpression(code=code, type=JinjaType.STRING, depth=operand.depth + 1)
            lengths = [] if length is None else [str(length)]
            return call_macro("text", operand, *lengths, type_=JinjaType.STRING, nullable=operand.nullable)
        type_ = to_jinja_type(node.type.data_type)
        native = type_ in {JinjaType.BOOL, JinjaType.INTEGER}
        return call_macro(
            "cast", operand, *quote_type(node.type), type_=type_, nullable=operand.nullable, native=native
        )

    def _has_local_format(self, node: Expression) -> bool:
        """Whether the text of a value depends on the locale: whether it is a DT_DATE, and no other date or time."""
        match node:
            case Cast():
                return node.type.data_type is DataType.DATE
            case Name():
                variable = self._resolve(node.name)
                is_date = isinstance(variable, JinjaName) and variable.type is DataType.DATE
                return is_date and node.name.removeprefix("System::") != "StartTime"  # its own note says so
            case Call(function="DATEADD"):
                return self._has_local_format(node.arguments[-1])
            case Conditional():
                return any(map(self._has_local_format, (*(chosen for _, chosen in node.arms), node.otherwise)))
            case _:
                return False

    def _translate_unary(self, node: Unary) -> JinjaExpression:
        operand = self.translate(node.operand)
        if node.operator == "!" and operand.is_plain and operand.type is JinjaType.BOOL:
            code = f"not {operand.operand}"
            return JinjaExpression(code=code, type=JinjaType.BOOL, primary=False, depth=operand.depth + 1)
        operator = quote_string(node.operator)
        type_ = JinjaType.BOOL if node.operator == "!" else JinjaType.NUMBER
        native = type_ is JinjaType.BOOL
        return call_macro("unary", operator, operand, type_=type_, nullable=operand.nullable, native=native)

    def _translate_operation(self, node: Operation) -> JinjaExpression:
        operators = [operator for operator, _, _ in node.rest]
        operands = [self.translate(operand) for operand in node.operands]
        if operators[0] in _LOGICAL:
            return _translate_logical(operators[0], operands)
        depth = 1 + max(operand.depth for operand in operands)
        if node.is_sum and _is_concatenation(operands):
            code = " ~ ".join(operand.operand for operand in operands)
            return JinjaExpression(code=code, type=JinjaType.STRING, primary=False, depth=depth)
        if operators[0] in COMPARISONS:
            if len(operands) == 2 and _is_plain_comparison(operators[0], *operands):
                code = f"{operands[0].operand} {operators[0]} {operands[1].operand}"
                return JinjaExpression(code=code, type=JinjaType.BOOL, primary=False, depth=depth)
            _check_comparison(operators[0], operands)
        arguments: list[JinjaExpression | str] = [operands[0]]
        for operator, operand in zip(operators, operands[1:], strict=True):
            arguments += [quote_string(operator), operand]
        type_ = JinjaType.BOOL if operators[0] in COMPARISONS else _find_arithmetic_type(node, operands)
        nullable = any(operand.nullable for operand in operands)
        native = type_ in {JinjaType.BOOL, JinjaType.STRING}
        return call_macro("calc", *arguments, type_=type_, nullable=nullable, native=native)

    def _translate_conditional(self, node: Conditional) -> JinjaExpression:
        result = self.translate(node.otherwise)
        for test_node, chosen_node in reversed(node.arms):
            test, chosen = self.translate(test_node), self.translate(chosen_node)
            depth = 1 + max(test.depth, chosen.depth, result.depth)
            code = f"{chosen.operand} if {test.to_bool().operand} else {result.operand}"
            if test.nullable:
                # The code below contains test and chosen value twice, so deep nesting would make it grow exponentially.
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
        type_ = _RESULT_TYPES.get(node.function, JinjaType.STRING)
        nullable = node.function in _NULLABLE_RESULTS or any(argument.nullable for argument in arguments)
        if node.function == "ISNULL":
            nullable = False
        elif node.function in {"REPLACENULL", "TOKENCOUNT"}:
            # A null as the first argument does not make the result null.
            type_ = arguments[0].type if node.function == "REPLACENULL" else type_
            nullable = arguments[1].nullable
        native = type_ in {JinjaType.STRING, JinjaType.INTEGER, JinjaType.BOOL}
        return call_macro(node.function.lower(), *arguments, type_=type_, nullable=nullable, native=native)


def _fold_constant(node: Expression) -> Value | None:
    """Evaluate a constant expression; return None if it depends on a variable or on the time.

    Raises:
        NotTranslatable: the evaluation fails.
    """
    if not isinstance(node, Literal):
        for descendant in walk(node):
            match descendant:
                case Name():
                    return None
                case Call(function=function) if function in _CLOCK_NOTES:
                    return None
                case Cast(type=type_) if type_.data_type in TIMES:
                    return None  # a later cast of the time to a date adds today's date
    try:
        return evaluate(node)
    except ExpressionError as error:
        remedy = f"{error.remedy} It fails in SSIS, too.".strip()
        raise NotTranslatable(f"The expression always fails: {error.message}", remedy=remedy) from None


def _fold_plain_constant(node: Expression) -> str | bool | int | None:
    """Evaluate a constant expression; return None unless the value is a string, a Boolean or a DT_I4 number."""
    value = None if isinstance(node, Null) else _fold_constant(node)
    if value is None or value.type.data_type not in {DataType.WSTR, DataType.STR, DataType.BOOL, DataType.I4}:
        return None
    if not isinstance(value.data, str | bool | int):
        return None
    return value.data if isinstance(node, Literal) or len(str(value.data)) <= _MAX_CONSTANT else None


def _is_long(node: Expression) -> bool:
    """Whether a node is written as text and statements, which read more easily, and not as one Jinja expression."""
    if isinstance(node, Conditional):
        return len(node.arms) > 1 or _is_long(node.arms[0][1]) or _is_long(node.otherwise)
    return isinstance(node, Operation) and node.is_sum


def _is_concatenation(operands: Sequence[JinjaExpression]) -> bool:
    """Whether `+` concatenates these operands and none of them can be null.

    Raises:
        NotTranslatable: it concatenates, but one of them is a number or a Boolean, which needs a cast.
    """
    types = {operand.type for operand in operands}
    if JinjaType.STRING not in types:
        return False
    if wrong := types - {JinjaType.STRING, JinjaType.DATE, JinjaType.UNKNOWN}:
        raise NotTranslatable(
            f"+ cannot concatenate a string and {wrong.pop()}; it fails in SSIS, too.",
            remedy="Cast it to a string: (DT_WSTR,20)…",
        )
    return not any(operand.nullable for operand in operands)


def _is_plain_comparison(operator: str, left: JinjaExpression, right: JinjaExpression) -> bool:
    """Whether Python's operator gives the same result as SSIS's."""
    if not (left.is_plain and right.is_plain):
        return False
    is_equality = operator in {"==", "!="}
    types = {left.type, right.type}
    if len(types) == 1:
        return types <= {JinjaType.STRING, JinjaType.INTEGER} or (is_equality and types == {JinjaType.BOOL})
    # SSIS requires both sides to be of one type, so a variable of unknown type has the type of the other side.
    known = types & {JinjaType.STRING, JinjaType.INTEGER, JinjaType.BOOL}
    return is_equality and JinjaType.UNKNOWN in types and bool(known)


def _check_comparison(operator: str, operands: Sequence[JinjaExpression]) -> None:
    """Raise NotTranslatable for a comparison of a string with a number, which SSIS rejects too."""
    types = {operand.type for operand in operands}
    numbers = types & {JinjaType.INTEGER, JinjaType.NUMBER, JinjaType.BOOL}
    if JinjaType.STRING in types and numbers:
        raise NotTranslatable(f"{operator} cannot compare a string with {numbers.pop()}.", remedy="Cast one of them.")


def _find_arithmetic_type(node: Operation, operands: Sequence[JinjaExpression]) -> JinjaType:
    """Return the result type of an arithmetic operation, or of a concatenation that may be null."""
    for type_ in (JinjaType.STRING, JinjaType.UNKNOWN) if node.is_sum else ():
        if any(operand.type is type_ for operand in operands):
            return type_
    return JinjaType.NUMBER


def _translate_logical(operator: str, operands: Sequence[JinjaExpression]) -> JinjaExpression:
    """Translate `&&` and `||`, which evaluate their right side only if the left side does not decide."""
    if not any(operand.nullable for operand in operands):
        bools = [operand.to_bool() for operand in operands]
        code = f" {_LOGICAL[operator]} ".join(operand.operand for operand in bools)
        # `and` and `or` cost Python's parser less than other nesting: four operands count as one level.
        depth = len(operands) // 4 + max(operand.depth for operand in bools)
        return JinjaExpression(code=code, type=JinjaType.BOOL, primary=False, depth=depth)
    result = operands[-1]
    for operand in reversed(operands[:-1]):
        rest = call_macro("calc", operand, quote_string(operator), result, type_=JinjaType.BOOL, nullable=True)
        decisive = "false" if operator == "&&" else "true"
        code = f"({decisive} if ssis.is_{decisive}({operand.code}) else {rest.code})"
        result = JinjaExpression(code=code, type=JinjaType.BOOL, nullable=True, depth=rest.depth + 1)
        # The code contains the left operand twice, so deep nesting would make it grow exponentially.
        result.check_depth()
    return result


def _translate_plain_call(node: Call, arguments: list[JinjaExpression]) -> JinjaExpression | None:
    """Translate ISNULL, or a function of a string that is never null, to plain Jinja.

    Returns None if the result could differ from SSIS's.
    """
    if not arguments:
        return None
    first = arguments[0]
    depth = 1 + max(argument.depth for argument in arguments)
    code, type_, primary = "", JinjaType.STRING, False
    if node.function == "ISNULL" and isinstance(node.arguments[0], Name) and first.native:
        code, type_ = f"{first.operand} is none", JinjaType.BOOL
    elif not first.is_string:
        return None
    elif node.function == "REVERSE":
        code = f"{first.operand} | reverse"
    elif node.function in _STRIP_METHODS:
        code, primary = f"{first.operand}.{_STRIP_METHODS[node.function]}(' ')", True
    elif node.function == "LEN":
        code, type_ = f"{first.operand} | length", JinjaType.INTEGER
    elif node.function == "REPLACE" and arguments[1].constant and arguments[2].is_string:
        code = f"{first.operand} | replace({arguments[1].code}, {arguments[2].code})"
    elif bounds := _find_slice(node.function, [_read_integer(argument) for argument in arguments[1:]]):
        code, primary, depth = f"{first.operand}[{bounds}]", True, 1 + first.depth
    if not code:
        return None
    return JinjaExpression(code=code, type=type_, primary=primary, depth=depth)


def _find_slice(function: str, numbers: list[int | None]) -> str | None:
    """Return the slice bounds of LEFT, RIGHT or SUBSTRING; None if there is no equivalent slice."""
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
    """Return the value of an integer literal; None for any other expression."""
    is_literal = expression.type is JinjaType.INTEGER and expression.code.removeprefix("-").isdecimal()
    return int(expression.code) if is_literal else None
