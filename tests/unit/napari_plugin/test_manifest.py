"""napari finds the plug-in, and a package without napari is not slowed down by it."""

import importlib.metadata
import importlib.resources
import subprocess
import sys
from pathlib import Path

import yaml

import duplus_nnunet.napari_plugin


def test_the_manifest_names_a_class_that_is_there() -> None:
    (entry,) = importlib.metadata.distribution("duplus-nnunet").entry_points.select(group="napari.manifest")
    package, file = entry.value.split(":")
    manifest = yaml.safe_load(importlib.resources.files(package).joinpath(file).read_text(encoding="utf-8"))
    assert manifest["name"] == entry.name == "duplus-nnunet"
    (command,), (widget,) = (manifest["contributions"][kind] for kind in ("commands", "widgets"))
    assert command["id"] == widget["command"]
    module, name = command["python_name"].split(":")
    assert module.rpartition(".")[0] == package
    source = Path(duplus_nnunet.napari_plugin.__file__).with_name(f"{module.rpartition('.')[2]}.py")
    assert f"class {name}(" in source.read_text(encoding="utf-8")


def test_neither_torch_nor_napari_is_loaded_before_a_model_is() -> None:
    program = (
        "import sys; import duplus_nnunet.napari_plugin.session, duplus_nnunet.napari_plugin.jobs; "
        "print(*{'torch', 'napari', 'qtpy', 'nnunetv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
