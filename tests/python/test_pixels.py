"""The pixel pipeline against hand-made answers, and step by step against plain formulas."""

import io

import numpy as np
import pytest
from PIL import Image

from medsearch_py import dicom, pixels, png, tiny_png
from medsearch_py.golden.picture import alpha, colour, grey
from medsearch_py.problems import ImageProblem
from medsearch_py.raster import Raster, frame_digest

GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6


def decode(folder, name) -> Raster:
    return pixels.decode((folder / name).read_bytes())


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("kind", "depth"),
    [
        (GREY, 1),
        (GREY, 2),
        (GREY, 4),
        (GREY, 8),
        (GREY, 16),
        (RGB, 8),
        (RGB, 16),
        (GREY_ALPHA, 8),
        (GREY_ALPHA, 16),
        (RGB_ALPHA, 8),
        (RGB_ALPHA, 16),
    ],
)
def test_every_png_kind_gives_its_samples(kind, depth, interlaced):
    levels = 1 << depth
    plain = grey(levels) if kind in (GREY, GREY_ALPHA) else colour(levels)
    opaque = np.full(plain.shape[:2], levels - 1)
    samples = np.dstack([plain, opaque]) if kind in (GREY_ALPHA, RGB_ALPHA) else plain
    raster = png.decode(tiny_png.encode(samples, depth, kind, interlaced=interlaced))
    if depth < 8:
        plain = plain * 255 // (levels - 1)
    elif depth == 16 and kind in (GREY_ALPHA, RGB_ALPHA):
        plain = (plain * 255 + 32767) // 65535
    assert (raster.samples == plain).all()


def test_alpha_is_laid_over_black():
    samples = np.dstack([colour(65536), alpha(65536)])
    raster = png.decode(tiny_png.encode(samples, 16, RGB_ALPHA))
    c8, a8 = ((values * 255 + 32767) // 65535 for values in (colour(65536), alpha(65536)))
    assert (raster.samples == (c8 * a8[..., None] + 127) // 255).all()


def test_key_colour_is_black_and_compared_at_full_depth():
    values = np.full((4, 4), 0x1234)
    values[0, 0] = 0x1235
    raster = png.decode(tiny_png.encode(values, 16, GREY, transparency=b"\x12\x34"))
    assert raster.samples[0, 0] == (0x1235 * 255 + 32767) // 65535
    assert raster.samples[1:].max() == 0


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation(golden, turn, expected):
    upright = decode(golden, "orientation-1.jpg").samples
    assert (decode(golden, f"orientation-{turn}.jpg").samples == expected(upright)).all()


def test_inks_become_light(golden):
    """CMYK and YCCK of the same inks, against the inks that were put in."""
    from medsearch_py.golden.jpeg_files import _inks

    inks = 255 - np.asarray(_inks(Image.fromarray(colour(256).astype(np.uint8)))).astype(int)
    light = (inks[..., :3] * inks[..., 3:] + 127) // 255
    for name in ("cmyk.jpg", "ycck.jpg"):
        assert np.abs(decode(golden, name).samples.astype(int) - light).mean() < 2


@pytest.mark.parametrize("name", ["grey", "rgb-444", "rgb-422", "rgb-420", "rgb-progressive", "rgb-restart"])
def test_jpeg_shows_the_picture(golden, name):
    raster = decode(golden, f"{name}.jpg")
    shown = grey(256) if name == "grey" else colour(256)
    assert raster.samples.shape == shown.shape
    assert np.abs(raster.samples.astype(int) - shown).mean() < 5


def test_same_pixels_same_digest_in_any_container(expected):
    for group in (
        [
            "mono2-12",
            "mono2-12-rle",
            "mono2-12-implicit",
            "mono2-12-deflated",
            "mono2-12-big-endian",
            "mono2-12-frames",
            "mono2-12-overlay-bits",
            "mono1-12-jpeg-lossless-57",
            "mono1-12-jpeg-lossless-70",
        ],
        ["mono2-16", "mono2-16-jpeg-lossless-57", "mono2-16-jpeg-lossless-70"],
        ["rgb", "rgb-planar", "rgb-rle"],
    ):
        assert len({expected[f"{name}.dcm"]["samples_digest"] for name in group}) == 1
    assert expected["grey-16.png"]["samples_digest"] == expected["mono2-16.dcm"]["samples_digest"]
    assert expected["grey-8.png"]["samples_digest"] != expected["grey-16.png"]["samples_digest"]


def test_every_frame_is_found_however_it_is_coded(golden):
    def frames(name):
        data = (golden / name).read_bytes()
        return [pixels.decode(data, frame).samples for frame in range(1, pixels.frames(data) + 1)]

    odd = grey(256)[:95, :127], grey(256)[::-1][:95, :127], grey(256)[:, ::-1][:95, :127]
    for name in ("mono2-8-frames.dcm", "mono2-8-frames-big-endian.dcm"):
        assert np.array_equal(frames(name), odd)
    assert np.array_equal(frames("bits-frames.dcm"), np.array(odd) > 127)
    for coding in ("", "-rle", "-jpeg-ls", "-deflated"):
        assert np.array_equal(frames(f"mono2-12-frames{coding}.dcm"), [grey(4096), grey(4096)[::-1]])
    for name in ("table", "marked", "counted", "extended"):
        found = np.array(frames(f"frames-{name}-jpeg.dcm")).astype(int)
        assert np.abs(found - odd).mean() < 5


def test_a_frame_that_is_not_there_is_refused(golden):
    for name, frame in (("mono2-12-frames.dcm", 3), ("mono2-12.dcm", 2), ("grey-8.png", 2), ("grey.jpg", 2)):
        with pytest.raises(ImageProblem, match="there is no frame") as caught:
            pixels.decode((golden / name).read_bytes(), frame)
        assert caught.value.kind == "invalid-request"


def test_frames_have_digests_of_their_own():
    """The same stands in src/domain/frame.rs: archives know their images by it."""
    file = "07" * 32
    assert frame_digest(file, 1) == file
    assert frame_digest(file, 2) == "07aac82864ec5bd4935dcb6d62b0afabfba102ea1240e8cb8063abf5eb6ba922"
    assert frame_digest(file, 10_000) == "f3e2fe4599539b40ef3d04487bd971d7515f4ea0c403837637c19295bf7ba1b2"


def test_wanted_frames():
    wanted = {which: [list(pixels.wanted_frames(which, count)) for count in (1, 2, 3)] for which in pixels.FRAMES}
    assert wanted == {"first": [[1]] * 3, "middle": [[1], [1], [2]], "all": [[1], [1, 2], [1, 2, 3]]}


def test_monochrome1_and_negative_slope_turn_over_once(golden, expected):
    plain, window = pixels.to_8_bit(decode(golden, "mono2-12.dcm"))
    turned, same = pixels.to_8_bit(decode(golden, "mono1-12.dcm"))
    assert (turned == 255 - plain).all()
    assert window == same
    # MONOCHROME1 with a negative slope: turned twice.
    assert expected["mono1-16-negative-slope.dcm"]["raster8_sha256"] == expected["mono2-16.dcm"]["raster8_sha256"]
    assert (pixels.to_8_bit(decode(golden, "mono1-8.dcm"))[0] == 255 - grey(256)).all()


def test_dicom_palettes_and_colour_spaces(golden):
    assert (decode(golden, "palette-16.dcm").samples == decode(golden, "palette-8.dcm").samples).all()
    assert (decode(golden, "palette-8.dcm").samples == decode(golden, "palette-8.png").samples).all()
    rgb = decode(golden, "rgb.dcm").samples.astype(int)
    assert (rgb == colour(256)).all()
    for name in ("ybr-full.dcm", "ybr-422-jpeg.dcm"):
        assert np.abs(decode(golden, name).samples - rgb).mean() < 6


def test_dicom_facts(golden):
    assert decode(golden, "mono2-12.dcm").facts == {
        "patient_id": "GOLDEN-1",
        "issuer": "TEST",
        "study_uid": "2.25.1001.1",
        "series_uid": "2.25.1001.2",
        "sop_uid": "2.25.1001.3",
        "view": "PA",
        "sex": "F",
        "age": "45",
        "tags": {"modality": "DX", "body_part": "CHEST"},
    }


@pytest.mark.parametrize("values", [grey(65536), grey(4096) - 1024, (grey(65536) > 65000) * 5 + 7])
@pytest.mark.parametrize("padding", [None, (7, 7), (-2000, -2000), (-100, 300), (5, 1 << 17)])
def test_window_is_the_one_defined(values, padding):
    counted = np.sort(values[(values < padding[0]) | (values > padding[1])] if padding else values.ravel())
    # A picture of nothing but padding is counted whole.
    counted = counted if counted.size else np.sort(values.ravel())
    n = len(counted)
    distinct = np.unique(counted)
    at_or_below = np.searchsorted(counted, distinct, side="right")
    low = int(distinct[at_or_below * 1000 > 5 * n][0])
    high = int(distinct[at_or_below * 1000 >= 995 * n][0])
    if high <= low:
        low, high = int(counted[0]), int(counted[-1])
    width = max(high - low, 1)
    shown, window = pixels.percentile_window(values, padding)
    assert window == {"kind": "percentile", "low": low, "high": high}
    assert (shown == np.clip(((values - low) * 255 + width // 2) // width, 0, 255)).all()


def test_padding_is_not_counted(expected):
    assert expected["mono2-16-padding.dcm"]["window"]["low"] >= 1500
    assert expected["mono2-16-signed-padding.dcm"]["window"]["low"] >= 200
    assert expected["mono2-16-padding-range.dcm"]["window"] == expected["mono2-16-padding.dcm"]["window"]
    assert expected["mono2-16-signed-padding-range.dcm"]["window"]["low"] >= 200


def test_fits():
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    assert pixels.fit_and_resize(wide, 8, 8, "crop").min() == 200
    padded = pixels.fit_and_resize(wide, 30, 30, "pad")
    assert padded[:9].max() == 0
    assert padded[15, 15] == 200
    assert pixels.fit_and_resize(wide, 8, 8).shape == (8, 8)
    with pytest.raises(ValueError, match="unknown fit"):
        pixels.fit_and_resize(wide, 8, 8, "stretch")


def test_grey_and_rgb_agree():
    values = grey(256).astype(np.uint8)
    assert (pixels.as_grey(pixels.as_rgb(values)) == values).all()
    tinted = colour(256).astype(np.uint8)
    assert (pixels.as_grey(tinted) == np.asarray(Image.fromarray(tinted).convert("L"))).all()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("constant.png", "constant-image"),
        ("constant-16.png", "constant-image"),
        ("one-pixel.png", "constant-image"),
        ("constant.dcm", "constant-image"),
        ("truncated.png", "invalid-image"),
        ("truncated.jpg", "invalid-image"),
        ("truncated.dcm", "invalid-image"),
        ("words.png", "unsupported-media"),
        ("empty.png", "unsupported-media"),
    ],
)
def test_bad_files_are_named(golden, name, problem):
    with pytest.raises(ImageProblem) as caught:
        pixels.prepare((golden / name).read_bytes(), 32, 32)
    assert caught.value.kind == problem


def test_sizes_are_refused_from_the_header():
    header = tiny_png.encode(np.zeros((1, 1)), 8, GREY)
    for size in (b"\x00\x00\x4e\x20" * 2, b"\x00\x00\x80\x00\x00\x00\x00\x01"):
        with pytest.raises(ImageProblem) as caught:
            pixels.decode(header[:16] + size + header[24:])
        assert caught.value.kind == "too-many-pixels"


def test_gif_is_not_read():
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "GIF")
    with pytest.raises(ImageProblem) as caught:
        pixels.decode(file.getvalue())
    assert caught.value.kind == "unsupported-media"


def test_every_cut_of_a_file_is_refused_or_read_but_never_crashes(golden):
    for name in ("rgb-16-adam7.png", "rgb-progressive.jpg", "mono2-12-rle.dcm", "palette-8-alpha.png"):
        data = (golden / name).read_bytes()
        for end in range(0, len(data), max(1, len(data) // 60)):
            try:
                pixels.prepare(data[:end], 16, 16)
            except ImageProblem:
                continue


def test_ages_are_whole_years():
    ages = {"045Y": "45", "006M": "0", "030M": "2", "012W": "0", "060W": "1", "010D": "0", "45": "", "Mueller 4Y": ""}
    assert {age: dicom.years(age) for age in ages} == ages
