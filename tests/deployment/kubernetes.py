"""deploy/kubernetes: the overlays, built by kubectl and held to Kubernetes' schemas, to themselves and to the gateway."""

import os
import pathlib
import shutil
import tempfile
import warnings

import kubernetes_validate
import yaml
from checks import DEPLOY, SECRET, Gateway, check, check_config, free_ports, require, run as tool, unchecked, until

HERE = DEPLOY / "kubernetes"
OVERLAYS = ("redis", "embedded")
# The oldest in which `preStop: sleep` is on unless it is turned off, and the newest of which there are schemas here.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
SECRETS_AT = "/run/secrets/hookgate/"


def run():
    if shutil.which("kubectl"):
        for name in OVERLAYS:
            built = {}
            what = f"overlays/{name}"
            if check(f"{what}: kubectl kustomize builds it", lambda: built.update(objects=build(name))):
                objects = built["objects"]
                check(f"{what}: valid by the schemas of Kubernetes {' and '.join(VERSIONS)}", valid, objects)
                check(f"{what}: names, ports, selectors and volumes agree", agree, objects)
                check(f"{what}: the pod is as the Pod Security Standard `restricted` asks", restricted, objects)
                check(f"{what}: the gateway is stopped before Kubernetes kills it, and probed by its probes", probed, objects)
                check(f"{what}: hookgate check takes its hookgate.toml", config, objects)
    else:
        unchecked("the overlays", "kubectl is missing; with it they are built and held to the schemas")
    check("components/monitoring: valid by the Prometheus operator's types", service_monitor)
    rules = DEPLOY / "prometheus/rules.yml"
    if rules.exists():
        check("prometheus-rule: prints deploy/prometheus/rules.yml as a valid PrometheusRule", prometheus_rule, rules)
    else:
        unchecked("prometheus-rule with the real rules", "deploy/prometheus/rules.yml is not there")
    check("prometheus-rule: prints other rules unchanged", other_rules)
    check("a config and a secret swapped as the kubelet swaps them are read again", swapped)
    unchecked("a cluster", "nothing was applied: there is none here")


def build(name):
    return list(yaml.safe_load_all(tool("kubectl", "kustomize", HERE / "overlays" / name)))


def one(objects, kind, name="hookgate"):
    found = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name]
    require(len(found) == 1, f"{len(found)} {kind} {name}")
    return found[0]


def valid(objects):
    for version in VERSIONS:
        for item in objects:
            if item["apiVersion"].startswith("monitoring.coreos.com/"):
                continue  # not Kubernetes' own; checked below
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kubernetes_validate.validate(item, version, strict=True)


def agree(objects):
    stateful = one(objects, "StatefulSet")["spec"]
    pod, labels = stateful["template"]["spec"], stateful["template"]["metadata"]["labels"]
    [container] = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    matches = lambda selector: selector.items() <= labels.items()
    require(matches(stateful["selector"]["matchLabels"]), "the StatefulSet does not select its pods")
    services = [item for item in objects if item["kind"] == "Service"]
    for service in services:
        name, spec = service["metadata"]["name"], service["spec"]
        require(matches(spec["selector"]), f"the Service {name} does not select the pods")
        for port in spec["ports"]:
            require(port["targetPort"] in ports, f"the Service {name}: no port {port['targetPort']}")
    require("admin" not in str(one(objects, "Service")["spec"]), "the admin port is in the public Service")
    headless = one(objects, "Service", stateful["serviceName"])
    require(headless["spec"]["clusterIP"] == "None", "the StatefulSet's Service is not headless")
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        spec = one(objects, kind)["spec"]
        selector = spec.get("selector") or spec.get("podSelector") or {}
        # One that is absent selects no pod, or every pod of the namespace.
        require(selector and matches(selector["matchLabels"]), f"the {kind} does not select the pods")
    monitor = one(objects, "ServiceMonitor")["spec"]
    found = [
        item
        for item in services
        if monitor["selector"]["matchLabels"].items() <= item["metadata"]["labels"].items()
        and any(port["name"] == monitor["endpoints"][0]["port"] for port in item["spec"]["ports"])
    ]
    require(len(found) == 1, "the ServiceMonitor selects no Service, or several")
    job = found[0]["metadata"]["labels"][monitor["jobLabel"]]
    require(job == "hookgate", f"the rules need the job hookgate, and it is {job}")
    for scaler in (item for item in objects if item["kind"] == "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        one(objects, target["kind"], target["name"])
        require("replicas" not in stateful, "the StatefulSet and the autoscaler both say how many there are")
        require("cpu" in container["resources"]["requests"], "the autoscaler needs a request of CPU")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"]: claim for claim in stateful["volumeClaimTemplates"]}
    mounted = {}
    for mount in container["volumeMounts"]:
        require(mount["name"] in volumes, f"no volume {mount['name']}")
        require("subPath" not in mount, "Kubernetes never updates a subPath")
        mounted[mount["mountPath"]] = volumes[mount["name"]]
    secret = mounted["/run/secrets/hookgate"]["secret"]
    require(monitor["endpoints"][0]["authorization"]["credentials"]["name"] == secret["secretName"], "another Secret")
    config = one(objects, "ConfigMap", mounted["/etc/hookgate"]["configMap"]["name"])
    require("hookgate.toml" in config["data"], "no hookgate.toml in the ConfigMap")
    require(config["data"]["hookgate.toml"].find('data_dir = "/var/lib/hookgate/') > 0, "data_dir is not in the volume")
    require(not any(item["kind"] == "Secret" for item in objects), "a Secret is in the manifests")


def restricted(objects):
    pod = one(objects, "StatefulSet")["spec"]["template"]["spec"]
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        require(not pod.get(key), key)
    whole = pod["securityContext"]
    require(whole["runAsNonRoot"] and whole["runAsUser"] and whole["fsGroup"] == whole["runAsUser"], "it runs as root")
    require(whole["seccompProfile"]["type"] == "RuntimeDefault", "no seccomp profile")
    for container in pod["containers"]:
        own = container["securityContext"]
        require(own["allowPrivilegeEscalation"] is False, "privileges can be gained")
        require(own["capabilities"] == {"drop": ["ALL"]}, "it has capabilities")
        require(own["readOnlyRootFilesystem"] is True, "its root can be written")
    allowed = {"configMap", "secret", "name"}
    require(all(volume.keys() <= allowed for volume in pod["volumes"]), "a volume of another kind")
    require(pod["automountServiceAccountToken"] is False, "it has a token of Kubernetes")


def probed(objects):
    pod = one(objects, "StatefulSet")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        require(container[probe]["httpGet"] == {"path": path, "port": "admin"}, f"{probe}: {container[probe]}")
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = 20  # edge.drain_timeout
    require("drain_timeout" not in str(objects), "the drain's time is not the default")
    require(pod["terminationGracePeriodSeconds"] > before + drain, "Kubernetes kills it while it drains")


def config(objects):
    mapped = one(objects, "ConfigMap", "hookgate-config")["data"]["hookgate.toml"]
    require(SECRETS_AT in mapped, "its secrets are elsewhere")
    with tempfile.TemporaryDirectory() as folder:
        check_config(mapped, folder, ["/var/lib/hookgate/data"])


def service_monitor():
    from cloudcoil.models.prometheus_operator import v1

    text = yaml.safe_load((HERE / "components/monitoring/servicemonitor.yaml").read_text())
    v1.ServiceMonitor.model_validate(text)


def prometheus_rule(rules):
    from cloudcoil.models.prometheus_operator import v1

    rule = yaml.safe_load(tool(HERE / "prometheus-rule"))
    require(rule["kind"] == "PrometheusRule", rule["kind"])
    v1.PrometheusRule.model_validate(rule)
    require(rule["spec"] == yaml.safe_load(rules.read_text()), "the rules are not those of the file")


def other_rules():
    from cloudcoil.models.prometheus_operator import v1

    text = (
        "# a comment\ngroups:\n  - name: one\n    rules:\n\n      - alert: Down\n        expr: |\n          up\n\n          == 0\n"
        '        annotations:\n          summary: "{{ $labels.instance }}: down"\n'
    )
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "rules.yml"
        file.write_text(text)
        rule = yaml.safe_load(tool(HERE / "prometheus-rule", env={**os.environ, "RULES": str(file)}))
    v1.PrometheusRule.model_validate(rule)
    require(rule["spec"] == yaml.safe_load(text), f"it printed {rule}")


def swapped():
    """The kubelet writes a folder anew and renames a link to it; the names in the volume are links through that link."""
    with tempfile.TemporaryDirectory() as temporary:
        volume = pathlib.Path(temporary) / "volume"
        volume.mkdir()

        def swap(number, secret, body):
            data = volume / f"..data_{number}"
            data.mkdir()
            (data / "secret").write_text(secret)
            (data / "secret").chmod(0o600)
            (data / "hookgate.toml").write_text(
                f'data_dir = "{temporary}/data"\nedge.listen = "127.0.0.1:{port}"\nadmin.listen = "127.0.0.1:0"\n'
                f'edge.max_body = "{body}"\n[sources.basiq]\nprovider = "basiq"\nsecrets = [{{ file = "secret" }}]\n'
            )
            (volume / "..data_tmp").symlink_to(data.name)
            os.replace(volume / "..data_tmp", volume / "..data")
            for name in ("secret", "hookgate.toml"):
                if not (volume / name).is_symlink():
                    (volume / name).symlink_to(f"..data/{name}")

        [port] = free_ports(1)
        swap(1, SECRET, "1MiB")
        gateway = Gateway.__new__(Gateway)
        gateway.folder, gateway.port = volume, port
        log = pathlib.Path(temporary) / "log"
        gateway.start(log)
        try:
            reloads = lambda: log.read_text().count("config reloaded")
            swap(2, SECRET, "2MiB")
            until("the config is read again", lambda: reloads() == 1)
            swap(3, SECRET[:-4] + "AAAA", "2MiB")
            until("the secret is read again", lambda: reloads() == 2)
        finally:
            gateway.stop()
