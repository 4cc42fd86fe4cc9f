"""Sends orders as jobs by submitit: as an array to SLURM, or as processes of this machine."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duplus_nnunet.errors import HostError
from duplus_nnunet.submission.extra import require_submitit
from duplus_nnunet.submission.resources import Resources

if TYPE_CHECKING:
    from duplus_nnunet.submission.task import Order

# Seconds before its time limit at which SLURM signals a job: the training is ended and the job queued again by then.
_SIGNAL_S = 120
_NAME = "duplus"


def require_slurm() -> None:
    """Check that jobs can be sent to SLURM from here.

    Raises:
        HostError: There is no sbatch.
    """
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise HostError(
            "SLURM's sbatch and srun were not found on the PATH. Type the command on a login node of the cluster; or "
            "see what would be sent (--dry-run), or train on this machine (--executor local)."
        )


def send(orders: Sequence["Order"], resources: Resources, folder: Path) -> list[str]:
    """Send a job for each order.

    Args:
        orders: What is trained.
        resources: What each job asks for.
        folder: Folder of the jobs' files and logs, on a disk that all nodes see.

    Returns:
        The number of each job, such as "4711_0" of SLURM, or a process of this machine.

    Raises:
        HostError: The scheduler refuses them.
    """
    from duplus_nnunet.submission.task import TrainingTask

    submitit: Any = require_submitit()
    folder.mkdir(parents=True, exist_ok=True)
    if resources.executor == "slurm":
        executor = submitit.SlurmExecutor(folder, max_num_timeout=resources.requeues)
        executor.update_parameters(**list_slurm_parameters(resources))
    else:
        executor = submitit.LocalExecutor(folder, max_num_timeout=resources.requeues)
        executor.update_parameters(**list_local_parameters(resources, folder))
    try:
        with executor.batch():
            jobs = [executor.submit(TrainingTask(order)) for order in orders]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
        raise HostError(f"The jobs were not sent: {error}. Correct the options, and send them again.") from error
    return [str(job.job_id) for job in jobs]


def write_script(count: int, resources: Resources, folder: Path) -> str:
    """Write the script that `send` would give to sbatch; SLURM is not needed.

    Args:
        count: Number of jobs.
        resources: What each job asks for.
        folder: Folder of the jobs' files and logs.
    """
    submitit: Any = require_submitit()

    class Draft(submitit.SlurmExecutor):  # type: ignore[misc]
        """Writes scripts where there is no SLURM."""

        @classmethod
        def affinity(cls) -> int:
            return 1

    executor = Draft(folder, max_num_timeout=resources.requeues)
    executor.update_parameters(**list_slurm_parameters(resources))
    if count > 1:
        executor.parameters["map_count"] = count
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return str(executor._make_submission_file_text(command, ""))


def list_slurm_parameters(resources: Resources) -> dict[str, Any]:
    """List the parameters of submitit's executor for SLURM."""
    several = resources.nodes > 1
    cpus = resources.cpus * (1 if several else max(1, resources.gpus))
    further: dict[str, Any] = {"requeue": True, **{key: value or True for key, value in resources.slurm}}
    parameters: dict[str, Any] = {
        "job_name": _NAME,
        "time": resources.minutes,
        "mem": f"{round(resources.memory_gb * 1024)}M",
        "nodes": resources.nodes,
        "ntasks_per_node": resources.gpus if several else 1,
        "cpus_per_task": cpus,
        # Since SLURM 22.05, srun does not take them from the job.
        "srun_args": ["--cpus-per-task", str(cpus)],
        "signal_delay_s": min(_SIGNAL_S, 30 * resources.minutes),
        "stderr_to_stdout": True,
        "setup": list(resources.setup),
        "additional_parameters": further,
    }
    if resources.parallel:
        parameters["array_parallelism"] = resources.parallel
    # Where GPUs are asked for by their type, SLURM would add up both requests.
    if resources.gpus and not {"gres", "gpus", "gpus-per-task"} & set(further):
        parameters["gpus_per_node"] = resources.gpus
    for name in ("partition", "account"):
        if getattr(resources, name):
            parameters[name] = getattr(resources, name)
    return parameters


def list_local_parameters(resources: Resources, folder: Path) -> dict[str, Any]:
    """List the parameters of submitit's executor for this machine, whose processes outlive the terminal."""
    log = shlex.quote(str(folder / "controller.log"))
    return {
        "timeout_min": resources.minutes,
        "signal_delay_s": min(_SIGNAL_S, 30 * resources.minutes),
        "stderr_to_stdout": True,
        "setup": ["trap '' HUP", f"exec >>{log} 2>&1 </dev/null", *resources.setup],
    }


def ask_scheduler(executor: str, folder: Path, job: str) -> str:
    """Ask SLURM for the state of a job; empty where nothing is known."""
    if executor != "slurm" or not job or shutil.which("sacct") is None:
        return ""
    submitit: Any = require_submitit()
    try:
        state = str(submitit.SlurmJob(folder=folder, job_id=job).state)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if state == "UNKNOWN" else state


def list_devices() -> tuple[str, ...]:
    """List the GPUs of this machine that this process may use, by CUDA's names."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip())
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))
