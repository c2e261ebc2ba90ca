"""What the bench of replicas keeps and writes: all figures that it measures, one row for each size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import replicas, replicas_page
from bench.provenance import about


def test_what_is_measured_is_kept_by_size_and_written_into_the_page(tmp_path: Path) -> None:
    """With a real server and a few entries; the second run of a size replaces the first."""
    note = about("python -m bench.replicas --entries 50 --write")
    one = replicas.measured(50, 5) | note
    assert one["converged_clock_s"] > 0 and one["changes"] == 2000
    path, page = tmp_path / "kept.json", tmp_path / "replicas.md"
    replicas_page.kept([one | {"entries": 90}, one | {"write_cpu_us": 1.0}], path)
    figures = replicas_page.kept([one], path)
    assert [each["entries"] for each in figures] == [50, 90]
    assert figures == json.loads(path.read_text("utf-8"))
    assert figures[0]["write_cpu_us"] == one["write_cpu_us"]

    page.write_text("before <!-- bench:replicas -->\nold\n<!-- /bench:replicas --> after", "utf-8")
    replicas_page.write(figures, page)
    text = page.read_text("utf-8")
    assert "old" not in text and text.startswith("before") and text.endswith("after")
    assert f"{one['converged_clock_s']:.2f} for 2,000" in text
    assert note["command"] in text


def test_the_page_has_a_place_for_it(tmp_path: Path) -> None:
    assert "<!-- bench:replicas -->" in replicas_page.PAGE.read_text("utf-8")
    other = tmp_path / "other.md"
    other.write_text("nothing", "utf-8")
    with pytest.raises(ValueError, match="marks"):
        replicas_page.write([], other)
