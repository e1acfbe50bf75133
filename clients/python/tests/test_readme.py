"""The examples of README.md work as printed, apart from the gateway's port; so do those of the project's README."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
from real import Gateway, needs_gateway

HERE = Path(__file__).parent.parent


def blocks(folder: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(), re.M | re.S)


BLOCKS = blocks(HERE)

# What each of them prints, in order.
EXPECTED = [
    r"^WESTERN HUB \d",
    r"^latest: WESTERN HUB [\d.]+ 2(.*\n)+.*(late|s old)$",
    r"^\d\d entries or more; resume from {'epoch': '\w+', 'offset': \d+}$",
    r"^WESTERN HUB \d+\.\d+$",
    r"^Verbunden\.\nConnecting…\nVerbunden\.$",
    r"^open$",
    r"^placed [0-9a-f-]{36}\nrouting 10\n(.*\n)*confirmed 100\ndone: \w+$",
    r"^event:ticker:binance:\*$",
    r"^WESTERN HUB RT5M$",
]
if (HERE.parent.parent / "docs").exists():  # not where the package stands alone
    BLOCKS += blocks(HERE.parent.parent)
    EXPECTED += [r"^WESTERN HUB \d"]


def test_shows_nothing_that_is_not_run() -> None:
    assert len(BLOCKS) == len(EXPECTED)


def test_what_it_shows_is_typed(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    for number, block in enumerate(blocks(HERE)):
        (tmp_path / f"snippet_{number}.py").write_text(block)
    config = ["--config-file=", "--strict", f"--cache-dir={os.devnull}"]
    output, error, code = api.run([*config, *map(str, tmp_path.glob("*.py"))])
    assert code == 0, output + error


@needs_gateway
async def test_each_snippet_does_what_it_says(tmp_path: Path) -> None:
    sets = ("--interval-ms", "100", "--set", "orders.paper.failure_rate=0")
    gateway = await Gateway.started("demo", "--storage", "memory", *sets)
    some = asyncio.Semaphore(3)

    async def run(number: int, block: str, expected: str) -> None:
        program = tmp_path / f"snippet_{number}.py"
        program.write_text(block.replace(":8080", f":{gateway.port}"))
        async with some:
            await prints(program, expected)

    await asyncio.gather(*map(run, range(len(BLOCKS)), BLOCKS, EXPECTED))


async def prints(program: Path, expected: str) -> None:
    """Runs a program until it has printed the expected text, with the installed package if there is one."""
    python = os.environ.get("ZONEWIRE_TEST_PYTHON", sys.executable)
    pipe, out = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    process = await asyncio.create_subprocess_exec(python, "-uWerror", str(program), stdout=pipe, stderr=out)
    assert process.stdout
    output = ""
    try:
        async with asyncio.timeout(60):
            while not re.search(expected, output, re.M):
                piece = await process.stdout.read(65_536)
                assert piece, f"{program.name} ended: {output}"
                output += piece.decode()
    except TimeoutError:
        pytest.fail(f"{program.name}, instead of {expected}: {output}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert "Traceback" not in output and "Error" not in output, f"{program.name}: {output}"
