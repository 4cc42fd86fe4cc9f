"""Builds the distribution: where each package lies, and the start-up line that installs the hook.

Metadata and tool settings stand in pyproject.toml. What stands here cannot be said there: three packages lie at the
top of the repository and are installed inside `duplus_nnunet`, and one file goes beside the package.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

LIBRARY = "duplus_nnunet"

# The only place that says which top-level folders become sub-packages of the library.
TOP_LEVEL_FOLDERS = ("planners", "trainers", "prompt_registry")

HOOK_FILE = f"{LIBRARY}.pth"

# `site` runs this line at every interpreter start. It may not fail or print whatever is left of the package, and it
# looks at the switch before it touches the package.
HOOK_LINE = (
    "import os; os.environ.get('DUPLUS_AUTOLOAD') == '0' or exec("
    r'"try:\n from duplus_nnunet._autoload import start\n start()\nexcept Exception:\n pass"'
    ")\n"
)


def list_packages() -> dict[str, str]:
    """Map the dotted name of every package of the distribution to its folder."""
    found = {name: name.replace(".", "/") for name in find_packages(include=[LIBRARY, f"{LIBRARY}.*"])}
    for folder in TOP_LEVEL_FOLDERS:
        found[f"{LIBRARY}.{folder}"] = folder
        for name in find_packages(folder):
            found[f"{LIBRARY}.{folder}.{name}"] = f"{folder}/{name.replace('.', '/')}"
    return found


class BuildWithHook(build_py):
    """Adds the start-up line to what is built, in plain and in editable installs."""

    def hook_path(self) -> Path:
        # An editable wheel holds no built files: what shall be in it is written where it is put together.
        root = self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        return Path(root, HOOK_FILE)

    def run(self) -> None:
        super().run()
        path = self.hook_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HOOK_LINE, encoding="utf-8")

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, str(self.hook_path())]


PACKAGES = list_packages()

setup(
    packages=list(PACKAGES),
    package_dir={LIBRARY: LIBRARY} | {f"{LIBRARY}.{folder}": folder for folder in TOP_LEVEL_FOLDERS},
    package_data={
        LIBRARY: ["py.typed", "conversion/recipes/*.yaml", "data/composing/specs/*.yaml"],
        f"{LIBRARY}.example": ["files/*.json", "files/*.zip"],
        f"{LIBRARY}.model_report": ["assets/*"],
        f"{LIBRARY}.napari_plugin": ["napari.yaml"],
        f"{LIBRARY}.prompt_registry": [
            *("codes.yaml", "files/*.yaml", "*.json", "*.npz", "embeddings/*.json", "embeddings/*.npz"),
        ],
    },
    cmdclass={"build_py": BuildWithHook},
)
