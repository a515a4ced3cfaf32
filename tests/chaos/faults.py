"""All that a run may do to the fleet, by kind. A fault is a generator: it strikes, yields while it lasts, and heals."""

from collections.abc import Callable, Iterator, Mapping

from chaos import of_neighbours, of_workers
from chaos.scene import Missed, Scene, lasting

Fault = Callable[[Scene], Iterator[None]]


def cancel(scene: Scene) -> Iterator[None]:
    job = scene.clients.asks(scene.rng, "cancel")
    if job is None:
        raise Missed
    scene.cancelled.add(job)
    yield


def pause(scene: Scene) -> Iterator[None]:
    """Two of three go on before the end of the faults, the others after it."""
    job = scene.clients.asks(scene.rng, "pause")
    if job is None:
        raise Missed
    goes_on = scene.rng.random() < 0.67
    yield from lasting(scene.rng.uniform(0.2, 3.0))
    if goes_on:
        scene.clients.ask(job, "resume")


#: Kind -> what it does, and the one thing of the fleet that two faults at once must not have in hand.
FAULTS: Mapping[str, tuple[Fault, str]] = {
    "child killed": (of_workers.kill_child, ""),
    "child frozen": (of_workers.freeze_child, ""),
    "keeper killed": (of_workers.kill_keeper, ""),
    "keeper frozen": (of_workers.freeze_keeper, ""),
    "worker and child killed": (of_workers.kill_worker, ""),
    "worker and child frozen": (of_workers.freeze_worker, ""),
    "worker told to end": (of_workers.drain_worker, ""),
    "keeper frozen at its outcome": (of_workers.late_outcome, "outcome"),
    "API killed": (of_neighbours.kill_api, "api"),
    "API frozen": (of_neighbours.freeze_api, "api"),
    "upkeep killed": (of_neighbours.kill_upkeep, "upkeep"),
    "upkeep frozen": (of_neighbours.freeze_upkeep, "upkeep"),
    "broker killed": (of_neighbours.kill_broker, "broker"),
    "broker flushed": (of_neighbours.flush_broker, "broker"),
    "broker frozen": (of_neighbours.pause_broker, "broker"),
    "client killed before its answer": (of_neighbours.kill_client, "client"),
}
#: Only a server can be crashed; SQLite's crash is that of whoever has it open.
OF_A_SERVER: Mapping[str, tuple[Fault, str]] = {
    "PostgreSQL restarted at once": (of_neighbours.restart_database, "database"),
    "PostgreSQL killed": (of_neighbours.kill_database, "database"),
}
#: What users do, at the same time.
WISHES: Mapping[str, tuple[Fault, str]] = {"cancel": (cancel, ""), "pause": (pause, "")}
