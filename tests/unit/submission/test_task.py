"""A task trains in a process of its own, ends it in order, and continues where it was interrupted."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError, HostError
from duplus_nnunet.locks import hold
from duplus_nnunet.submission.progress import read_state
from duplus_nnunet.submission.record import name_log, name_state_file
from duplus_nnunet.submission.resources import Resources
from duplus_nnunet.submission.sending import send

pytest.importorskip("submitit")
from duplus_nnunet.submission.task import Order, TrainingTask, find_program

# Counts epochs in a checkpoint, one each 0.05 s, up to 40; starts from 0 if it does not continue; has a worker.
TRAINING = """
import pathlib, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
out = pathlib.Path(sys.argv[1])
(out / "worker").write_text(str(worker.pid))
checkpoint = out / "checkpoint_latest.pth"
begin = int(checkpoint.read_text()) if "--c" in sys.argv and checkpoint.exists() else 0
with (out / "begins").open("a") as file:
    file.write(f"{begin} ")
for epoch in range(begin + 1, 41):
    time.sleep(0.05)
    new = out / "new"
    new.write_text(str(epoch))
    new.replace(checkpoint)
worker.kill()
"""


def make_order(folder: Path, code: str = TRAINING, number: int = 0, slots: int = 0, gpus: int = 0) -> Order:
    output = folder / f"out_{number}"
    output.mkdir(exist_ok=True)
    devices = tuple(map(str, range(4))) if gpus else ()
    state_file = name_state_file(folder, number)
    return Order(("python", "-c", code, str(output)), output, state_file, 3, slots, gpus, devices, {"nnUNet_raw": "r"})


def wait_for(ready: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.05)


def state_of(order: Order) -> str:
    noted = read_state(order.state_file)
    return noted.state if noted else ""


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_training_has_the_variables_of_the_sender_and_its_workers(tmp_path: Path) -> None:
    code = "import os, sys, json; open(sys.argv[1] + '/seen', 'w').write(json.dumps(dict(os.environ)))"
    order = make_order(tmp_path, code)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("nnUNet_n_proc_DA", raising=False)
        TrainingTask(order)()
    seen = json.loads((order.output / "seen").read_text())
    assert (seen["nnUNet_raw"], seen["nnUNet_n_proc_DA"]) == ("r", "3")
    assert state_of(order) == "finished"


def test_a_training_that_ends_with_an_error_has_failed(tmp_path: Path) -> None:
    order = make_order(tmp_path, "raise SystemExit(7)")
    with pytest.raises(HostError, match="status 7"):
        TrainingTask(order)()
    assert state_of(order) == "failed"


def test_a_fold_that_another_process_trains_is_left_alone(tmp_path: Path) -> None:
    order = make_order(tmp_path)
    with hold(order.output, "training into", "Wait.", "training"), pytest.raises(DataError, match="training into"):
        TrainingTask(order)()
    assert not (order.output / "begins").exists()


def test_tasks_of_one_machine_take_turns_and_have_gpus_of_their_own(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; out = Path(sys.argv[1]);"
        "(out / 'gpus').write_text(os.environ['CUDA_VISIBLE_DEVICES']); (out / 'begin').write_text(str(time.time()));"
        "time.sleep(0.5); (out / 'end').write_text(str(time.time()))"
    )
    orders = [make_order(tmp_path, code, number, slots=2, gpus=2) for number in range(3)]
    threads = [threading.Thread(target=TrainingTask(order)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gpus = [(order.output / "gpus").read_text() for order in orders]
    assert set(gpus) == {"0,1", "2,3"}
    times = [tuple(float((order.output / name).read_text()) for name in ("begin", "end")) for order in orders]
    most = max(sum(begin <= moment < end for begin, end in times) for moment, _ in times)
    assert most == 2


def test_processes_of_a_training_end_before_it_is_queued_again(tmp_path: Path) -> None:
    order = make_order(tmp_path)
    task = TrainingTask(order)
    errors: list[HostError] = []

    def train() -> None:
        try:
            task()
        except HostError as error:
            errors.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    wait_for((order.output / "checkpoint_latest.pth").exists)
    worker = int((order.output / "worker").read_text())
    assert is_alive(worker)
    task.checkpoint()
    thread.join(30)
    assert len(errors) == 1
    wait_for(lambda: not is_alive(worker))


# The job outlives what sent it, by design.
@pytest.mark.filterwarnings("ignore:.*subprocess .* is still running")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_job_that_is_signalled_is_queued_again_and_continues(tmp_path: Path) -> None:
    order = make_order(tmp_path, slots=1)
    folder = tmp_path / "jobs"
    job = send([order], Resources("local", gpus=0, minutes=60), folder)[0]
    checkpoint = order.output / "checkpoint_latest.pth"
    wait_for(lambda: checkpoint.exists() and int(checkpoint.read_text()) > 2)
    noted = read_state(order.state_file)
    assert noted is not None
    os.kill(noted.pid, signal.SIGUSR2)
    wait_for(lambda: state_of(order) == "finished")
    first, second = map(int, (order.output / "begins").read_text().split())
    assert first == 0
    assert second > 2
    assert int(checkpoint.read_text()) == 40
    assert "Requeued" in name_log(folder, job).read_text()
    wait_for(lambda: not is_alive(int(job)))


def test_programs_beside_this_python_precede_the_path() -> None:
    assert subprocess.run(find_program(["python", "-c", ""]), check=True).returncode == 0
    assert Path(find_program(["duplus"])[0]).is_absolute()
    assert find_program(["no-such-program", "x"]) == ["no-such-program", "x"]
