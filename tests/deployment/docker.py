"""deploy/docker: what can be known of it without a Docker engine."""

import pathlib
import re
import tempfile

import yaml
from checks import DEPLOY, check, check_config, require, run as tool, unchecked

HERE = DEPLOY / "docker"
COMPOSE = HERE / "compose.yaml"
# deploy/secrets is the operator's to make.
MADE_BY_OPERATOR = "../secrets/"


def run():
    check("Dockerfile: hadolint has no complaint", lambda: tool("hadolint", "--failure-threshold", "style", HERE / "Dockerfile") and None)
    check("Dockerfile: not root, a health check, exec forms", dockerfile)
    check(
        "compose.yaml: valid by the schema of the Compose specification",
        lambda: tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE) and None,
    )
    check("compose.yaml: compose-lint finds nothing high", lambda: tool("compose-lint", "--fail-on", "high", COMPOSE) and None)
    check("compose.yaml: every file, volume, network, secret and dependency that it names is there", compose)
    check("compose.yaml: each service has a read-only root, no capability, and limits", hardened)
    check("hookgate.toml: hookgate check has no complaint", config)
    check("prometheus.yml: promtool takes it; it scrapes every gateway as the job that the rules name", prometheus)
    if (DEPLOY / "grafana").is_dir():
        check("grafana: what is provisioned is mounted, and the source is there", grafana)
    else:
        unchecked("grafana", "deploy/grafana is not there yet")
    unchecked("the image", "it was not built or run here: there is no Docker engine, and base images are in no registry of packages")


def dockerfile():
    text = (HERE / "Dockerfile").read_text()
    require("\nUSER 65532:65532\n" in text, "no USER by number")
    require(re.search(r'\nHEALTHCHECK .* CMD \["/usr/bin/hookgate", "health"\]\n', text), "no health check by hookgate health")
    for instruction in ("ENTRYPOINT", "CMD"):
        require(f"\n{instruction} [" in text, f"{instruction} would need a shell")


def compose():
    text = yaml.safe_load(COMPOSE.read_text())
    secrets, volumes, networks = text["secrets"], text["volumes"], text["networks"]
    named = set()
    for name, service in text["services"].items():
        for secret in service.get("secrets", []):
            require(secret in secrets, f"{name}: there is no secret {secret}")
            named.add(secret)
        for network in service["networks"]:
            require(network in networks, f"{name}: there is no network {network}")
        for needed in service.get("depends_on", []):
            require(needed in text["services"], f"{name} depends on {needed}")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith(("../prometheus", "../grafana/")) and not (DEPLOY / source.split("/")[1]).is_dir():
                unchecked(f"compose.yaml: {source}", "the folder is not there yet")
            elif source.startswith("."):
                require((HERE / source).exists(), f"{name}: {source} is not there")
            else:
                require(source in volumes, f"{name}: there is no volume {source}")
        for port in service.get("ports", []):
            require(port.startswith("127.0.0.1:"), f"{name}: port {port} is open to the world")
    require(named == set(secrets), f"secrets that no service has: {set(secrets) - named}")
    for name, secret in secrets.items():
        require(secret == {"file": MADE_BY_OPERATOR + name}, f"the secret {name} is {secret}")
    wanted = set(re.findall(r"^[^#\n]*/run/secrets/(\w+)", (HERE / "hookgate.toml").read_text(), re.M))
    for name in ("gateway-1", "gateway-2"):
        require(set(text["services"][name]["secrets"]) == wanted, f"{name} is not given {wanted}")
    context = (HERE / text["services"]["gateway-1"]["build"]["context"]).resolve()
    require((context / "Cargo.toml").exists(), f"the build's context is {context}")
    require((context / text["services"]["gateway-1"]["build"]["dockerfile"]).exists(), "no such dockerfile")


def hardened():
    for name, service in yaml.safe_load(COMPOSE.read_text())["services"].items():
        require(service.get("read_only") is True, f"{name}: its root can be written")
        require(service.get("cap_drop") == ["ALL"], f"{name}: it has capabilities")
        require("no-new-privileges:true" in service.get("security_opt", []), f"{name}: it may gain privileges")
        require("mem_limit" in service and "pids_limit" in service, f"{name}: it has no limits")


def config():
    with tempfile.TemporaryDirectory() as folder:
        check_config((HERE / "hookgate.toml").read_text(), folder, ["/var/lib/hookgate"])


def prometheus():
    tool("promtool", "check", "config", "--syntax-only", HERE / "prometheus.yml")
    scrape = yaml.safe_load((HERE / "prometheus.yml").read_text())
    job = scrape["scrape_configs"][0]
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    gateways = {f"{name}:9090" for name in services if name.startswith("gateway")}
    require(job["job_name"] == "hookgate", "the job has another name")
    require(set(job["static_configs"][0]["targets"]) == gateways, f"the gateways are {gateways}")
    mounts = dict(volume.split(":")[1::-1] for volume in services["prometheus"]["volumes"])
    for rules in scrape["rule_files"]:
        path = pathlib.PurePosixPath("/etc/prometheus") / rules
        source = HERE / mounts[str(path.parent)] / path.name
        if source.parent.is_dir():
            require(source.exists(), f"{source} is not there")


def grafana():
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    mounts = dict(volume.split(":")[1::-1] for volume in services["grafana"]["volumes"])
    provisioning = HERE / mounts["/etc/grafana/provisioning"]
    [provider] = [each for file in provisioning.glob("dashboards/*.yml") for each in yaml.safe_load(file.read_text())["providers"]]
    path = provider["options"]["path"]
    require(path in mounts, f"dashboards are read from {path}, and nothing is mounted there")
    require(list((HERE / mounts[path]).glob("*.json")), f"no dashboard is in {mounts[path]}")
    [source] = [each for file in provisioning.glob("datasources/*.yml") for each in yaml.safe_load(file.read_text())["datasources"]]
    require(source["url"] == "http://prometheus:9090" and "prometheus" in services, f"the source is {source}")
