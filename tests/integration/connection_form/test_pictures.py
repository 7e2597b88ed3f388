"""`make screenshots` takes the documents' pictures here; they show a company's server."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.integration.connection_form.faults import FAULTS, LOGIN, Servers
from tests.integration.pictures import picture_of_answer, put_names, save_picture, stacked

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from demo.airflow_stack import AirflowStack

pytestmark = [pytest.mark.slow, pytest.mark.every_airflow]

CONN_ID = "exchange"


if os.environ.get("SCREENSHOTS"):

    def test_the_filled_form(page: Page) -> None:
        """The beginnings of two sections one above the other, which the form never shows at once."""
        from tests.integration.browser import ConnectionForm

        page.set_viewport_size({"width": 1280, "height": 2000})
        form = ConnectionForm.add(page, "smtpcm_default")
        form.fill("Description", "Exchange, internal receive connector")
        form.fill("SMTP server", "exchange.corp.example")
        form.fill("Port", "587")
        form.fill("User name", r"CORP\svc-etl")
        form.fill("Password", "not-a-real-password")
        upper = form.picture(until="Extra Fields")
        form.open("Extra Fields")
        form.choose("Authentication", "Windows Authentication")
        form.choose("SSL", "STARTTLS (SSIS: Enable SSL)")
        lower = form.picture(since="Extra Fields", until_field="Timeout (seconds)")
        save_picture(page, "connection-form.png", stacked(page, upper, lower))

    @pytest.mark.parametrize(
        ("fault", "picture"), [(None, "test-connection.png"), ("a private authority", "test-connection-failed.png")]
    )
    def test_the_answer_of_the_test(
        fault: str | None, picture: str, page: Page, airflow: AirflowStack, servers: Servers
    ) -> None:
        """A good one, and a failed one with its remedy."""
        from tests.integration.browser import answer_of_test, row_of

        page.set_viewport_size({"width": 1120, "height": 480})
        connection = FAULTS[fault].connection(servers) if fault else servers.windows.airflow_connection()
        if not fault:
            connection["extra"] = json.dumps(connection["extra"])
        for made in page.request.get(f"{airflow.url}/api/v2/connections?limit=100").json()["connections"]:
            page.request.delete(f"{airflow.url}/api/v2/connections/{made['connection_id']}")
        made = page.request.post(
            f"{airflow.url}/api/v2/connections",
            data={"connection_id": CONN_ID, **connection, "description": "Exchange"},
        )
        assert made.ok, made.text()
        page.reload()

        answer = answer_of_test(page, CONN_ID)
        port = str(connection["port"])
        names = {f"localhost:{port}": "exchange.corp.example:587", "localhost": "exchange.corp.example", port: "587"}
        put_names(page, names | {LOGIN: r"CORP\svc-etl", os.uname().nodename: "airflow-api-1"})
        save_picture(page, picture, picture_of_answer(page, row_of(page, CONN_ID), answer))
