"""The Kubernetes values, as Dagster and Kubernetes will read them.

The chart itself is not here: `instance_config` and `container_context` put values where its
templates put them, and Dagster's own schemas and Kubernetes' own models judge the result.
"""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config
from dagster_aws.s3 import S3ComputeLogManager
from dagster_k8s import (
    DagsterK8sJobConfig,
    K8sRunLauncher,
    construct_dagster_k8s_job,
    k8s_job_executor,
)
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.utils import pg_url_from_config
from kubernetes.client import ApiClient, V1EnvVar, V1PodSecurityContext, V1ResourceRequirements

from tests.conftest import ROOT
from tests.test_architecture import MAY_IMPORT
from zenthos_core.settings import Settings

FOLDER = ROOT / "infra/kubernetes"
SCHEMA = json.loads(Path(__file__).with_name("dagster_chart.schema.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text())
DEPLOYMENT: dict[str, Any] = VALUES["dagster-user-deployments"]["deployments"][0]
SERVERS = [VALUES["dagsterWebserver"], VALUES["dagsterDaemon"], DEPLOYMENT]


def image_of(server: dict[str, Any]) -> str:
    return "{repository}:{tag}".format(**server["image"])


def container_context() -> dict[str, Any]:
    """What the chart tells of the code location, for the pods of its runs and steps."""
    return {
        "k8s": {
            "image_pull_policy": DEPLOYMENT["image"]["pullPolicy"],
            "env": DEPLOYMENT["env"],
            "env_secrets": [secret["name"] for secret in DEPLOYMENT["envSecrets"]],
            "volumes": DEPLOYMENT["volumes"],
            "volume_mounts": DEPLOYMENT["volumeMounts"],
            "resources": DEPLOYMENT["resources"],
            "run_k8s_config": {
                "pod_spec_config": {"security_context": DEPLOYMENT["podSecurityContext"]}
            },
            "namespace": "zenthos",
            "service_account_name": "dagster-user-deployments",
        }
    }


def instance_config() -> dict[str, Any]:
    """dagster.yaml as the chart writes it."""
    postgres = VALUES["postgresql"]
    storage = {
        "postgres_db": {
            "username": postgres["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": postgres["postgresqlHost"],
            "db_name": postgres["postgresqlDatabase"],
            "port": postgres["service"]["port"],
            "params": {},
            "scheme": postgres["postgresqlScheme"],
        }
    }
    launcher = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    logs = VALUES["computeLogManager"]["config"]["s3ComputeLogManager"]
    daemon, concurrency = VALUES["dagsterDaemon"], VALUES["concurrency"]
    return {
        "run_storage": _class("dagster_postgres.run_storage", "PostgresRunStorage", storage),
        "event_log_storage": _class("dagster_postgres", "PostgresEventLogStorage", storage),
        "schedule_storage": _class("dagster_postgres", "PostgresScheduleStorage", storage),
        "run_launcher": _class(
            "dagster_k8s",
            "K8sRunLauncher",
            {
                "load_incluster_config": launcher["loadInclusterConfig"],
                "job_namespace": "zenthos",
                "image_pull_policy": launcher["imagePullPolicy"],
                "service_account_name": "dagster",
                "dagster_home": {"env": "DAGSTER_HOME"},
                "instance_config_map": {"env": "DAGSTER_K8S_INSTANCE_CONFIG_MAP"},
                "postgres_password_secret": {"env": "DAGSTER_K8S_PG_PASSWORD_SECRET"},
                "fail_pod_on_run_failure": launcher["failPodOnRunFailure"],
            },
        ),
        "compute_logs": _class(
            "dagster_aws.s3.compute_log_manager",
            "S3ComputeLogManager",
            {
                "bucket": logs["bucket"],
                "prefix": logs["prefix"],
                "skip_empty_files": logs["skipEmptyFiles"],
                "upload_interval": logs["uploadInterval"],
            },
        ),
        "run_monitoring": _snake(daemon["runMonitoring"]),
        "run_retries": _snake(daemon["runRetries"]),
        "concurrency": {
            "pools": _snake(concurrency["pools"]),
            "runs": _snake(concurrency["runs"]),
        },
        "retention": {what: _snake(VALUES["retention"][what]) for what in ("schedule", "sensor")},
        "telemetry": VALUES["telemetry"],
    }


def _class(module: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": module, "class": name, "config": config}


def _snake(values: dict[str, Any]) -> dict[str, Any]:
    return {re.sub("([A-Z])", r"_\1", name).lower(): value for name, value in values.items()}


@pytest.fixture
def _as_in_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", VALUES["global"]["dagsterHome"])
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "secret")
    monkeypatch.setenv("DAGSTER_K8S_INSTANCE_CONFIG_MAP", "dagster-instance")
    monkeypatch.setenv("DAGSTER_K8S_PG_PASSWORD_SECRET", VALUES["global"]["postgresqlSecretName"])


def test_every_value_is_one_that_the_chart_knows() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


def test_the_instance_is_one_that_dagster_takes(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(instance_config()))
    loaded, _ = dagster_instance_config(str(tmp_path))
    ours = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    for section in ("concurrency", "run_retries", "retention", "telemetry"):
        assert loaded[section] == ours[section], f"{section} differs from dagster.yaml"


@pytest.mark.usefixtures("_as_in_a_pod")
@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("run_launcher", K8sRunLauncher),
        ("compute_logs", S3ComputeLogManager),
        ("event_log_storage", PostgresEventLogStorage),
    ],
)
def test_each_part_of_the_instance_has_a_sound_configuration(section: str, kind: Any) -> None:
    result = process_config(kind.config_type(), instance_config()[section]["config"])
    assert result.success, result.errors


@pytest.mark.usefixtures("_as_in_a_pod")
def test_dagster_reaches_postgres_with_the_driver_that_can_notify() -> None:
    config = process_config(
        PostgresEventLogStorage.config_type(), instance_config()["event_log_storage"]["config"]
    )
    assert config.value is not None
    assert pg_url_from_config(config.value).startswith("postgresql+psycopg2://zenthos:secret@")


def test_steps_need_no_configuration_of_their_own() -> None:
    result = process_config(k8s_job_executor.config_schema.config_type, {})
    assert result.success, result.errors


def test_a_step_is_a_job_with_the_image_secrets_and_resources_of_the_code_location() -> None:
    context = K8sContainerContext.create_from_config(container_context())
    config = DagsterK8sJobConfig(job_image=image_of(DEPLOYMENT), dagster_home="/opt/dagster")
    job = construct_dagster_k8s_job(
        config, ["dagster", "api", "execute_step"], "step", context.run_k8s_config
    )
    pod = ApiClient().sanitize_for_serialization(job)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "registry.example.com/zenthos:0.1.0"
    assert {"secretRef": {"name": "zenthos"}} in container["envFrom"]
    assert {"name": "ZENTHOS_EXECUTOR", "value": "k8s"} in container["env"]
    assert container["resources"] == DEPLOYMENT["resources"]
    assert DEPLOYMENT["volumes"][0] in pod["volumes"]
    assert DEPLOYMENT["volumeMounts"][0] in container["volumeMounts"]
    assert pod["securityContext"] == DEPLOYMENT["podSecurityContext"]


@pytest.mark.parametrize("server", SERVERS, ids=["webserver", "daemon", "code"])
def test_kubernetes_knows_every_field_of_a_server(server: dict[str, Any]) -> None:
    fragments: list[tuple[type, dict[str, Any]]] = [
        (V1ResourceRequirements, server["resources"]),
        (V1PodSecurityContext, server["podSecurityContext"]),
        *((V1EnvVar, variable) for variable in server.get("env", ())),
    ]
    for model, fragment in fragments:
        parsed = k8s_model_from_dict(model, k8s_snake_case_dict(model, fragment))
        assert ApiClient().sanitize_for_serialization(parsed) == fragment


def test_every_server_runs_the_one_image_unprivileged() -> None:
    assert len({image_of(server) for server in SERVERS}) == 1
    assert all(server["podSecurityContext"]["runAsNonRoot"] for server in SERVERS)


def test_settings_that_are_set_exist_and_none_is_a_secret() -> None:
    known = {f"ZENTHOS_{name.upper()}": field for name, field in Settings.model_fields.items()}
    for variable in DEPLOYMENT["env"]:
        if variable["name"].startswith("ZENTHOS_"):
            assert "Secret" not in str(known[variable["name"]].annotation)


def test_the_image_holds_what_the_lineage_may_import() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    copied = {match[1] for line in lines if (match := re.match(r"COPY (\w+)/ \1/", line))}
    assert copied == {"zenthos_assets", *MAY_IMPORT["zenthos_assets"]}
    user = VALUES["dagsterDaemon"]["podSecurityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in lines


def test_what_must_exist_before_is_documented() -> None:
    text = (ROOT / "docs/reference/scaling.md").read_text()
    secrets = {secret["name"] for server in SERVERS for secret in server["envSecrets"]}
    volumes = {volume["secret"]["secretName"] for volume in DEPLOYMENT["volumes"]}
    for name in {*secrets, *volumes, VALUES["global"]["postgresqlSecretName"]}:
        assert f"`{name}`" in text
