"""The services of the embedded stack: their commands, what they need, and when they are ready."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from zenthos_cli.stack import mosquitto, postgres
from zenthos_cli.stack.environment import DATABASES, LOOPBACK, StackEnvironment
from zenthos_cli.stack.launch import child_command
from zenthos_cli.stack.mosquitto import Mosquitto
from zenthos_cli.stack.object_storage import aws_variables, compute_logs, create_buckets
from zenthos_cli.stack.plan import Service, check_plan
from zenthos_cli.stack.probes import DaemonHeartbeat, http_ok, port_open
from zenthos_core.broker_accounts import set_account
from zenthos_core.errors import ConfigurationError

CODE_LOCATION: Final = "zenthos_assets.definitions"

_WORKSPACE: Final = """\
load_from:
  - grpc_server:
      host: 127.0.0.1
      port: {port}
      location_name: zenthos
"""


def plan_services(environment: StackEnvironment, programs: Mosquitto | None) -> list[Service]:
    """Everything that the settings leave to the embedded stack, in an order it can start in."""
    services = [_migrations(environment), _ingest(environment), _ota_api(environment)]
    if programs is not None:
        services.insert(0, _mosquitto(environment, programs))
    if environment.own_postgres:
        services.insert(0, _postgres(environment))
    if _is_local(environment.settings.mlflow_url):
        services.append(_mlflow(environment))
    services += _dagster(environment)
    if environment.settings.executor == "celery":
        services += _celery_workers(environment)
    names = {service.name for service in services}
    services = [replace(s, needs=[n for n in s.needs if n in names]) for s in services]
    check_plan(services)
    return services


def prepare_services(environment: StackEnvironment, programs: Mosquitto | None) -> None:
    """Make the folders and files that the services find at their start.

    Raises:
        ConfigurationError: with the reason.
    """
    if environment.own_postgres:
        cluster = environment.cluster()
        cluster.initialise()
        cluster.remove_stale_lock()
    if programs is not None:
        broker = environment.broker(programs)
        broker.configure()
        settings = environment.settings
        for user, password in (
            (settings.mqtt_username, settings.mqtt_password),
            (settings.mqtt_replay_username, settings.mqtt_replay_password),
        ):
            set_account(broker.password_file, user, password.get_secret_value())
    create_buckets(environment.settings)
    _prepare_dagster(environment)
    (environment.home / "mlflow").mkdir(exist_ok=True)


def _prepare_dagster(environment: StackEnvironment) -> None:
    home = environment.home / "dagster"
    home.mkdir(exist_ok=True)
    instance = Path(__file__).parents[2] / "dagster.yaml"
    if not instance.exists():
        raise ConfigurationError(f"{instance} is missing: restore it from the repository")
    logs = compute_logs(environment.settings, home / "compute_logs")
    (home / "dagster.yaml").write_text(instance.read_text() + logs)
    port = environment.settings.dagster_code_port
    (home / "workspace.yaml").write_text(_WORKSPACE.format(port=port))


def _postgres(environment: StackEnvironment) -> Service:
    cluster = environment.cluster()
    return Service(
        name="postgres",
        command=cluster.command(),
        port=cluster.port,
        port_setting="ZENTHOS_POSTGRES_PORT",
        before_start=cluster.remove_stale_lock,
        is_ready=cluster.accepts_connections,
        after_start=lambda: cluster.create_databases(DATABASES.values()),
        stop_signal=postgres.STOP_SIGNAL,
    )


def _mosquitto(environment: StackEnvironment, programs: Mosquitto) -> Service:
    broker = environment.broker(programs)
    return Service(
        name="mosquitto",
        command=broker.command(),
        environment=broker.environment(),
        port=broker.port,
        port_setting="ZENTHOS_MQTT_PORT",
        more_ports={"ZENTHOS_MQTT_TLS_PORT": environment.settings.mqtt_tls_port},
        is_ready=broker.accepts_connections,
        stop_signal=mosquitto.STOP_SIGNAL,
    )


def _migrations(environment: StackEnvironment) -> Service:
    return Service(
        name="migrations",
        command=_python("-m", "zenthos_cli.stack.migrations"),
        environment=environment.variables,
        needs=["postgres"],
        is_task=True,
    )


def _ingest(environment: StackEnvironment) -> Service:
    port = environment.settings.ingest_metrics_port
    return Service(
        name="ingest",
        command=_python("-m", "ingest"),
        environment=environment.variables,
        needs=["migrations", "postgres", "mosquitto"],
        port=port,
        port_setting="ZENTHOS_INGEST_METRICS_PORT",
        is_ready=http_ok(f"http://{LOOPBACK}:{port}/health/ready"),
    )


def _ota_api(environment: StackEnvironment) -> Service:
    port = environment.settings.ota_port
    return Service(
        name="ota-api",
        command=_python("-m", "ota_api"),
        environment=environment.variables,
        needs=["migrations", "postgres"],
        port=port,
        port_setting="ZENTHOS_OTA_PORT",
        is_ready=http_ok(f"http://{LOOPBACK}:{port}/health/ready"),
    )


def _mlflow(environment: StackEnvironment) -> Service:
    settings = environment.settings
    folder = environment.home / "mlflow"
    options = {
        "--artifacts-destination": folder.as_uri(),
        "--host": LOOPBACK,
        "--port": str(settings.mlflow_port),
        "--workers": "1",
    }
    return Service(
        name="mlflow",
        command=_script("mlflow", "server", *(word for item in options.items() for word in item)),
        environment={
            # In the environment, since a command line is open to every user of the machine.
            "MLFLOW_BACKEND_STORE_URI": settings.mlflow_database_url.get_secret_value(),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        needs=["postgres"],
        port=settings.mlflow_port,
        port_setting="ZENTHOS_MLFLOW_URL",
        is_ready=http_ok(f"{settings.mlflow_url}/health"),
    )


def _celery_workers(environment: StackEnvironment) -> list[Service]:
    """One that archives, and those that build."""
    builders = [f"build-{number + 1}" for number in range(environment.settings.celery_workers)]
    return [
        Service(
            name=f"celery-{name}",
            command=_python("-m", "zenthos_assets.worker", name.split("-")[0], name),
            environment=_dagster_variables(environment),
            needs=["migrations", "postgres"],
        )
        for name in ("archive", *builders)
    ]


def _dagster_variables(environment: StackEnvironment) -> dict[str, str]:
    return {
        **environment.variables,
        **aws_variables(environment.settings),
        "DAGSTER_HOME": str(environment.home / "dagster"),
        "MLFLOW_DISABLE_TELEMETRY": "true",  # the lineage is a client of MLflow
    }


def _dagster(environment: StackEnvironment) -> list[Service]:
    settings = environment.settings
    home = environment.home / "dagster"
    variables = _dagster_variables(environment)
    workspace = ("-w", str(home / "workspace.yaml"))
    code_port, port = str(settings.dagster_code_port), str(settings.dagster_port)
    heartbeat = DaemonHeartbeat(settings.dagster_database_url.get_secret_value())
    code = Service(
        name="dagster-code",
        command=_script("dagster", "api", "grpc", "-m", CODE_LOCATION, "-p", code_port),
        environment=variables,
        needs=["postgres"],
        port=settings.dagster_code_port,
        port_setting="ZENTHOS_DAGSTER_CODE_PORT",
        is_ready=port_open(settings.dagster_code_port),  # listens once the code is loaded
    )
    webserver = Service(
        name="dagster-webserver",
        command=_script("dagster-webserver", *workspace, "-h", LOOPBACK, "-p", port),
        environment=variables,
        needs=["dagster-code", "postgres"],
        port=settings.dagster_port,
        port_setting="ZENTHOS_DAGSTER_URL",
        is_ready=http_ok(f"{settings.dagster_url}/server_info"),
    )
    daemon = Service(
        name="dagster-daemon",
        command=_script("dagster-daemon", "run", *workspace),
        environment=variables,
        needs=["dagster-code", "postgres"],
        before_start=heartbeat.remember,
        is_ready=heartbeat.beats,
    )
    return [code, webserver, daemon] if _is_local(settings.dagster_url) else [code, daemon]


def _python(*arguments: str) -> list[str]:
    return child_command([sys.executable, *arguments], death_signal=Service.stop_signal)


def _script(name: str, *arguments: str) -> list[str]:
    """A command that the environment's packages brought along."""
    return _python(str(Path(sys.executable).with_name(name)), *arguments)


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in {LOOPBACK, "localhost"}
