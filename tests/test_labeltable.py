"""Tables of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from anna_onnx.errors import TrainingSetError
from anna_onnx.labeltable import read_labels

NAMES = ["alpha", "beta", "gamma"]


@pytest.mark.parametrize("suffix", ["csv", "ecsv", "fits", "fit", "fits.gz", "vot"])
def test_labels_come_in_every_format_with_their_units(tmp_path: Path, suffix: str) -> None:
    labels = Table({"id": NAMES, "teff": [5.772, 4.5, 6.5], "other": [1, 2, 3], "note": ["a", "b", "c"]})
    labels["teff"].unit = "kK"
    labels["logg"] = MaskedColumn([4.4, 0, -9999], mask=[False, True, False])
    path = tmp_path / f"labels.{suffix}"
    labels.write(path, **({"format": kinds[suffix]} if suffix in (kinds := {"vot": "votable", "fit": "fits"}) else {}))
    found = read_labels(path)
    assert found.label_names == ("teff", "logg")
    assert found.label_units[0] == ("K" if suffix == "csv" else "kK")
    np.testing.assert_allclose(found.labels[:, 0], [5.772, 4.5, 6.5], rtol=1e-6)
    assert list(np.isnan(found.labels[:, 1])) == [False, True, True]
    assert found.key == "id"
    assert found.keys == NAMES


def test_labels_can_be_chosen_and_renamed(tmp_path: Path) -> None:
    Table({"star": [1, 2], "[Fe/H]": [0.1, 0.2], "age": [1.0, 2.0]}).write(tmp_path / "labels.csv")
    found = read_labels(tmp_path / "labels.csv", ["feh=[Fe/H]", "age"])
    assert (found.label_names, found.label_units, found.keys) == (("feh", "age"), ("dex", ""), ["1", "2"])
    with pytest.raises(TrainingSetError, match="cannot name a label; rename it"):
        read_labels(tmp_path / "labels.csv", ["[Fe/H]"])
    with pytest.raises(TrainingSetError, match="no column 'ages' of numbers; did you mean 'age'"):
        read_labels(tmp_path / "labels.csv", ["ages"])
    with pytest.raises(TrainingSetError, match="needed 'name'"):
        read_labels(tmp_path / "labels.csv", key="name")


@pytest.mark.parametrize("content", [b"", b"\0\1\2", b"only words here\n"])
def test_a_table_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(TrainingSetError, match=r"labels\.csv"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(TrainingSetError, match="no such file"):
        read_labels(tmp_path / "none.csv")
