"""The models' field names against the API's own document, where that lies beside the checkout."""

import os
import re

import msgspec
import pytest

from pier.model import api_containers, api_images, api_system, container, events

SPECS = os.path.join(os.path.dirname(__file__), "../../../shared/specs")
# Fields come and go: which a client sees, its version says (`api.answer_versions`).
DOCUMENTS = [f"{SPECS}/docker-engine-api-v{version}.yaml" for version in ("1.51", "1.55")]
CASES = [
    (container.ContainerConfig, "ContainerConfig"),
    (container.Resources, "Resources"),
    (container.HealthConfig, "HealthConfig"),
    (container.Mount, "Mount"),
    (container.EndpointSettings, "EndpointSettings"),
    (container.ContainerState, "ContainerState"),
    (container.DeviceRequest, "DeviceRequest"),
    (api_containers.ContainerSummary, "ContainerSummary"),
    (api_containers.ContainerInspect, "ContainerInspectResponse"),
    (api_containers.MountPoint, "MountPoint"),
    (api_containers.NetworkSettings, "NetworkSettings"),
    (api_containers.Port, "Port"),
    (api_containers.TopResponse, "ContainerTopResponse"),
    (api_containers.WaitResponse, "ContainerWaitResponse"),
    (api_images.ImageSummary, "ImageSummary"),
    (api_images.ImageInspect, "ImageInspect"),
    (api_images.InspectedImageConfig, "ImageConfig"),
    (api_images.ImageDelete, "ImageDeleteResponseItem"),
    (api_system.Info, "SystemInfo"),
    (api_system.Version, "SystemVersion"),
    (api_system.RegistryConfig, "RegistryServiceConfig"),
    (events.Event, "EventMessage"),
]
# What dockerd 28.5 sends and the document does not say any more.
UNDOCUMENTED = {
    "ContainerConfig": {"ArgsEscaped"},
    "EventMessage": {"status", "id", "from"},
    "SystemInfo": {"BridgeNfIptables", "BridgeNfIp6tables"},
    "Resources": {"CpuRealtimePeriod", "CpuRealtimeRuntime"},
}
# What it may leave out, and Pier does: other storage or operating systems, or work yet to come.
LEFT_OUT = {
    "ContainerInspectResponse": {"ImageManifestDescriptor", "Storage"},
    "ContainerState": {"Health"},
    "ContainerSummary": {"ImageManifestDescriptor"},
    "ImageInspect": {"Descriptor", "Manifests"},
    "ImageSummary": {"Descriptor", "Manifests"},
    "Mount": {"ClusterOptions"},
    "Resources": {"Init", "KernelMemoryTCP"},
    "SystemInfo": {
        *("DefaultAddressPools", "Containerd", "NRI"),
    },
}


@pytest.fixture(scope="module")
def definitions():
    """The property names of every definition that is a plain object, by its name."""
    if not all(os.path.exists(path) for path in DOCUMENTS):
        pytest.skip("the API's documents are not beside the checkout")
    found: dict[str, set[str]] = {}
    for path in DOCUMENTS:
        _read(path, found)
    return found


def _read(path, found):
    name = ""
    is_in_properties = False
    with open(path, encoding="utf-8") as file:
        for line in file:
            if match := re.fullmatch(r"  (\w+):\n", line):
                name = match[1]
                found.setdefault(name, set())
            elif re.fullmatch(r"    \w+:.*\n", line):
                is_in_properties = line == "    properties:\n"
            elif is_in_properties and (match := re.fullmatch(r'      "?(\w+)"?:.*\n', line)):
                found[name].add(match[1])
            elif re.match(r"\w", line) and name and not line.startswith("definitions"):
                break


@pytest.mark.parametrize(
    ("struct", "name"), CASES, ids=lambda value: getattr(value, "__name__", "")
)
def test_fields_are_those_of_the_document(definitions, struct, name):
    fields = {field.encode_name for field in msgspec.structs.fields(struct)}
    assert fields - UNDOCUMENTED.get(name, set()) <= definitions[name]
    assert definitions[name] - LEFT_OUT.get(name, set()) <= fields
