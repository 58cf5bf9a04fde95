"""What `manifests/` sets up on a cluster, as processes on loopback: MinIO, PostgreSQL and MLflow, with their secrets.

The secrets come from the script that makes them, the buckets from the script of the job that makes them, and MLflow's
command from its Deployment, so that a mistake in any of them shows here.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from servers.minio_server import MinioServer, free_port
from servers.postgres_server import running_postgres

MANIFESTS = Path(__file__).parents[2] / "manifests"
NAMESPACE = "unmask"
START_TIMEOUT_S = 900  # seconds on an idle machine; MLflow writes two schemas first
KUBECTL = '''#!{python}
"""Keeps secrets in files, as far as create.sh needs it."""
import base64, json, re, sys
from pathlib import Path

words = iter(sys.argv[1:])
options, plain = [], []
for word in words:
    (options.append((word, next(words))) if word in ("-n", "-o") else plain.append(word))
namespace = dict(options)["-n"]
folder = Path({folder!r}) / namespace
if plain[:2] == ["get", "secret"]:
    file = folder / (plain[2] + ".json")
    if not file.is_file():
        sys.exit(1)
    data = json.loads(file.read_text())
    template = dict(options).get("-o", "")
    wanted = re.search(r'index .data "([^"]+)"', template)
    print(data[wanted[1]] if wanted else " ".join(data) if "range" in template else "", end="")
elif plain[:3] == ["create", "secret", "generic"]:
    data = {{}}
    for option in plain[4:]:
        kind, _, rest = option.partition("=")
        key, equals, value = rest.partition("=")
        if kind == "--from-literal":
            content = value.encode()
        else:
            content = Path(value if equals else key).read_bytes()
            key = key if equals else Path(key).name
        data[key] = base64.b64encode(content).decode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / (plain[3] + ".json")).write_text(json.dumps(data))
else:
    sys.exit("kubectl: unknown " + " ".join(plain))
'''


@dataclass(frozen=True)
class Services:
    """Servers that run.

    Attributes:
        minio: The object store; may be killed and started again.
        tracking_uri: Of MLflow.
        database: HOST:PORT of PostgreSQL.
        environment: Variables that a step gets from its secrets.
        secrets: Name of a secret to its keys and values, as the script made them.
    """

    minio: MinioServer
    tracking_uri: str
    database: str
    environment: dict[str, str]
    secrets: dict[str, dict[str, str]]


def make_secrets(folder: Path, steps_namespace: str = "kubeflow") -> dict[str, dict[str, dict[str, str]]]:
    """Run `manifests/secrets/create.sh` against a stand-in for kubectl.

    Args:
        folder: Where the stand-in keeps them.
        steps_namespace: Of pipeline steps.

    Returns:
        Namespace to name to key to value.
    """
    programs = folder / "programs"
    programs.mkdir(parents=True)
    kubectl = programs / "kubectl"
    kubectl.write_text(KUBECTL.format(python=sys.executable, folder=str(folder / "kept")))
    kubectl.chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    script = [str(MANIFESTS / "secrets" / "create.sh"), NAMESPACE, steps_namespace]
    subprocess.run(["bash", *script], env={**os.environ, "PATH": path}, check=True, timeout=120)
    found: dict[str, dict[str, dict[str, str]]] = {}
    for file in (folder / "kept").glob("*/*.json"):
        values = {key: base64.b64decode(value).decode() for key, value in json.loads(file.read_text()).items()}
        found.setdefault(file.parent.name, {})[file.stem] = values
    return found


def mlflow_command(port: int) -> list[str]:
    """The command of MLflow's Deployment, for another port and these hosts."""
    documents = yaml.safe_load_all((MANIFESTS / "base" / "tracking" / "mlflow.yaml").read_text())
    (deployment,) = [document for document in documents if document["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    replaced = {"--host": "127.0.0.1", "--port": str(port), "--allowed-hosts": f"127.0.0.1:{port}", "--workers": "1"}
    words = [sys.executable, "-m", *container["command"]]
    for argument in container["args"]:
        option, equals, _ = argument.partition("=")
        words.append(f"{option}={replaced[option]}" if option in replaced and equals else argument)
    return words


@contextmanager
def _running_mlflow(home: Path, secrets: dict[str, dict[str, str]], minio: MinioServer, database: str) -> Iterator[str]:
    port = free_port()
    server, store = secrets["unmask-tracking-server"], secrets["unmask-object-store"]

    def here(text: str) -> str:  # the database answers on loopback, not under its name in the cluster
        return re.sub(r"@postgres\.[\w.]+:5432/", f"@{database}/", text)

    home.mkdir()
    (home / "basic_auth.ini").write_text(here(server["basic_auth.ini"]))
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "AWS_"))},
        "HOME": str(home),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # starts in half the time
        "MLFLOW_AUTH_CONFIG_PATH": str(home / "basic_auth.ini"),
        "MLFLOW_BACKEND_STORE_URI": here(server["backend-store-uri"]),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": server["flask-secret-key"],
        "MLFLOW_S3_ENDPOINT_URL": minio.endpoint,
        "AWS_ACCESS_KEY_ID": store["accesskey"],
        "AWS_SECRET_ACCESS_KEY": store["secretkey"],
        "OMP_NUM_THREADS": "1",
    }
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            mlflow_command(port), cwd=home, stdout=log, stderr=log, start_new_session=True, env=environment
        )
    try:
        uri = f"http://127.0.0.1:{port}"
        _wait_for(uri, process, home / "log")
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(120)


def _wait_for(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)


@contextmanager
def running_services(folder: Path) -> Iterator[Services]:
    """Run all of them.

    Args:
        folder: For their data and logs.

    Yields:
        The servers, with the buckets made.
    """
    secrets = make_secrets(folder / "secrets")
    own = secrets[NAMESPACE]
    keys = own["unmask-object-store"]
    minio = MinioServer(folder / "minio", user=keys["accesskey"], password=keys["secretkey"])
    with ExitStack() as stack:
        stack.callback(minio.kill)
        minio.start()
        environment = {
            "AWS_ENDPOINT_URL_S3": minio.endpoint,
            "AWS_ACCESS_KEY_ID": keys["accesskey"],
            "AWS_SECRET_ACCESS_KEY": keys["secretkey"],
            "MLFLOW_TRACKING_USERNAME": own["unmask-tracking"]["username"],
            "MLFLOW_TRACKING_PASSWORD": own["unmask-tracking"]["password"],
        }
        _make_buckets(environment)
        password = own["unmask-tracking-server"]["postgres-password"]
        database = stack.enter_context(running_postgres("mlflow", password))
        uri = stack.enter_context(_running_mlflow(folder / "mlflow", own, minio, database))
        yield Services(minio, uri, database, environment, own)


def _make_buckets(environment: dict[str, str]) -> None:
    script = MANIFESTS / "base" / "object-store" / "make_buckets.py"
    job = (MANIFESTS / "base" / "object-store" / "buckets.yaml").read_text()
    (container,) = yaml.safe_load(job)["spec"]["template"]["spec"]["containers"]
    (buckets,) = [entry["value"] for entry in container["env"] if entry["name"] == "BUCKETS"]
    subprocess.run(
        [sys.executable, str(script)], env={**os.environ, **environment, "BUCKETS": buckets}, check=True, timeout=120
    )
