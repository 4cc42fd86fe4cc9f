"""The doors by which files enter the package: a valid file, how it is damaged and read, and what is then right."""

import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import mutations

FILES = Path(__file__).parents[1] / "compatibility" / "files"
MODEL = FILES / "models" / "segmentation"
CT = FILES / "images" / "ct" / "P16_CT_0000.nii.gz"

Judge = Callable[[Path, Any, Any], str | None]


def accept(file: Path, value: Any, original: Any) -> str | None:
    """Accept every value: the reader alone says what is valid."""
    return None


@dataclass(frozen=True)
class Door:
    """One kind of input.

    Attributes:
        name: Name of the kind.
        file: The file that is damaged, in the folder that `prepare` fills.
        prepare: Writes valid files into an empty folder.
        mutate: Damages the content of the file.
        read: Reads the file as the package does, and returns what it understood.
        judge: Says what is wrong with a value that was read; None if nothing is. It gets the file, the value, and the
            value of the valid file.
    """

    name: str
    file: str
    prepare: Callable[[Path], None]
    mutate: mutations.Mutation
    read: Callable[[Path], Any]
    judge: Judge = accept


# --- text files


def _copy(source: Path, name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copyfile(source, folder / name) and None


def _read_registry(file: Path) -> Any:
    from duplus_nnunet.prompt_registry.registry_file import file_entry, load_registry_file

    return file_entry(load_registry_file(file))


def _read_schema(file: Path) -> Any:
    from duplus_nnunet.survival.records.schema import read_schema

    return read_schema(file)


def _read_clinical(file: Path) -> Any:
    from duplus_nnunet.survival.records.schema import read_schema
    from duplus_nnunet.survival.records.table import read_records, read_rows

    return read_records(read_rows(file), read_schema(file.with_suffix(".yaml")))


def _prepare_clinical(folder: Path) -> None:
    shutil.copyfile(FILES / "clinical.csv", folder / "clinical.csv")
    shutil.copyfile(FILES / "composed" / "clinical.yaml", folder / "clinical.yaml")


def _judge_clinical(file: Path, value: Any, original: Any) -> str | None:
    """Compare times with those that Python's own reader gives for rows of the header's length."""
    records, _ = value
    rows: dict[str, list[list[str]]] = {}
    for row in csv.reader(io.StringIO(file.read_text("utf-8", errors="replace"), newline="")):
        if len(row) == 5:
            rows.setdefault(row[0].strip(), []).append(row)
    for record in records:
        try:
            months = [float(row[1]) for row in rows[record.patient]]
        except (KeyError, ValueError):
            continue
        if not any(math.isclose(record.time, each * 30.4375, rel_tol=1e-6) for each in months):
            return f"{record.patient} has {record.time} days, the file says {months} months"
    return None


def _read_spec(file: Path) -> Any:
    from duplus_nnunet.data.composing.spec import read_spec

    return read_spec(file)


def _prepare_spec(folder: Path) -> None:
    text = (
        "targets:\n  060: {tumour: lesion}\nskip:\n  060: [edge]\ncontexts:\n  060: pelvis_ct\n"
        "patients:\n  shared: true\nfolds: 4\nseed: 3\n"
    )
    (folder / "spec.yaml").write_text(text, encoding="utf-8")


def _read_jobs(file: Path) -> Any:
    from duplus_nnunet.inference.jobs import group_jobs, read_jobs

    return group_jobs(read_jobs(file, ".nii.gz"))


def _prepare_jobs_csv(folder: Path) -> None:
    text = "image,context,targets,prompts,case\na_0000.nii.gz,tiny_ct,tumour;liver,,one\nb_0000.nii.gz,,,x y,two\n"
    (folder / "jobs.csv").write_text(text, encoding="utf-8")


def _prepare_jobs_json(folder: Path) -> None:
    jobs = [
        {"image": ["a_0000.nii.gz"], "context": "tiny_ct", "targets": ["tumour", "left kidney"], "case": "one"},
        {"image": "b_0000.nii.gz", "prompts": ["x y"], "case": "two"},
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")


def _read_case_table(file: Path) -> Any:
    from duplus_nnunet.data.case_table import read_case_table

    return read_case_table(file.parent)


def _read_manifest(file: Path) -> Any:
    from duplus_nnunet.outputs.manifest import Manifest

    return Manifest.read(file.parent)


def _read_statistics(file: Path) -> Any:
    from duplus_nnunet.outputs.statistics import StatisticsTable

    return StatisticsTable.read(file.parent)


def _read_scores(file: Path) -> Any:
    from duplus_nnunet.reporting.score_files import read_case_scores

    return read_case_scores(file)


def _read_training_cases(file: Path) -> Any:
    from duplus_nnunet.trainers.training_cases import read_training_cases

    return read_training_cases(file.parent)


# --- models and adapters


def _copy_model(folder: Path) -> None:
    for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth", "fold_0/training_cases.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(MODEL / name, folder / name)


def _predict(file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Predict the stored image by the model folder of a file; return its masks, and what was warned of."""
    from duplus_nnunet.api import DuPLUSPredictor

    predictor = DuPLUSPredictor.from_folder(file.parent, folds=(0,), device="cpu", mirroring=False)
    return dict(predictor.predict(CT).masks), predictor._model.record.notes


def _judge_masks(file: Path, value: Any, original: Any) -> str | None:
    """Require the same masks, or a warning that the folder is not as it was trained."""
    (masks, notes), (expected, _) = value, original
    return None if notes else _same_arrays(file, masks, expected)


def _same_arrays(file: Path, value: Mapping[str, Any], original: Mapping[str, Any]) -> str | None:
    """Require the same arrays, to the bit; their names may contain what the file calls an adapter."""
    if len(value) != len(original):
        return f"{len(value)} instead of {len(original)} arrays"
    pairs = zip(value.items(), original.values(), strict=True)
    changed = [name for (name, array), other in pairs if not np.array_equal(array, other, equal_nan=True)]
    return f"{changed} differ" if changed else None


def _read_weights(file: Path) -> dict[str, Any]:
    """Read a checkpoint as a prediction does, and return its weights."""
    from duplus_nnunet.api import DuPLUSPredictor

    predictor = DuPLUSPredictor.from_folder(file.parents[1], folds=(0,), device="cpu", mirroring=False)
    network = predictor._model.network
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def _read_pretrained(file: Path) -> dict[str, Any]:
    from duplus_nnunet.plugin import read_pretrained

    weights = read_pretrained(str(file))["network_weights"]
    return {name: tensor.numpy() for name, tensor in weights.items()}


def _copy_adapter(folder: Path) -> None:
    for name in ("adapter.json", "adapter.safetensors"):
        shutil.copyfile(FILES / "adapter" / name, folder / name)


def _read_adapter(file: Path) -> Any:
    from duplus_nnunet.adaptation.files import read_adapter

    adapter = read_adapter(file.parent)
    return {name: tensor.numpy() for name, tensor in adapter.weights.items()}


def _attack(content: bytes, rng: Any) -> bytes:
    """Put a pickle that creates a file into a checkpoint, in one of its forms; the file's name stands in PAYLOAD."""
    import pickle
    import zipfile

    payload = _Payload(rng.choice(("os.system", "builtins.eval", "subprocess.call", "pathlib.Path.touch")))
    weights = {"network_weights": payload, "trainer_name": "DuPLUSTrainer", "init_args": {}}
    code = pickle.dumps(rng.choice((payload, weights, [payload], {"network_weights": {"x": payload}})), protocol=2)
    if rng.random() < 0.3:
        return code
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        for item in old.infolist():
            new.writestr(item.filename, code if item.filename.endswith("data.pkl") else old.read(item))
    return packed.getvalue()


PAYLOAD = Path(__file__).parent / "executed"


class _Payload:
    """Creates the file PAYLOAD where it is unpickled."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        """Call one of several functions that reach the file system."""
        import os
        import subprocess

        if self.how == "os.system":
            return os.system, (f"touch '{PAYLOAD}'",)
        if self.how == "builtins.eval":
            return eval, (f"open({str(PAYLOAD)!r}, 'w')",)
        if self.how == "subprocess.call":
            return subprocess.call, (["touch", str(PAYLOAD)],)
        return Path.touch, (PAYLOAD,)


# --- images


def _write_image(folder: Path) -> None:
    import nibabel

    rng = np.random.default_rng(0)
    affine = np.array([[-4.0, 0, 0, 30], [0, -4.0, 0, 20], [0, 0, 5.0, 10], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(rng.integers(-1000, 1000, (23, 25, 20)).astype(np.int16), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nibabel.save(image, folder / "a_0000.nii")


def _inspect(file: Path) -> Any:
    from duplus_nnunet.data.image_headers import inspect_image

    return inspect_image(file)


def _judge_image(file: Path, value: Any, original: Any) -> str | None:
    """Compare with what SimpleITK and nibabel read, where no warning says that they may differ."""
    import nibabel
    import SimpleITK

    try:
        read = SimpleITK.ReadImage(str(file))
    except RuntimeError as error:
        return f"accepted, but SimpleITK cannot read it: {str(error).splitlines()[-1]}"
    array = SimpleITK.GetArrayFromImage(read)
    if array.shape != tuple(value.shape):
        return f"shape {value.shape}, SimpleITK's is {array.shape}"
    if not np.allclose(read.GetSpacing()[::-1], value.spacing, rtol=1e-3):
        return f"spacing {value.spacing}, SimpleITK's is {read.GetSpacing()[::-1]}"
    if value.warnings:
        return None
    try:
        other = nibabel.load(file)
        widths = np.linalg.norm(other.affine[:3, :3], axis=0)
        voxels = np.asarray(other.dataobj)
    except Exception as error:  # nibabel raises many types for a header that it does not accept
        return f"accepted without a warning, but nibabel cannot read it: {error}"
    if not np.allclose(widths[::-1], value.spacing, rtol=1e-3):
        return f"spacing {value.spacing}, nibabel's is {widths[::-1]}"
    if not np.allclose(voxels.squeeze().T, array, rtol=1e-3, atol=1e-3, equal_nan=True):
        return "SimpleITK and nibabel read other voxels"
    return None


def list_doors() -> Iterator[Door]:
    """List all doors."""
    text, tree = mutations.mutate_text, mutations.mutate_json
    composed = FILES / "composed"
    predictions = FILES / "predictions" / "ct"
    yield Door("registry", "prompts.yaml", _copy(composed / "prompts.yaml", "prompts.yaml"), text, _read_registry)
    schema = _copy(composed / "clinical.yaml", "clinical.yaml")
    yield Door("clinical.yaml", "clinical.yaml", schema, text, _read_schema)
    yield Door("clinical.csv", "clinical.csv", _prepare_clinical, text, _read_clinical, _judge_clinical)
    yield Door("compose spec", "spec.yaml", _prepare_spec, text, _read_spec)
    yield Door("jobs.csv", "jobs.csv", _prepare_jobs_csv, text, _read_jobs)
    yield Door("jobs.json", "jobs.json", _prepare_jobs_json, tree, _read_jobs)
    table = _copy(composed / "duplus_cases.json", "duplus_cases.json")
    yield Door("case table", "duplus_cases.json", table, tree, _read_case_table)
    for name, read in (("manifest.json", _read_manifest), ("statistics.json", _read_statistics)):
        yield Door(name, name, _copy(predictions / name, name), tree, read)
    yield Door("scores.json", "scores.json", _copy(FILES / "scores" / "scores.json", "scores.json"), tree, _read_scores)
    cases = _copy(MODEL / "fold_0" / "training_cases.json", "training_cases.json")
    yield Door("training cases", "training_cases.json", cases, tree, _read_training_cases)
    yield Door("adapter.json", "adapter.json", _copy_adapter, tree, _read_adapter, _same_arrays)
    yield Door(
        "adapter weights", "adapter.safetensors", _copy_adapter, mutations.mutate_bytes, _read_adapter, _same_arrays
    )
    yield Door("plans.json", "plans.json", _copy_model, tree, _predict, _judge_masks)
    yield Door("dataset.json", "dataset.json", _copy_model, tree, _predict, _judge_masks)
    checkpoint = "fold_0/checkpoint_final.pth"
    yield Door("checkpoint", checkpoint, _copy_model, mutations.mutate_bytes, _read_weights, _same_arrays)
    yield Door("checkpoint, bit flips", checkpoint, _copy_model, mutations.flip_bits, _read_weights, _same_arrays)
    yield Door("checkpoint, attacked", checkpoint, _copy_model, _attack, _read_weights, _same_arrays)
    yield Door("pretrained, attacked", checkpoint, _copy_model, _attack, _read_pretrained, _same_arrays)
    yield Door("NIfTI header", "a_0000.nii", _write_image, mutations.mutate_nifti, _inspect, _judge_image)


DOORS = {door.name: door for door in list_doors()}
