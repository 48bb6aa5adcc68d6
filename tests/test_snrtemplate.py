"""The S/N template: read onto a grid, refused where it does not fit, written so that it reads back."""

from __future__ import annotations

import numpy as np
import pytest

from anna_onnx.errors import AnnaError
from anna_onnx.resampling import Grid
from anna_onnx.snrtemplate import read_template, write_template

GRID = Grid(np.linspace(6625, 6825, 1001))


def test_a_template_is_interpolated_whatever_the_order_of_its_lines(tmp_path):
    path = tmp_path / "sn.template"
    path.write_text("6800 2.0\n6600 1.0\n6900 3.0\n", encoding="utf-8")
    assert read_template(path, GRID) == pytest.approx(np.interp(GRID.wavelength, [6600, 6800, 6900], [1, 2, 3]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("6630 1\n6900 1\n", r"covers 6630\.0-6900\.0 Å, needed 6625\.0-6825\.0"),
        ("6600 -1\n6900 1\n", "must be positive"),
        ("6600 0\n6900 0\n", "must be positive"),
        ("6600\n6900\n", "two columns"),
        ("wavelength snr\n", "two columns"),
        ("# nothing\n", "covers nothing"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_template_of_the_grid_is_refused(tmp_path, text, message):
    path = tmp_path / "sn.template"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AnnaError, match=message):
        read_template(path, GRID)


def test_zero_outside_of_the_grid_does_not_matter(tmp_path):
    path = tmp_path / "sn.template"
    path.write_text("6600 0\n6900 1\n", encoding="utf-8")
    assert read_template(path, GRID).min() > 0


def test_a_template_reads_back_as_it_was_written(tmp_path):
    relative = 1 + 0.3 * np.sin(GRID.wavelength / 20)
    write_template(tmp_path / "sn.template", GRID, relative, "measured\nby hand")
    assert read_template(tmp_path / "sn.template", GRID) == pytest.approx(relative, rel=1e-5)
