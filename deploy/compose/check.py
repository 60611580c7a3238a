"""Checks compose.yaml, and prints each container's name and command line, whoever is depended on first.

Usage: check.py PATH/OF/deploy. Ends with 1 and everything that is wrong on standard error.
"""

import json
import pathlib
import re
import sys
import tomllib

import yaml

deploy = pathlib.Path(sys.argv[1])
faults = []


def fault(text):
    faults.append(f"compose.yaml: {text}")


class Strict(yaml.SafeLoader):
    """As YAML demands: no key twice. The merge key may bring keys that are overridden."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in {key for key in keys if keys.count(key) > 1}:
            fault(f"the key {key} is given twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def image():
    """What the image is: the program that it runs, and where its configuration is."""
    text = (deploy / "compose" / "Dockerfile").read_text()
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", text, re.M)
    configs = re.search(r"^COPY deploy/config (\S+)$", text, re.M)
    if not entry or not configs:
        sys.exit("Dockerfile: it says no ENTRYPOINT as a list, or copies no deploy/config")
    return json.loads(entry[1]), configs[1]


def in_a_volume(path, mounts):
    return any(path == mount or path.startswith(mount + "/") for mount in mounts)


def check_config(name, path, mounts):
    """A container's sockets and state are in volumes: else its peers would not find it, and it would forget."""
    with path.open("rb") as file:
        config = tomllib.load(file)
    sockets = [config["listen"], *config.get("peers", {}).values()]
    paths = [socket.removeprefix("unix:") for socket in sockets if socket.startswith("unix:")]
    for needed in [*paths, config["store"]["directory"]]:
        if not in_a_volume(needed, mounts):
            fault(f"{name}: {path.name} names {needed}, which is in none of its volumes {mounts}")


def main():
    whole = yaml.load((deploy / "compose" / "compose.yaml").read_text(), Strict)
    services, volumes = whole["services"], whole.get("volumes") or {}
    entry, configs = image()
    lines = {}
    for name, service in services.items():
        build = service["build"]
        context = (deploy / "compose" / build["context"]).resolve()
        if not (context / build["dockerfile"]).is_file():
            fault(f"{name}: there is no {build['dockerfile']} in {context}")
        mounts = []
        for volume in service["volumes"]:
            source, target = volume.split(":")[:2]
            mounts.append(target)
            if source not in volumes:
                fault(f"{name}: the volume {source} is not declared; add it to volumes")
        for other in service.get("depends_on", []):
            if other not in services:
                fault(f"{name} depends on {other}, which is no service")
        command = service["command"]
        config = command[command.index("--config") + 1] if "--config" in command[:-1] else ""
        path = deploy / "config" / pathlib.PurePosixPath(config).name
        if str(pathlib.PurePosixPath(config).parent) != configs or not path.is_file():
            fault(f"{name}: the image has no {config}; its configurations are deploy/config in {configs}")
        else:
            check_config(name, path, mounts)
        lines[name] = (" ".join([*entry, *command]), service.get("depends_on", []))
    told = []
    while len(told) < len(lines) and not faults:
        ready = [name for name, (_, needs) in lines.items() if name not in told and all(need in told for need in needs)]
        if not ready:
            fault(f"services wait for each other: {sorted(set(lines) - set(told))}")
        told += ready
    if faults:
        sys.exit("\n".join(faults))
    for name in told:
        print(f"{name}\t{lines[name][0]}")


main()
