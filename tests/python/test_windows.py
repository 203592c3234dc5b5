"""Windows by modality and body part: tables, and levels against pydicom's."""

import io

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, apply_windowing

from medsearch_py import card, pixels
from medsearch_py.golden.windows import TABLE
from medsearch_py.windows import LINEAR, LINEAR_EXACT, SIGMOID, Voi, WindowsError, levels, parse, read

CT = {"tags": {"modality": "CT", "body_part": "CHEST"}}


def test_a_table_is_one_line():
    assert str(parse(TABLE)) == "CT/HEAD:40,80.5;CT:-600,1500;CR:file"
    assert str(parse([{"use": "fixed", "center": -0.0, "width": 1e7}, {"use": "percentile"}][:1])) == "*:0,10000000"
    assert str(parse([{"center": 0.00001, "width": 1}])) == "*:0.00001,1"
    assert parse([{"modality": "CT", "use": "percentile"}, {"use": "percentile"}]) == pixels.BY_PERCENTILE
    space = {"weights_sha256": "00", "layers": ["a"], "pooling": "p", "views": ["whole"], "dimension": 2}
    space |= {"pixel_pipeline": "p", "id": "x"}
    assert card.with_windows(space, pixels.BY_PERCENTILE) == space
    ruled = card.with_windows(space, parse(TABLE))
    assert ruled["pixel_pipeline"] == "p windows=CT/HEAD:40,80.5;CT:-600,1500;CR:file"
    assert ruled["id"] == card.space_id(ruled) != card.space_id(space)


def test_the_first_rule_that_fits_decides():
    table = parse([*TABLE[:3], {"modality": "MR", "use": "percentile"}, {"center": 1, "width": 2}])
    for modality, body_part, use, center in [
        ("CT", "HEAD", "fixed", 40),
        ("CT", "CHEST", "fixed", -600),
        ("CT", None, "fixed", -600),
        ("CR", "HEAD", "file", None),
        ("MR", None, "percentile", None),
        (None, None, "fixed", 1),
    ]:
        rule = table.rule(modality, body_part)
        assert (rule.use, rule.voi and rule.voi.center) == (use, center)


@pytest.mark.parametrize(
    "written",
    [
        {},
        [{"modality": "CT"}],
        [{"modality": "CT", "center": 1}],
        [{"use": "file", "center": 1, "width": 2}],
        [{"use": "sigmoid"}],
        [{"modalty": "CT", "use": "file"}],
        [{"modality": "C;T", "use": "file"}],
        [{"modality": 7, "use": "file"}],
        [{"body_part": "CHEST", "use": "file"}],
        [{"center": 1, "width": 0.5}],
        [{"center": True, "width": 2}],
        [{"center": 1e10, "width": 2}],
        [{"center": float("nan"), "width": 2}],
        [{"use": "file"}, {"modality": "CT", "use": "percentile"}],
        [{"modality": f"M{at}", "use": "file"} for at in range(65)],
    ],
)
def test_odd_tables_are_refused(written):
    with pytest.raises(WindowsError):
        parse(written)


def test_a_file_that_is_no_table_is_named(tmp_path):
    for content in (b"", b"{", b"\xff", b"[]" + b" " * (64 << 10)):
        (tmp_path / "windows.json").write_bytes(content)
        with pytest.raises(WindowsError, match=r"windows\.json"):
            read(tmp_path / "windows.json")
    with pytest.raises(WindowsError, match="absent"):
        read(tmp_path / "absent")


@pytest.mark.parametrize("function", [LINEAR, LINEAR_EXACT, SIGMOID])
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_levels_are_those_of_pydicom(name, function):
    """Within rounding: pydicom gives floating point over the range of the stored values."""
    dataset = pydicom.dcmread(get_testdata_file(name))
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = "200.5", "1100", function
    file = io.BytesIO()
    dataset.save_as(file)
    table = parse([{"modality": dataset.Modality, "use": "file"}])
    shown, window = pixels.to_8_bit(pixels.decode(file.getvalue()), table)
    assert window["kind"] == "file" and window.get("sigmoid", False) == (function == SIGMOID)
    values = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    largest = 1 << (dataset.BitsStored - dataset.PixelRepresentation)
    darkest = -largest if dataset.PixelRepresentation else 0
    darkest, brightest = darkest * slope + intercept, (largest - 1) * slope + intercept
    expected = (values - darkest) / (brightest - darkest) * 255
    assert np.abs(shown - expected).max() <= 0.5 + 1e-6
    assert len(np.unique(shown)) > 100


def test_a_fixed_window_is_over_values_of_the_modality():
    table = parse(TABLE)
    assert table.window(CT, (1.0, -1024.0), None) == {"kind": "fixed", "low": -326.0, "high": 1173.0}
    assert table.window(CT, (-1.0, 0.0), None) == {"kind": "fixed", "low": -149.0, "high": 1350.0}
    assert table.window(CT, None, None) is None and table.window({}, (1.0, 0.0), None) is None
    assert table.window(CT, (1e-320, 0.0), None) is None
    own = {"tags": {"modality": "CR"}}
    assert table.window(own, (1.0, 0.0), None) is None
    assert table.window(own, (1.0, 0.0), Voi(40.0, 0.5)) is None
    assert levels(np.array([[-150, 3000]]), {"low": -150.0, "high": 3000.0, "sigmoid": True}).tolist() == [[30, 225]]


def test_files_get_what_the_table_says(expected):
    kinds = {name: file.get("ruled", {}).get("kind") for name, file in expected.items() if name[:3] in ("ct-", "cr-")}
    percentile = {"cr-12-window-zero.dcm", "cr-12-window-unknown.dcm", "cr-12.dcm", "ct-12-by-frame.dcm"}
    assert {name for name, kind in kinds.items() if kind is None} == percentile
    assert {kind for name, kind in kinds.items() if name.startswith("ct-")} == {"fixed", None}
    assert {kind for name, kind in kinds.items() if name.startswith("cr-")} == {"file", None}
    assert expected["ct-12-signed.dcm"]["ruled"] == {"kind": "fixed", "low": -1450.0, "high": 49.0}
    # Its own values are those of the table; colours and what is no DICOM have no modality.
    assert expected["ct-12-lut.dcm"]["ruled"] == {"kind": "fixed", "low": -1350.0, "high": 149.0}
    assert "ruled" not in expected["rgb.dcm"] and "ruled" not in expected["grey-16.png"]
