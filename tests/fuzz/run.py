"""`make fuzz`: each target for a bounded time, by coverage (atheris), from the seeds and what was kept before.

A child for each target, since libFuzzer ends its process. An input that fails is kept in the corpus, so that the next
`make test` fails until it is mended; `--keep` also keeps the shortest of those that reached new code.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.corpus import keep, kept

_MOST_BYTES = 4_096
_KEPT, _KEPT_BYTES = 100, 600  # of what only reaches new code: the shortest
_ONE = "--one"


def main() -> int:
    """Exit status 1 where an input failed."""
    if sys.argv[1:2] == [_ONE]:
        _fuzz(*sys.argv[2:])
    parser = argparse.ArgumentParser(description="Fuzz by coverage.")
    parser.add_argument("targets", nargs="*", help="all, if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true", help="keep what reaches new code, too")
    given = parser.parse_args()
    from tests.fuzz.seeds import seeds  # not in the children: what they import is instrumented as it is imported

    beginnings = seeds()
    failed = [name for name in given.targets or beginnings if not _target(name, beginnings[name], given)]
    for name in failed:
        sys.stdout.write(f"{name}: failed; the input is in tests/fuzz/corpus/{name}.txt\n")
    return bool(failed)


def _fuzz(target: str, *options: str) -> None:
    """In a child: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["farthing"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *options], TARGETS[target])
    atheris.Fuzz()


def _target(name: str, beginnings: list[bytes], given: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory() as home:
        met, begun, found = (Path(home) / one for one in ("met", "begun", "found"))
        for folder in (met, begun, found):
            folder.mkdir()
        for number, one in enumerate([*beginnings, *kept(name)]):
            (begun / str(number)).write_bytes(one)
        sys.stderr.write(f"== {name}\n")
        child = [sys.executable, "-m", "tests.fuzz.run", _ONE, name, f"-max_len={_MOST_BYTES}", "-timeout=20"]
        done = subprocess.run(
            [
                *child,
                f"-max_total_time={given.seconds}",
                f"-artifact_prefix={found}/",
                "-print_final_stats=1",
                met,
                begun,
            ]
        )
        new = [one.read_bytes() for one in found.iterdir()]
        if given.keep and not done.returncode:
            reached = sorted((one.read_bytes() for one in met.iterdir()), key=len)
            new += [one for one in reached[:_KEPT] if len(one) <= _KEPT_BYTES]
        if new:
            keep(name, [*kept(name), *new])
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
