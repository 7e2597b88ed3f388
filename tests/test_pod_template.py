"""The pod template for Kubernetes: it meets Airflow's requirements, and has every path that is configured elsewhere."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager

FOLDER = Path(__file__).resolve().parent.parent / "example_dags/kubernetes_executor"
TEMPLATE = yaml.safe_load((FOLDER / "pod_template.yaml").read_text(encoding="utf-8"))
SPEC = TEMPLATE["spec"]
BASE = SPEC["containers"][0]
VARIABLES = {variable["name"]: variable["value"] for variable in BASE["env"]}
VOLUMES = {volume["name"]: volume for volume in SPEC["volumes"]}
MOUNTS = {mount["mountPath"]: mount for mount in BASE["volumeMounts"]}
CONNECTIONS: dict[str, Any] = json.loads((FOLDER / "connections.json").read_text(encoding="utf-8"))
OVERRIDE = ast.parse((FOLDER / "pod_override.py").read_text(encoding="utf-8"))


def manager(conn_id: str) -> SmtpConnectionManager:
    """Return the connection manager of a connection, as Airflow imports it."""
    unset = dict.fromkeys(("port", "login", "password"))
    return SmtpConnectionManager.from_airflow(SimpleNamespace(**{**unset, **CONNECTIONS[conn_id]}))


def files() -> Iterator[str]:
    """Return the paths in the pod, one for each key of a Secret or a ConfigMap."""
    for path, mount in MOUNTS.items():
        volume = VOLUMES[mount["name"]]
        source = volume.get("secret") or volume.get("configMap") or {}
        yield from (str(PurePosixPath(path) / item["path"]) for item in source.get("items", ()))


def arguments(call: str) -> list[dict[str, Any]]:
    """Return the literal arguments of each call of this name in the DAG with the override."""
    return [
        {word.arg: word.value.value for word in node.keywords if word.arg and isinstance(word.value, ast.Constant)}
        for node in ast.walk(OVERRIDE)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == call
    ]


def test_airflow_accepts_the_pod() -> None:
    """Its first container is `base`, which Airflow fills in, and only Airflow restarts it."""
    assert (TEMPLATE["apiVersion"], TEMPLATE["kind"]) == ("v1", "Pod")
    assert [container["name"] for container in SPEC["containers"]] == ["base"]
    assert BASE["image"]
    assert SPEC["restartPolicy"] == "Never"
    assert VARIABLES["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].endswith("/execution/")


def test_every_mount_has_its_volume_and_every_volume_its_mount() -> None:
    """Kubernetes refuses a mount without a volume; a volume without a mount would be unused."""
    assert {mount["name"] for mount in MOUNTS.values()} == set(VOLUMES)
    assert len(MOUNTS) == len(BASE["volumeMounts"])


def test_only_the_worker_can_read_a_secret_file() -> None:
    """It is root's, readable by the group of `fsGroup`, which is that of Airflow's user, and not writable."""
    assert VOLUMES["keytab"]["secret"]["defaultMode"] == 0o400
    assert SPEC["securityContext"] == {"runAsUser": 50000, "fsGroup": 50000}
    assert MOUNTS["/etc/airflow/keytab"]["readOnly"]
    assert [volume["name"] for volume in VOLUMES.values() if "secret" in volume] == ["keytab"]


def test_nothing_that_changes_is_mounted_by_sub_path() -> None:
    """Such a file stays as it was when the pod started; a folder is updated."""
    assert not [mount for mount in MOUNTS.values() if "subPath" in mount]


def test_the_connection_s_paths_are_those_of_the_template() -> None:
    """The keytab and the certificate of the authority."""
    connection = manager("smtpcm_default")
    assert {connection.keytab, connection.ca_certificate} <= set(files())


@pytest.mark.parametrize("variable", ["KRB5_CONFIG", "KRB5_CLIENT_KTNAME"])
def test_the_kerberos_variables_paths_are_those_of_the_template(variable: str) -> None:
    """MIT's library finds its configuration and the worker's identity by them."""
    assert VARIABLES[variable] in set(files())


def test_tickets_are_kept_in_writable_memory() -> None:
    """A Secret is read-only, and a disk would keep them."""
    folder = str(PurePosixPath(VARIABLES["KRB5CCNAME"].removeprefix("FILE:")).parent)
    assert VOLUMES[MOUNTS[folder]["name"]]["emptyDir"]["medium"] == "Memory"
    assert "readOnly" not in MOUNTS[folder]


def test_a_host_alias_has_the_name_of_the_connection() -> None:
    """The SPN is derived from it."""
    text = (FOLDER / "pod_template.yaml").read_text(encoding="utf-8")
    assert f"hostnames: [{manager('smtpcm_default').host}]" in text


def test_the_override_adds_a_keytab_that_its_connection_names() -> None:
    """It is merged into `base`; a name or a path of the template would be in the pod twice."""
    (container,), (mount,), (volume,) = (arguments(call) for call in ("V1Container", "V1VolumeMount", "V1Volume"))
    (secret,) = arguments("V1SecretVolumeSource")
    assert container["name"] == "base"
    assert mount["name"] == volume["name"]
    assert mount["read_only"]
    assert volume["name"] not in VOLUMES
    assert mount["mount_path"] not in MOUNTS
    assert secret["default_mode"] == 0o400
    assert str(PurePosixPath(manager("smtpcm_payroll").keytab or "").parent) == mount["mount_path"]
    assert manager("smtpcm_payroll").ca_certificate in set(files())
