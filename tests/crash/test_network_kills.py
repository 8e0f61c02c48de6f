"""SIGKILL of pierd at any moment of networks' lives: what the next one finds it repairs or forgets."""

import json
import random
import subprocess
import threading
import time

from busybox_image import NAME as IMAGE
from engine_process import EngineProcess, wait_until

ROUNDS = 8
FLAGS = ["-p", "80", "--annotation", "pier.egress=allow=192.0.2.0/24"]


def links(engine: EngineProcess) -> set[str]:
    """The names of the links in pierd's network, but lo."""
    text = subprocess.check_output([*engine.in_network, "ip", "-o", "link"], text=True)
    return {line.split(":")[1].strip().partition("@")[0] for line in text.splitlines()} - {"lo"}


def rules(engine: EngineProcess) -> str:
    return subprocess.check_output([*engine.in_network, "nft", "list", "ruleset"], text=True)


def busy(engine: EngineProcess, number: int, stop: threading.Event) -> None:
    """Make networks and containers, connect and remove them; pierd may be away."""
    run = 0
    while not stop.is_set():
        run += 1
        name = f"n{number}-{run}"
        for words in (
            ["network", "create", name],
            ["run", "-d", "--name", name, "--network", name, *FLAGS, IMAGE, "sleep", "1000"],
            ["network", "connect", "bridge", name],
            ["network", "disconnect", name, name],
            ["rm", "-f", name],
            ["network", "rm", name],
        ):
            engine.docker(*words, check=False)
            if stop.is_set():
                break


def state(engine: EngineProcess) -> "tuple[set[str], set[str], dict[str, str]]":
    """What the engine says that there is: bridges, veths, and published ports by address."""
    ids = engine.docker("network", "ls", "-q", "--no-trunc", "--filter", "driver=bridge").stdout
    bridges, veths, ports = set(), set(), {}
    for network in json.loads(engine.docker("network", "inspect", *ids.split()).stdout):
        name = network["Options"].get("com.docker.network.bridge.name")
        bridges.add(name or f"br-{network['Id'][:12]}")
        veths |= {f"veth{c['EndpointID'][:7]}" for c in network["Containers"].values()}
    running = engine.docker("ps", "-q").stdout.split()
    for container in json.loads(engine.docker("inspect", *running).stdout) if running else []:
        for bindings in container["NetworkSettings"]["Ports"].values():
            for binding in bindings or ():
                if ":" not in binding["HostIp"]:
                    ports[binding["HostPort"]] = container["Name"]
    return bridges, veths, ports


def assert_in_line(engine: EngineProcess) -> None:
    """Links, rules and leases are those that the engine speaks of, and no others."""

    def settled() -> bool:
        bridges, veths, _ = state(engine)
        return links(engine) == bridges | veths

    try:
        wait_until(settled, "the links are those that the engine knows", seconds=5)
    except AssertionError:
        raise AssertionError(
            f"links {links(engine)} but the engine knows {state(engine)}"
        ) from None
    bridges, _, ports = state(engine)
    text = rules(engine)
    for bridge in bridges:
        assert f'"{bridge}"' in text
    published = text.partition("map published4 {")[2].partition("map published6 {")[0]
    assert published.count("tcp . ") == len(ports), published
    assert_leases(engine, text)


def elements(text: str, kind: str, name: str) -> set[str]:
    """The keys of a set or map in nft's words; none where there is no such."""
    body = (
        text.partition(f"{kind} {name} {{")[2].partition("}\n\t}")[0].partition("elements = {")[2]
    )
    return {each.split(":")[0].strip().strip('"') for each in body.split(",") if each.strip()}


def assert_leases(engine: EngineProcess, text: str) -> None:
    """No address is anybody's twice; guards and policies are of those who run, and of all of them."""
    running = engine.docker("ps", "-q").stdout.split()
    guarded: set[str] = set()
    held: set[str] = set()
    every: list[str] = []
    for container in json.loads(engine.docker("inspect", *running).stdout) if running else []:
        places = container["NetworkSettings"]["Networks"].values()
        addresses = [place["IPAddress"] for place in places if place["IPAddress"]]
        every += addresses
        guarded |= {f"veth{place['EndpointID'][:7]}" for place in places if place["EndpointID"]}
        if "pier.egress" in (container["HostConfig"].get("Annotations") or {}):
            held |= set(addresses)
    assert len(every) == len(set(every)), every
    assert elements(text, "set", "ports") == guarded, text
    assert elements(text, "map", "held4") == held, text


def test_whatever_it_was_doing(engine: EngineProcess) -> None:
    chance = random.Random(7)
    kept = engine.docker(
        "run", "-d", "--name", "kept", "-p", "8080:80", IMAGE, "sleep", "1000"
    ).stdout
    address = engine.docker(
        "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "kept"
    ).stdout.strip()
    for _ in range(ROUNDS):
        stop = threading.Event()
        workers = [threading.Thread(target=busy, args=(engine, n, stop)) for n in range(2)]
        for worker in workers:
            worker.start()
        time.sleep(chance.uniform(0.1, 1.2))
        engine.kill()
        stop.set()
        for worker in workers:
            worker.join()
        engine.start()
        assert_in_line(engine)
        # Nobody else was given its address, and it answers.
        reach = ["run", "--rm", IMAGE, "ping", "-c", "1", "-W", "2", address]
        assert engine.docker(*reach).returncode == 0
        others = engine.docker("ps", "-aq", "--no-trunc").stdout.split()
        others.remove(kept.strip())
        if others:
            engine.docker("rm", "-f", *others)
        engine.docker("network", "prune", "-f")
        assert_in_line(engine)


def test_what_went_away_meanwhile(engine: EngineProcess) -> None:
    """Bridges and rules that were deleted while pierd was down are there again."""
    engine.docker("network", "create", "red")
    for name in ("one", "two"):
        engine.docker("run", "-d", "--name", name, "--network", "red", IMAGE, "sleep", "1000")
    engine.kill()
    for name in links(engine):
        if name.startswith(("br-", "pier")):
            subprocess.run([*engine.in_network, "ip", "link", "del", name], check=True)
    subprocess.run([*engine.in_network, "nft", "flush", "ruleset"], check=True)
    engine.start()
    assert_in_line(engine)
    assert engine.docker("exec", "one", "ping", "-c", "1", "-W", "2", "two").returncode == 0
    engine.remove_containers()
    engine.docker("network", "rm", "red")
