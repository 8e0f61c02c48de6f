"""Many at once: nothing is mixed up, nothing is left."""

from engine_process import Client, EngineProcess


def test_two_hundred_runs_in_batches(docker: Client, engine: EngineProcess, image: str) -> None:
    for batch in range(10):
        numbers = range(batch * 20, batch * 20 + 20)
        running = [
            docker.popen("run", "--rm", image, "sh", "-c", f"echo {n}; exit {n % 100}")
            for n in numbers
        ]
        for number, process in zip(numbers, running, strict=True):
            out, err = process.communicate(timeout=120)
            assert (out, process.returncode) == (f"{number}\n".encode(), number % 100), err
    assert docker("ps", "-aq").stdout == ""


def test_many_names_at_once_and_one_wins(docker: Client, image: str) -> None:
    running = [docker.popen("create", "--name", "one", image) for _ in range(10)]
    codes = []
    for process in running:
        process.communicate(timeout=60)
        codes.append(process.returncode)
    assert sorted(codes) == [0] + [1] * 9


def test_start_stop_remove_race(docker: Client, image: str) -> None:
    for _ in range(5):
        docker("run", "-d", "--name", "it", image, "sleep", "60")
        running = [
            docker.popen(*words)
            for words in (
                ["stop", "-t", "0", "it"],
                ["kill", "it"],
                ["rm", "-f", "it"],
                ["exec", "it", "true"],
                ["restart", "-t", "0", "it"],
                ["logs", "it"],
            )
        ]
        for process in running:
            process.communicate(timeout=60)
        docker("rm", "-f", "it", check=False)
        assert docker("ps", "-aq").stdout == ""
