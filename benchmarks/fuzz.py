"""Feeds every reader of files that people bring with damaged bytes, guided by the code that they reach (atheris).

    uv pip install atheris
    python -m benchmarks.fuzz [--seconds 600] [--readers rec,bin] [--found FOLDER]

Each reader runs in a process of its own with 4 GB at most. Whatever is no error of the reader's own, takes over 20
seconds of the processor, or ends the process is a fault; the bytes are kept in FOLDER. Prints the table of
docs/guarantees.md.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PACKAGES = ["data_manifests", "labelers", "pipeline", "training"]
SLOW_SECONDS = 20
"""Of the processor: other work beside does not count."""
LIMITS = (
    "-timeout=300",
    "-report_slow_units=300",
    "-rss_limit_mb=4096",
    "-max_len=65536",
    "-print_final_stats=1",
    "-verbosity=1",
)


def fuzz(name: str, seconds: int, found: Path) -> str:
    """Run one reader in a process of its own; its row of the table."""
    words = [
        sys.executable,
        "-m",
        "benchmarks.fuzz",
        "--inside",
        name,
        "--seconds",
        str(seconds),
        "--found",
        str(found),
    ]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    tried = re.findall(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    faults = sorted(path.name for path in found.glob(f"{name}-*"))
    if done.returncode and not faults:
        faults = [done.stderr.strip().splitlines()[-1][:120]]
    return (
        f"| `{name}` | {int(tried[-1]) if tried else 0:,} | {covered[-1] if covered else '?'} | {len(faults)} |"
        + "".join(f" {fault}" for fault in faults)
    )


def run_inside(name: str, seconds: int, found: Path) -> None:
    """Fuzz in this process."""
    import atheris  # noqa: PLC0415 - no part of the environment

    with atheris.instrument_imports(include=PACKAGES):
        from benchmarks.fuzz_readers import READERS  # noqa: PLC0415 - instrumented

    reader = READERS[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        place, corpus = Path(folder) / "read", Path(folder) / "corpus"
        place.mkdir()
        corpus.mkdir()
        for number, content in enumerate(reader.seeds()):
            (corpus / str(number)).write_bytes(content)
        path = place / reader.file

        def read(data: bytes) -> None:
            path.write_bytes(data)
            began = time.process_time()
            with contextlib.suppress(*reader.errors):
                reader.read(path)
            if (took := time.process_time() - began) > SLOW_SECONDS:
                raise TimeoutError(f"{took:.0f} s of the processor for {len(data)} bytes")

        sys.stderr.flush()
        words = [sys.argv[0], str(corpus), *LIMITS, f"-max_total_time={seconds}", f"-artifact_prefix={found}/{name}-"]
        atheris.Setup(words, read)
        atheris.Fuzz()


def main() -> None:
    """Fuzz and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="a reader")
    parser.add_argument("--readers", default="", help="names separated by commas; left out: all")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"), help="folder of the bytes that are faults")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.found.mkdir(parents=True, exist_ok=True)
    if given.inside:
        run_inside(given.inside, given.seconds, given.found.absolute())
        return
    from benchmarks.fuzz_readers import READERS  # noqa: PLC0415 - loaded anew, instrumented, where it is fuzzed

    names = given.readers.split(",") if given.readers else list(READERS)
    print("| reader | inputs | coverage | faults |\n| --- | --- | --- | --- |")
    with ThreadPoolExecutor(max_workers=2) as pool:
        for row in pool.map(lambda name: fuzz(name, given.seconds, given.found.absolute()), names):
            print(row, flush=True)


if __name__ == "__main__":
    main()
