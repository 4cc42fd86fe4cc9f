"""The place of a process among those of a training, from the variables of torchrun and of SLURM."""

import pytest

from duplus_nnunet.errors import HostError
from duplus_nnunet.nodes.place import SRUN, TORCHRUN, Place, count_threads, find_place

BY_TORCHRUN = {
    **{"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "MASTER_ADDR": "a", "MASTER_PORT": "29500"},
    "TORCHELASTIC_RESTART_COUNT": "2",
}
# Of a step of two nodes in a job of four.
BY_SRUN = {
    **{"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1234567"},
    **{"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "node[07-08]"},
    "SLURM_JOB_NODELIST": "node[05-08]",
}


def without(variables: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in variables.items() if key != name}


def test_torchrun_gives_global_and_local_rank() -> None:
    assert find_place(BY_TORCHRUN) == Place(TORCHRUN, 5, 8, 1, "a", 29500, 2)


def test_srun_gives_the_place_in_its_step() -> None:
    place = find_place(BY_SRUN)
    assert place is not None
    assert (place.launcher, place.rank, place.world, place.local_rank, place.address) == (SRUN, 3, 4, 1, "node07")


def test_the_job_stands_for_a_step_that_does_not_name_its_own() -> None:
    place = find_place(without(without(BY_SRUN, "SLURM_STEP_NUM_TASKS"), "SLURM_STEP_NODELIST"))
    assert place is not None
    assert (place.world, place.address) == (8, "node05")


def test_torchrun_within_a_slurm_step_precedes_slurm() -> None:
    assert find_place({**BY_SRUN, **BY_TORCHRUN}) == find_place(BY_TORCHRUN)


def test_address_and_port_can_be_given() -> None:
    place = find_place({**BY_SRUN, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000"})
    assert place is not None
    assert (place.address, place.port) == ("10.0.0.1", 4000)


def test_jobs_have_ports_of_their_own() -> None:
    places = [find_place({**BY_SRUN, "SLURM_JOB_ID": job}) for job in ("1234567", "1234568")]
    ports = {place.port for place in places if place is not None}
    assert len(ports) == 2
    assert all(20000 <= port < 32768 for port in ports)


@pytest.mark.parametrize("variables", [{}, {**BY_SRUN, "SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_PROCID": "0"}])
def test_a_single_process_has_no_place(variables: dict[str, str]) -> None:
    assert find_place(variables) is None


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_a_missing_variable_of_torchrun_is_named(name: str) -> None:
    with pytest.raises(HostError, match=name):
        find_place(without(BY_TORCHRUN, name))


@pytest.mark.parametrize("name", ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID"])
def test_a_missing_variable_of_slurm_is_named(name: str) -> None:
    with pytest.raises(HostError, match=name):
        find_place(without(BY_SRUN, name))


@pytest.mark.parametrize("changed", [{"RANK": "8"}, {"RANK": "x"}, {"LOCAL_RANK": "6"}, {"MASTER_PORT": "70000"}])
def test_values_that_contradict_each_other_are_refused(changed: dict[str, str]) -> None:
    with pytest.raises(HostError):
        find_place({**BY_TORCHRUN, **changed})


def test_a_batch_script_of_several_tasks_without_srun_is_refused() -> None:
    script = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}
    with pytest.raises(HostError, match="srun"):
        find_place(script)


@pytest.mark.parametrize(
    ("variables", "threads"),
    [({}, 1), ({"OMP_NUM_THREADS": "3"}, 3), ({"SLURM_CPUS_PER_TASK": "4"}, 4), ({"OMP_NUM_THREADS": "3,2"}, 1)],
)
def test_threads_of_a_process_on_the_cpu(variables: dict[str, str], threads: int) -> None:
    assert count_threads(variables) == threads
