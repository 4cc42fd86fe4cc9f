"""Trains one model by several processes, on the GPUs of one or several nodes.

`torchrun ... -m duplus_nnunet.train` or `srun python -m duplus_nnunet.train` take the arguments of nnUNetv2_train.
"""

import argparse
import importlib
import inspect
import math
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from duplus_nnunet import __version__
from duplus_nnunet.command_checks import TrainingCall, check_training
from duplus_nnunet.errors import DuplusError, HostError
from duplus_nnunet.nodes.place import Place, export_place, find_place

# Minutes that a process waits for the others in a collective operation: longer than the longest case of a validation.
TIMEOUT_MIN = 30.0
# Seconds in which all other processes find the failure of rank 0.
_READ_S = 2.5
HELP = f"""\
Train one model by several processes, on the GPUs of one or several nodes, started by torchrun or by SLURM's srun.

usage: torchrun --nnodes NODES --nproc-per-node GPUS ... -m duplus_nnunet.train ARGUMENTS
       srun python -m duplus_nnunet.train ARGUMENTS

ARGUMENTS are those of nnUNetv2_train, but -num_gpus: torchrun or SLURM decides how many processes there are. With
-device cpu, each process trains on the CPU with OMP_NUM_THREADS threads. Without torchrun or srun, one process trains.

DuPLUS option:
  --timeout MINUTES     Longest wait for another process, until the training ends with an error (default
                        {TIMEOUT_MIN:g}). It must be longer than the prediction of 20 cases of the validation.

The batch of the plans is divided among the processes. nnUNet_results must be on a disk that all nodes see. With --c, a
training that was interrupted, or that torchrun restarts, continues from its last checkpoint.

examples, with dataset 4 of nnU-Net's documentation, two nodes of four GPUs each:
  torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint FIRST_NODE:29400 --max-restarts 3 \\
      -m duplus_nnunet.train 4 3d_fullres 0 -tr DuPLUSTrainer -p DuPLUSPlans --c
  srun --nodes 2 --ntasks-per-node 4 --gres gpu:4 --kill-on-bad-exit=1 \\
      python -m duplus_nnunet.train 4 3d_fullres 0 -tr DuPLUSTrainer -p DuPLUSPlans --c

"""

_ADVICE = {
    "versions": "Use one environment on all nodes.",
    "arguments": "Start all processes with the same arguments.",
    "preprocessed data": "Copy the folder in nnUNet_preprocessed to all nodes again, or use one that all nodes see.",
}


def make_parser() -> argparse.ArgumentParser:
    """Make the parser that takes our option out of the command line; the rest is nnU-Net's."""
    parser = argparse.ArgumentParser("duplus_nnunet.train", add_help=False, allow_abbrev=False)
    parser.add_argument("--timeout", type=_read_minutes, default=TIMEOUT_MIN)
    return parser


def _read_minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < math.inf:
        raise ValueError(text)
    return minutes


def train() -> None:
    """Run nnU-Net's training command in this process, as one of several.

    nnU-Net parses the arguments; the function that it calls with them is replaced in this process.

    Raises:
        DuplusError: The training cannot start, or another process failed.
    """
    options, rest = make_parser().parse_known_args()
    if {"-h", "--help"} & set(rest):
        sys.stdout.write(f"{HELP}nnU-Net's own help:\n")
        place = None
    else:
        place = find_place(os.environ)
    sys.argv = [sys.argv[0], *rest]
    host: Any = importlib.import_module("nnunetv2.run.run_training")
    if place is not None:
        export_place(place)
        if place.rank:
            os.environ["nnUNet_wandb_enabled"] = "0"  # noqa: SIM112 rank 0 writes the logs
        host.run_training = _spread(host.run_training, place, options.timeout * 60)
    host.run_training_entry()


def _spread(run_training: Callable[..., Any], place: Place, timeout: float) -> Callable[..., Any]:
    """Let nnU-Net's `run_training` train as one of several processes: within a process group, which it takes part in.

    Args:
        run_training: nnU-Net's function, which trains on one device.
        place: Place of this process.
        timeout: Longest wait for another process, in s.
    """
    signature = inspect.signature(run_training)

    def run(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        arguments = call.arguments
        with join_peers(place, timeout, arguments):
            return run_training(**arguments)

    return run


def check_call(arguments: dict[str, Any], place: Place) -> None:
    """Check what a training of several processes is asked for.

    Args:
        arguments: Arguments of nnU-Net's `run_training`, by name.
        place: Place of this process.

    Raises:
        HostError: The trainer trains in one process only, the number of GPUs is given twice, or a restart would begin
            from scratch.
        DuplusError: Dataset, plans and trainer do not belong together.
    """
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    if arguments["num_gpus"] != 1:
        raise HostError(
            f"-num_gpus {arguments['num_gpus']} is not used by duplus_nnunet.train: {place.launcher} started "
            f"{place.world} processes, one for each GPU. Leave it out."
        )
    names = ("dataset_name_or_id", "configuration", "fold", "trainer_class_name", "plans_identifier")
    name = arguments["trainer_class_name"]
    if not getattr(recursive_find_trainer_class_by_name(name), "spreads", False):
        raise HostError(
            f"{name} cannot be trained by duplus_nnunet.train: it trains in one process, or takes the rank among all "
            "nodes for the number of its GPU. DuPLUSTrainer, DuPLUSLoRATrainer and trainers derived from them can. For "
            f"{name}, use nnUNetv2_train on one node."
        )
    if place.restart and not (arguments["continue_training"] or arguments["only_run_validation"]):
        raise HostError(
            f"torchrun restarted the training (restart {place.restart}), which without --c would begin from scratch "
            "and overwrite its checkpoints. Start it again with --c, which begins from scratch if there is none yet."
        )
    check_training(TrainingCall(*(str(arguments[each]) for each in names)), recursive_find_trainer_class_by_name)


@contextmanager
def join_peers(place: Place, timeout: float, arguments: dict[str, Any]) -> Iterator[None]:
    """Find the other processes, compare what they see, and be part of torch's process group.

    Args:
        place: Place of this process.
        timeout: Longest wait for another process, in s.
        arguments: Arguments of nnU-Net's `run_training`, by name.

    Raises:
        DuplusError: The training cannot start, the processes do not see the same, or another one failed.
    """
    import torch
    import torch.distributed as dist

    from duplus_nnunet.nodes.agreement import require_own_devices
    from duplus_nnunet.nodes.devices import choose_local_device, choose_process_group, identify
    from duplus_nnunet.nodes.peers import meet

    with meet(place, timeout) as (peers, store):
        check_call(arguments, place)
        local = choose_local_device(arguments["device"].type, place)
        own = {"host": platform.node(), "device": identify(local), "name": str(local)}
        table = peers.exchange("devices", own)
        hosts = [row["host"] for row in table]
        require_own_devices([row["device"] for row in table], hosts)
        _compare(peers, hosts, arguments)
        if place.rank == 0:
            rows = ", ".join(f"{rank} {row['host']} {row['name']}" for rank, row in enumerate(table))
            sys.stdout.write(f"{place.world} processes by {place.launcher}: {rows}\n")
        limit = timedelta(seconds=timeout)
        if local.type == "cuda":
            torch.cuda.set_device(local)
        dist.init_process_group(
            store=store, rank=place.rank, world_size=place.world, timeout=limit, **choose_process_group(local)
        )
        yield
        dist.destroy_process_group()


def _compare(peers: Any, hosts: list[str], arguments: dict[str, Any]) -> None:
    """Compare versions, arguments, plans and folders of all processes."""
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    from duplus_nnunet.nodes.agreement import digest_files, require_same, require_shared

    given = arguments["dataset_name_or_id"]
    dataset = maybe_convert_to_dataset_name(int(given) if given.isdecimal() else given)
    plans, preprocessed = arguments["plans_identifier"], Path(str(nnUNet_preprocessed), dataset)
    own = {
        "versions": {
            "duplus-nnunet": __version__,
            **{name: version(name) for name in ("nnunetv2", "torch")},
        },
        "arguments": {name: str(value) for name, value in arguments.items()},
        "preprocessed data": digest_files(
            preprocessed, (f"{plans}.json", "dataset.json", "splits_final.json", "duplus_cases*")
        ),
    }
    for what, values in own.items():
        require_same(what, peers.exchange(what, values), hosts, _ADVICE[what])
    fold = get_output_folder(
        dataset, arguments["trainer_class_name"], plans, arguments["configuration"], arguments["fold"]
    )
    require_shared(peers, Path(str(nnUNet_results)), Path(fold), hosts)


def main() -> int:
    """Train; return the exit code.

    A process that fails ends at once: nothing of it, such as a thread that feeds it, may keep the others waiting.
    """
    try:
        train()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except DuplusError as error:
        sys.stderr.write(f"error: {error}\n")
        code = 1
    except KeyboardInterrupt:
        code = 130
    except Exception:
        traceback.print_exc()
        code = 1
    else:
        return 0
    sys.stdout.flush()
    sys.stderr.flush()
    if code and "LOCAL_RANK" in os.environ:
        if os.environ.get("RANK") == "0":
            time.sleep(_READ_S)  # the others read its message from the store, which may end with it
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
