"""What the parser refuses, where its errors point to, and that a tree can be unparsed and parsed again."""

from __future__ import annotations

import pickle

import pytest

from airflow_provider_smtpcm.ssis.expressions import (
    ExpressionError,
    evaluate,
    find_variables,
    parse,
    parse_assignment,
    unparse,
)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 0, "empty"),
        ("   ", 3, "empty"),
        ("1 +", 3, "A value was expected, not the end"),
        ("1 2", 2, "'2' was not expected here"),
        ("1)", 1, "')' was not expected here"),
        ("(1", 2, "')' was expected, not the end"),
        ("+ 1", 0, "+ needs a value before it"),
        ('"abc', 0, "is not closed"),
        ('"a\\q"', 2, "not an escape sequence"),
        ('"a\\', 2, "not an escape sequence"),
        ('"\\x41"', 1, "four hexadecimal digits"),
        ('"\\x0000"', 1, "other than 0000"),
        ("'a'", 0, "does not begin a string"),
        ("“a”", 0, "does not begin a string"),
        ("1 = 2", 2, "A single = is not an operator"),
        ("1 <> 2", 3, "A value was expected, not '>'"),
        ("a", 0, "would name a column"),
        ("LEN", 0, "LEN is a function"),
        ("#123", 0, "lineage identifier"),
        ("@", 0, "@ is not followed"),
        ("@ [User::X]", 0, "@ is not followed"),
        ("@[]", 0, "@ is not followed"),
        ("@[User::X", 0, "@ is not followed"),
        ("@User::X", 0, "must be in brackets"),
        ("LEN()", 0, "LEN takes 1 argument, not 0"),
        ("GETDATE(1)", 0, "GETDATE takes no arguments, not 1"),
        ("LEFT(1,2,3)", 0, "LEFT takes 2 arguments, not 3"),
        ("LEFT(1;2)", 6, "';' is not part of the expression language"),
        ("LEN(1", 5, "')' was expected"),
        ("FOO(1)", 0, "no function FOO"),
        ("TRUE ? 1", 8, "':' was expected"),
        ("(DT_WSTR)1", 1, "takes the number of characters, not 0"),
        ("(DT_WSTR,4001)1", 1, "between 0 and 4000, not 4001"),
        ("(DT_NUMERIC,39,2)1", 1, "the precision of DT_NUMERIC"),
        ("(DT_I4,3)1", 1, "takes no parameter"),
        ("(DT_FOO)1", 1, "'DT_FOO' is not a data type"),
        ("(DT_WSTR,x)1", 9, "An integer was expected"),
        ("NULL(5)", 5, "'5' is not a data type"),
        ("2147483648", 0, "too large for DT_I4"),
        ("4294967296U", 0, "too large for DT_UI4"),
        ("99999999999999999999L", 0, "too large for DT_I8"),
        ("1E999", 0, "too large for DT_R8"),
        ("1" * 39 + ".5", 0, "38 digits"),
        ("12abc", 2, "cannot follow the number"),
        ("1.2.3", 3, "cannot follow the number"),
        ("\x00", 0, "is not part of the expression language"),
    ],
)
def test_a_fault_is_shown_at_its_place(text: str, column: int, message: str) -> None:
    """With what was found, a remedy, and a caret."""
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    error = caught.value
    assert message in error.message
    assert error.position == column
    assert error.remedy


def test_the_caret_stands_below_the_fault() -> None:
    """On the line of the fault, however many there are."""
    with pytest.raises(ExpressionError) as caught:
        parse('"a" +\n  foo +\n"b"')
    assert str(caught.value).splitlines()[-2:] == ["      foo +", "      ^"]


def test_a_long_line_is_cut_around_the_fault() -> None:
    """A body may be one line of many thousand characters."""
    with pytest.raises(ExpressionError) as caught:
        parse(f'"{"x" * 5000}" + foo + "{"y" * 5000}"')
    line, caret = str(caught.value).splitlines()[-2:]
    assert len(line) < 140
    assert line[caret.index("^") :].startswith("foo")


def test_an_error_of_evaluation_shows_its_place_too() -> None:
    """The operator between two values."""
    with pytest.raises(ExpressionError) as caught:
        evaluate('"a" + "b" + 1')
    assert caught.value.position == 10


@pytest.mark.parametrize(
    "text", ["(" * 10_000 + "1" + ")" * 10_000, "-" * 10_000 + "1", "LEN(" * 10_000, "(DT_I4)" * 5000]
)
def test_what_is_nested_too_deep_is_refused_and_crashes_nothing(text: str) -> None:
    """Whatever the package contains."""
    with pytest.raises(ExpressionError, match="50"):
        parse(text)


def test_an_error_survives_a_process() -> None:
    """As those of a worker have to."""
    with pytest.raises(ExpressionError) as caught:
        parse("1 +")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own bytes


@pytest.mark.parametrize("operator", ["+", "-", "*", "&", "|"])
def test_a_chain_of_operators_has_no_limit(operator: str) -> None:
    """The text of a mail may have hundreds of parts."""
    tree = parse(operator.join(["1"] * 10_000) if operator != "*" else "*".join(["1"] * 10_000))
    assert evaluate(tree).data in {10_000, -9_998, 1}
    assert repr(tree)
    assert parse(unparse(tree)) is not tree


def test_a_chain_of_conditions_has_no_limit() -> None:
    """A table of cases."""
    text = "".join(f"@X == {number} ? {number} : " for number in range(2000)) + "-1"
    assert evaluate(text, {"X": 1999}).data == 1999
    assert evaluate(text, {"X": 5000}).data == -1


def test_forty_nested_calls_are_read() -> None:
    """More than any real package has."""
    assert str(evaluate("REPLACE(" * 40 + '"a"' + ',"a","a")' * 40)) == "a"


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ('"a"+@x', '"a" + @[x]'),
        ("(1+2)*3", "(1 + 2) * 3"),
        ("1+(2+3)", "1 + (2 + 3)"),
        ("((1))", "1"),
        ("-(1+2)", "-(1 + 2)"),
        ("(dt_str,3,1252)(1+2)", "(DT_STR,3,1252)(1 + 2)"),
        ("true?1:false?2:3", "TRUE ? 1 : FALSE ? 2 : 3"),
        ("(true?true:false)?1:2", "(TRUE ? TRUE : FALSE) ? 1 : 2"),
        ("null(dt_i4)", "NULL(DT_I4)"),
        ("substring ( @[A b] , 1,2 )", "SUBSTRING(@[A b], 1, 2)"),
        (r'"\x0009\"\\"', r'"\t\"\\"'),
        ("1UL", "1UL"),
        ("6.", "6."),
        ("\ufeff1", "1"),
    ],
)
def test_a_tree_has_one_text(text: str, again: str) -> None:
    """In SSIS's own language, with the parentheses that it needs."""
    assert unparse(parse(text)) == again
    assert unparse(parse(again)) == again


def test_the_variables_of_an_expression_are_listed_once() -> None:
    """In the order of its text, with their case."""
    text = '@[User::B] + @[System::PackageName] + (@[User::a] == "" ? @[User::B] : @[$Project::P]) + @bare'
    assert find_variables(parse(text)) == ("User::B", "System::PackageName", "User::a", "$Project::P", "bare")


@pytest.mark.parametrize(
    ("text", "names", "value"),
    [
        ("@[User::Total] = @[User::A] + 1", ("User::Total",), "@[User::A] + 1"),
        (" @i=0", ("i",), "0"),
        ("@a = @[User::B] = 1", ("a", "User::B"), "1"),
        ('@a = "x = y"', ("a",), '"x = y"'),
        ("@a = @b == 1", ("a",), "@[b] == 1"),
    ],
)
def test_an_assignment(text: str, names: tuple[str, ...], value: str) -> None:
    """Of an Expression task or a For loop; several variables may get one value."""
    found, expression = parse_assignment(text)
    assert (found, unparse(expression)) == (names, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@a := 1", ":= does not assign; SSIS fails here. Write = instead of :=."),
        ("@a == 1", "This is not an assignment to a variable."),
        ("1 = @a", "This is not an assignment to a variable."),
        ("", "This is not an assignment to a variable."),
        ("@a = (1 +", "    @a = (1 +\n             ^"),
    ],
)
def test_what_is_not_an_assignment_is_refused(text: str, message: str) -> None:
    """The position is that in the whole text."""
    with pytest.raises(ExpressionError) as raised:
        parse_assignment(text)
    assert message in str(raised.value)
