"""Script tasks that do nothing but set variables are understood; with any other statement they are not."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.ssis.model import OtherTask
from airflow_provider_smtpcm.ssis.reading.context import CommonFields
from airflow_provider_smtpcm.ssis.reading.tasks import read_other_task
from airflow_provider_smtpcm.ssis.reading.xml import Element

Assignments = dict[str, str] | None

READ_ONLY = "System::ErrorCode,System::ErrorDescription,System::StartTime,User::Folder,$Package::Day"
READ_WRITE = "User::Text,User::Other,User::Count,User::Done"

_C_SHARP = """
using System;
namespace ST_1 {{
    #region Help:  don't read this "
    /* void Main() {{ */
    #endregion
    [Microsoft.SqlServer.Dts.Tasks.ScriptTask.SSISScriptTaskEntryPointAttribute]
    public partial class ScriptMain : Base
    {{
        // "Main" is called by SSIS.
        public void Main()
        {{
            {body}
            Dts.TaskResult = (int)ScriptResults.Success; // done
        }}
        enum ScriptResults {{ Success = Microsoft.SqlServer.Dts.Runtime.DTSExecResult.Success }};
        string Unused() {{ return File.ReadAllText("x"); }}
    }}
}}
"""
_BASIC = """
Imports System
#Region "Help"
' Sub Main()
#End Region
Public Class ScriptMain
    Public Sub Main()
        ' a comment with "quotes"
        {body}
        Dts.TaskResult = Dts.Results.Success
    End Sub
    Function Unused() As String
        Return My.Computer.FileSystem.ReadAllText("x")
    End Function
End Class
"""


def read(source: str, language: str = "CSharp", *, files: int = 1, **attributes: str) -> Assignments:
    """Return what a script assigns, by variable; None if it is not understood."""
    name = "ScriptMain.cs" if language == "CSharp" else "ScriptMain.vb"
    script = Element(
        tag="ScriptProject",
        attributes={
            "Language": language,
            "ReadOnlyVariables": READ_ONLY,
            "ReadWriteVariables": READ_WRITE,
            **attributes,
        },
        children=[Element(tag="ProjectItem", attributes={"Name": name}, text=source)] * files,
    )
    return as_dict(read_script(script))


def read_script(script: Element, **expressions: str) -> OtherTask:
    """Return the task with this script."""
    common = CommonFields(
        name="Script",
        id="{1}",
        path=("Package", "Script"),
        description="",
        expressions=expressions,
        disabled=False,
        disabled_because=None,
        force_result="",
        maximum_errors=1,
        event_handlers=(),
        variables=(),
    )
    return read_other_task([script], "Microsoft.ScriptTask", common, reads_scripts=True)


def as_dict(task: OtherTask) -> Assignments:
    """Return the assignments of a task by variable."""
    return None if task.assignments is None else dict(task.assignments)


def c_sharp(body: str, **attributes: str) -> Assignments:
    """Return what a script in C# with these statements assigns."""
    return read(_C_SHARP.format(body=body), **attributes)


def basic(body: str, **attributes: str) -> Assignments:
    """Return what a script in Visual Basic with these statements assigns."""
    return read(_BASIC.format(body=body), "VisualBasic", **attributes)


def text(name: str) -> str:
    """Return the expression for the text of a variable."""
    return f"(DT_WSTR,4000)@[{name}]"


# --- What is understood

DESCRIPTION = text("System::ErrorDescription")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('Dts.Variables["Text"].Value = Dts.Variables["ErrorDescription"].Value.ToString();', DESCRIPTION),
        (
            'Dts . Variables["User::Text"].Value =\n  (string) Dts.Variables["System::ErrorDescription"].Value;',
            "@[System::ErrorDescription]",
        ),
        ('this.Dts.Variables["Text"].Value = Convert.ToString(Dts.Variables["Folder"].Value);', text("User::Folder")),
        (r'Dts.Variables["Text"].Value = "a\t\"b\" \\ \u00e4";', r'"a\t\"b\" \\ ä"'),
        (r'Dts.Variables["Text"].Value = @"C:\in ""x""";', r'"C:\\in \"x\""'),
        ('Dts.Variables["Text"].Value = "a" + Environment.NewLine + "b";', r'"a" + "\r\n" + "b"'),
        ('Dts.Variables["Text"].Value = "n: " + 1 + 2;', '"n: " + (DT_WSTR,20)1 + (DT_WSTR,20)2'),
        ('Dts.Variables["Text"].Value = 1 + 2 + "!";', '(DT_WSTR,20)(1 + 2) + "!"'),
        ('string s = "x"; s += Dts.Variables["Folder"].Value; Dts.Variables["Text"].Value = s;', '"x" + %Folder'),
        ('var s = String.Empty; Dts.Variables["Text"].Value = s;', '""'),
        ('string a, b = "1"; a = b + b; Dts.Variables["Text"].Value = a;', '"1" + "1"'),
        (
            'Dts.Variables["Text"].Value = string.Format("{{0}} in {0}, {0}", Dts.Variables["Folder"].Value);',
            '"{" + "0" + "}" + " in " + %Folder + ", " + %Folder',
        ),
        (
            'try { Dts.Variables["Text"].Value = "x"; } catch (Exception e) { MessageBox.Show(e.Message); }',
            '"x"',
        ),
        ('Dts.Variables["Text"].Value = DateTime.Now.ToString();', "(DT_WSTR,30)(DT_DATE)GETDATE()"),
        ('Dts.Variables["Text"].Value = "at " + Dts.Variables["StartTime"].Value;', '"at " + %StartTime'),
        ('Dts.Variables["Text"].Value = Dts.Variables["$Package::Day"].Value.ToString(); ;', text("$Package::Day")),
    ],
)
def test_a_text_in_c_sharp(body: str, expected: str) -> None:
    """Literals, variables, locals, and what joins them."""
    expected = expected.replace("%Folder", text("User::Folder")).replace("%StartTime", text("System::StartTime"))
    assert c_sharp(body) == {"User::Text": expected}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('Dts.Variables("Text").Value = Dts.Variables("ErrorDescription").Value.ToString', DESCRIPTION),
        ('dts.variables("Text").value = dts.variables("System::ErrorDescription").value.tostring()', DESCRIPTION),
        ('Me.Dts.Variables.Item("Text").Value = CStr(Dts.Variables("Folder").Value)', text("User::Folder")),
        ('Dts.Variables("Text").Value = "a ""b"" \\ ' + "'c'" + '"', r'"a \"b\" \\ ' + "'c'" + '"'),
        ('Dts.Variables("Text").Value = "a" & vbCrLf & _\n   "b" + ControlChars.Tab', r'"a" + "\r\n" + ("b" + "\t")'),
        ('Dts.Variables("Text").Value = "a" &\n "b" \' c', '"a" + "b"'),
        ('Dts.Variables("Text").Value = Chr(13) & Chr(10)', r'"\r" + "\n"'),
        ('Dim s As String = "x" : s &= 1 : Dts.Variables("Text").Value = S', '"x" + (DT_WSTR,20)1'),
        ('Dim s As String = Dts.Variables("Folder").Value\n Dts.Variables("Text").Value = s', text("User::Folder")),
        ('Dim a, b As String\n a = "1"\n b = A\n Dts.Variables("Text").Value = b', '"1"'),
        (
            'Dts.Variables("Text").Value = Dts.Variables("Folder").Value + "x"',
            '@[User::Folder] + "x"',
        ),
        ('Dts.Variables("Text").Value = "x" & Now.ToString', '"x" + (DT_WSTR,30)(DT_DATE)GETDATE()'),
        ('Try\n Dts.Variables("Text").Value = "x"\n Catch ex As Exception\n MsgBox("!")\n End Try', '"x"'),
        ('Dts.Variables("Text").Value = CType(Dts.Variables("Folder").Value, String)', text("User::Folder")),
        ('Dts.Variables("Text").Value = "x"\n Return', None),
    ],
)
def test_a_text_in_visual_basic(body: str, expected: str | None) -> None:
    """Its names are in parentheses, its keywords in any case, and its statements end with their line."""
    assert basic(body) == (None if expected is None else {"User::Text": expected})


def test_a_return_ends_a_script() -> None:
    """Nothing may follow it."""
    source = _BASIC.replace("Dts.TaskResult = Dts.Results.Success\n", "")
    assert read(source.format(body='Dts.Variables("Text").Value = "x"\n Return'), "VisualBasic") == {
        "User::Text": '"x"'
    }


def test_numbers_and_truth_values() -> None:
    """A conversion has to be that of the variable's type, which is known later: it is written as a cast."""
    body = (
        'Dts.Variables["Count"].Value = (int)Dts.Variables["Count"].Value + 1 - 2; Dts.Variables["Done"].Value = true;'
    )
    assert c_sharp(body) == {"User::Count": "(DT_I4)@[User::Count] + 1 - 2", "User::Done": "TRUE"}
    body = 'Dts.Variables("Count").Value = Dts.Variables("Count").Value + 1\n Dts.Variables("Done").Value = False'
    assert basic(body) == {"User::Count": "(DT_I4)@[User::Count] + 1", "User::Done": "FALSE"}
    assert c_sharp('Dts.Variables["Count"].Value = -5;') == {"User::Count": "-5"}


def test_a_script_reads_what_it_has_set_before() -> None:
    """The expressions are in terms of the variables before the script."""
    body = """string old = (string)Dts.Variables["Text"].Value;
    Dts.Variables["Text"].Value = "new";
    Dts.Variables["Other"].Value = Dts.Variables["User::Text"].Value + ", not " + old;"""
    assert c_sharp(body) == {"User::Text": '"new"', "User::Other": '"new" + ", not " + @[User::Text]'}


def test_a_script_that_does_nothing_sets_nothing() -> None:
    """Whatever it lists."""
    assert c_sharp("// TODO") == {}
    assert basic("") == {}


def test_only_what_an_understood_script_assigns_counts_as_set() -> None:
    """And only what it reads as read."""
    script = Element(
        tag="ScriptProject",
        attributes={"Language": "CSharp", "ReadOnlyVariables": READ_ONLY, "ReadWriteVariables": READ_WRITE},
        children=[
            Element(
                tag="ProjectItem",
                text=_C_SHARP.format(body='Dts.Variables["Text"].Value += Dts.Variables["Folder"].Value.ToString();'),
            )
        ],
    )
    task = read_script(script)
    assert (task.sets, task.reads) == (("User::Text",), ("User::Text", "User::Folder"))
    task = read_script(script, ReadWriteVariables='"User::Any"')
    assert task.assignments is None
    assert task.sets == tuple(READ_WRITE.split(","))


def test_names_without_a_namespace_in_the_lists() -> None:
    """SSIS 2005 often has them."""
    lists = {"ReadOnlyVariables": "Folder", "ReadWriteVariables": "Text"}
    assert basic('Dts.Variables("User::Text").Value = Dts.Variables("Folder").Value', **lists) == {
        "User::Text": "@[Folder]"
    }


# --- What is not understood


@pytest.mark.parametrize(
    "body",
    [
        'if (true) { Dts.Variables["Text"].Value = "x"; }',
        'for (int i = 0; i < 3; i++) Dts.Variables["Text"].Value = "x";',
        'Dts.Variables["Text"].Value = "x"; Send();',
        'Dts.Variables["Text"].Value = "x"; MessageBox.Show("x");',
        'Dts.Events.FireInformation(0, "", "", "", 0, ref again);',
        'Dts.Variables["Text"].Value = File.ReadAllText("x");',
        'Dts.Variables["Text"].Value = Dts.Variables["Folder"].Value.ToString().Trim();',
        'Dts.Variables["Text"].Value = Dts.Variables["StartTime"].Value.ToString("yyyy");',
        'Dts.Variables["Text"].Value = string.Format("{0:N2}", 1);',
        'Dts.Variables["Text"].Value = $"{1}";',
        'Dts.Variables["Text"].Value = null;',
        'Dts.Variables["Text"].Value = "a" == "b";',
        'Dts.Variables["Text"].Value = true ? "a" : "b";',
        'Dts.Variables["Text"].Value = unknown;',
        'Dts.Variables["Text"].Value = 99999999999;',
        'Dts.Variables["Text"].Value = 1.5;',
        "Dts.Variables[0].Value = 1;",
        'Dts.Variables["Missing"].Value = "not listed";',
        'Dts.Variables["Folder"].Value = "read only";',
        'Dts.Variables["Text"].Value = Dts.Variables["Unlisted"].Value.ToString();',
        'Dts.Variables["text"].Value = "names are case-sensitive";',
        "Dts.TaskResult = (int)ScriptResults.Failure;",
        'return; Dts.Variables["Text"].Value = "x";',
        'try { Dts.Variables["Text"].Value = "x"; } catch { } finally { Send(); }',
        "try { Send(); } catch { }",
        "int i = 1; string s = i;",
        "#if DEBUG\nint i = 1;\n#endif",
        'Dts.Variables["Text"].Value = "not closed;',
        "string s" + " = s" * 3 + ";",
        'Dts.Variables["Text"].Value = ' + "(" * 200 + '"x"' + ")" * 200 + ";",
        'string s = "x";' + "s = s + s;" * 40 + 'Dts.Variables["Text"].Value = s;',
    ],
)
def test_a_script_in_c_sharp_that_does_anything_else(body: str) -> None:
    """Whatever it also sets."""
    assert c_sharp(body) is None


@pytest.mark.parametrize(
    "body",
    [
        'If True Then Dts.Variables("Text").Value = "x"',
        'MsgBox("x")',
        'Dts.Variables("Text").Value = Dts.Variables("Folder").Value + Dts.Variables("Text").Value',
        'Dts.Variables("Text").Value = "x" + 1',
        'Dts.Variables("Text").Value = Nothing',
        'Dim s As String\n Dts.Variables("Text").Value = s',
        "Dim s As New Text.StringBuilder()",
        'Dts.Variables("Text").Value = #1/1/2020#',
        'Dts.Variables("Text").Value = "a"c',
        'Dts.Variables("Text").Value = Format(Now(), "yy")',
        'Dts.Variables("Text").Value = IIf(True, "a", "b")',
        'Dts.Variables("Text").Value = "a"\n "b"',
        "Dts.TaskResult = Dts.Results.Failure",
        "Exit Sub\n Dts.TaskResult = Dts.Results.Failure",
        "On Error Resume Next",
        'Try\n Dts.Variables("Text").Value = "x"\n Finally\n Send()\n End Try',
        'Try\n Dts.Variables("Text").Value = "x"',
    ],
)
def test_a_script_in_visual_basic_that_does_anything_else(body: str) -> None:
    """Whatever it also sets."""
    assert basic(body) is None


def test_a_script_whose_source_is_not_certain() -> None:
    """No source, two of them, another language, another method, or a constructor that runs before it."""
    source = _C_SHARP.format(body="")
    assert read(source) == {}
    assert read("") is None
    assert read("class ScriptMain {}") is None
    assert read(source, files=2) is None
    assert read(source, "Python") is None
    assert read(source, EntryPoint="Other") is None
    assert read(source + source) is None
    assert read(source.replace("string Unused()", "public ScriptMain()")) is None
    with_constructor = _BASIC.replace("Function Unused() As String", "Sub New()")
    assert read(with_constructor.format(body=""), "VisualBasic") is None
