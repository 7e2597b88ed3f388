"""Give one task a keytab that no other task can read, from a Secret of its own.

For the KubernetesExecutor and the pod template beside this file. The override is merged into the template, so its
volume and its mount are added. Their path therefore differs from the template's, and is set in the connection
`smtpcm_payroll` of connections.json. (A variable, such as KRB5_CLIENT_KTNAME, would be in the pod twice.)
"""

from __future__ import annotations

from airflow.sdk import DAG
from kubernetes.client import models as k8s

from airflow_provider_smtpcm.operators.send_mail import SendMailOperator

WITH_THE_KEYTAB = k8s.V1Pod(
    spec=k8s.V1PodSpec(
        containers=[
            k8s.V1Container(
                name="base",
                volume_mounts=[
                    k8s.V1VolumeMount(
                        name="keytab-of-payroll", mount_path="/etc/airflow/keytab-of-payroll", read_only=True
                    )
                ],
            )
        ],
        volumes=[
            k8s.V1Volume(
                name="keytab-of-payroll",
                secret=k8s.V1SecretVolumeSource(
                    secret_name="airflow-keytab-of-payroll",  # noqa: S106 - its name
                    default_mode=0o400,
                ),
            )
        ],
    )
)

with DAG(
    dag_id="pod_override",
    description="One task with its own keytab, on Kubernetes.",
    schedule=None,
    tags=["smtpcm"],
) as dag:
    SendMailOperator(
        task_id="send",
        smtpcm_conn_id="smtpcm_payroll",
        from_address="Payroll <payroll@corp.example>",
        to="works-council@corp.example",
        subject="The payroll of {{ dag_run.run_after | ds }} is done",
        text="This mail was signed in as svc-payroll.",
        executor_config={"pod_override": WITH_THE_KEYTAB},
    )
