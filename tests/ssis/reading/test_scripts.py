"""Script tasks that only copy variables are understood; with any other statement they are not."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.ssis.model import OtherTask
from airflow_provider_smtpcm.ssis.reading.context import CommonFields
from airflow_provider_smtpcm.ssis.reading.other_tasks import read_other_task
from airflow_provider_smtpcm.ssis.reading.xml import Element

_C_SHARP = """
using System;
namespace ST_1 {{
    public partial class ScriptMain
    {{
        // "Main" is called by SSIS.
        public void Main()
        {{
            /* copies */
            {body}
            Dts.TaskResult = (int)ScriptResults.Success; // done
        }}
    }}
}}
"""
_BASIC = """
Public Class ScriptMain
    Public Sub Main()
        ' "copies"
        {body}
        Dts.TaskResult = Dts.Results.Success
    End Sub
End Class
"""
_TWO = (("User::Text", "System::ErrorDescription"), ("User::Code", "System::ErrorCode"))


def read(source: str, name: str) -> tuple[tuple[str, str], ...]:
    """Return what a script copies."""
    script = Element(
        tag="ScriptProject",
        attributes={
            "ReadOnlyVariables": "System::ErrorCode,System::ErrorDescription",
            "ReadWriteVariables": "User::Text,User::Code",
        },
        children=[Element(tag="ProjectItem", attributes={"Name": name}, text=source)],
    )
    common = CommonFields(
        name="Script",
        id="{1}",
        path=("Package", "Script"),
        description="",
        expressions={},
        disabled=False,
        disabled_because=None,
        force_result="",
        maximum_errors=1,
        event_handlers=(),
        variables=(),
    )
    task = read_other_task([script], "Microsoft.ScriptTask", common)
    assert isinstance(task, OtherTask)
    return task.copies


@pytest.mark.parametrize("name", ["ScriptMain.cs", "\\scriptmain.cs", "C:\\Temp\\ScriptMain.cs"])
def test_a_script_in_c_sharp_copies(name: str) -> None:
    """With or without namespaces, casts and comments."""
    body = """Dts.Variables["Text"].Value = Dts.Variables["System::ErrorDescription"].Value.ToString();
    Dts . Variables["User::Code"].Value =
        (string) Dts.Variables["ErrorCode"].Value;"""
    assert read(_C_SHARP.format(body=body), name) == _TWO


@pytest.mark.parametrize("name", ["ScriptMain.vb", "dts://Scripts/ScriptTask_1/ScriptMain.vsaitem"])
def test_a_script_in_visual_basic_copies(name: str) -> None:
    """Its names are in parentheses, and its keywords in any case."""
    body = """Dts.Variables("Text").Value = Dts.Variables("ErrorDescription").Value.ToString
        dts.variables("Code").value = dts.variables("System::ErrorCode").value.tostring()"""
    assert read(_BASIC.format(body=body), name) == _TWO


def test_a_value_that_is_copied_on_is_the_first_one() -> None:
    """A copy of a variable to itself is none."""
    body = """Dts.Variables["Text"].Value = Dts.Variables["ErrorDescription"].Value;
    Dts.Variables["Code"].Value = Dts.Variables["Text"].Value;
    Dts.Variables["Other"].Value = Dts.Variables["Other"].Value;"""
    expected = (("User::Text", "System::ErrorDescription"), ("User::Code", "System::ErrorDescription"))
    assert read(_C_SHARP.format(body=body), "ScriptMain.cs") == expected


@pytest.mark.parametrize(
    "body",
    [
        'if (true) { Dts.Variables["Text"].Value = Dts.Variables["ErrorDescription"].Value; }',
        'Dts.Variables["Text"].Value = Dts.Variables["ErrorDescription"].Value + "!";',
        'Dts.Variables["Text"].Value = "none";',
        'Dts.Variables["Text"].Value = Dts.Variables["ErrorDescription"].Value; Send();',
        'string s = Dts.Variables["ErrorDescription"].Value;',
        "Dts.TaskResult = (int)ScriptResults.Failure;",
        'Dts.Variables["Text"].Value = Dts.Variables["ErrorDescription"].Value.ToString().Trim();',
        'return; Dts.Variables["Text"].Value = Dts.Variables["ErrorDescription"].Value;',
    ],
)
def test_a_script_that_does_anything_else_is_not_understood(body: str) -> None:
    """Whatever it also copies."""
    assert read(_C_SHARP.format(body=body), "ScriptMain.cs") == ()


def test_a_script_without_a_source_or_with_two_is_not_understood() -> None:
    """Nor is one whose method Main is missing."""
    assert read("", "ScriptMain.cs") == ()
    assert read("class ScriptMain {}", "ScriptMain.cs") == ()
