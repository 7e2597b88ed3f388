"""A task that sends a mail, and the check of its connection, with only the released package installed. Prints JSON.

Run by another Python than that of the tests, so it may import neither them nor what they need.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.sdk import DAG
from airflow.utils.db import initdb

from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay

try:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
except ImportError:  # Airflow 3.1
    from airflow.models.dagbag import DagBag, sync_bag_to_db

initdb()
with Relay(users={r"CORP\svc-etl": "secret"}) as relay, DAG("released", schedule=None) as dag:
    os.environ["AIRFLOW_CONN_SMTPCM_DEFAULT"] = json.dumps(relay.airflow_connection())
    SendMailOperator(
        task_id="send", from_address="etl@corp.example", to="ann@corp.example", subject="Released", text="Installed."
    )
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder=os.devnull)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    run = dag.test()
    check = subprocess.run(
        [sys.executable, "-m", "airflow_provider_smtpcm", "check", "smtpcm_default", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    print(  # noqa: T201
        "\n"
        + json.dumps(
            {
                "state": str(run.state.value),
                "mails": [
                    [mail.message["Subject"], list(mail.recipients), mail.authenticated_as] for mail in relay.messages
                ],
                "check": [check.returncode, check.stdout],
            }
        )
    )
