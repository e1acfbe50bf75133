"""The built package can be installed into an empty environment, and works."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent


def test_the_licenses_are_those_of_the_gateway() -> None:
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        above = HERE.parent.parent / name
        if above.exists():  # not where the package stands alone
            assert (HERE / name).read_bytes() == above.read_bytes()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", out], cwd=HERE, check=True, capture_output=True
    )
    return out


def test_the_built_packages_have_all_files_and_no_others(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(member.isfile() for member in members)
    names = {member.name.partition("/")[2] for member in members}
    assert {"LICENSE-MIT", "LICENSE-APACHE", "README.md", "pyproject.toml", "tests/fake.py"} <= names
    assert not [name for name in names if "cache" in name]
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as package:
        inside = {name for name in package.namelist() if ".dist-info" not in name}
        licenses = [name for name in package.namelist() if "/licenses/" in name]
    source = HERE / "src"
    assert inside == {
        str(path.relative_to(source)) for path in source.rglob("*") if path.suffix in (".py", ".typed")
    }
    assert len(licenses) == 2


def test_the_wheel_needs_nothing_but_what_it_says(built: Path, tmp_path: Path) -> None:
    """In a new venv, with `websockets` from this environment instead of an index."""
    import websockets

    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as package:
        package.extractall(site)
    os.symlink(Path(websockets.__file__).parent, site / "websockets")
    program = "import zonewire; print(zonewire.__version__, zonewire.connect.__doc__.split('.')[0])"
    python = tmp_path / "venv/bin/python"
    said = subprocess.run([python, "-W", "error", "-c", program], check=True, capture_output=True, text=True)
    assert said.stdout == "0.1.0 Connects to a gateway, and keeps the connection up\n"
