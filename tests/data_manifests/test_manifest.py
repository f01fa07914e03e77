"""Data set manifests: the shipped ones, a user's own, what is wrong in them, and what a data set is known by."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_manifests.identity import DataIdentity, hash_content, read_identity
from data_manifests.manifest import (
    FOLDER,
    Anchor,
    Centres,
    Format,
    Manifest,
    ManifestError,
    check_counts,
    load_manifest,
    shipped_names,
)
from data_manifests.recordio.record_file import RecordFile
from data_manifests.storage.toml_file import TomlFileError, check

MINIMAL = 'name = "mine"\nformat = "image_folder"\nroot = "photos"\n'


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIQA_DATA", "FIQA_MODELS", "FIQA_WORKSPACE", "FIQA_CACHE"):
        monkeypatch.delenv(name, raising=False)


def write_manifest(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def complaint(folder: Path, text: str) -> str:
    path = write_manifest(folder, text)
    with pytest.raises(TomlFileError) as caught:
        load_manifest(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- the shipped ones -------------------------------------------------------------------------------------------------

COUNTS = {
    "ms1mv2": {"images": 5_822_653, "identities": 85_742},
    "casia_webface": {"images": 490_623, "identities": 10_572},
    "sample": {"images": 256, "identities": 8},
    "lfw": {"pairs": 6_000},
    "cfp_fp": {"pairs": 7_000},
    "cplfw": {"pairs": 6_000},
    "calfw": {"pairs": 6_000},
    "agedb_30": {"pairs": 6_000},
    "xqlfw": {"pairs": 6_000},
    "ijbc": {"images": 469_375, "templates": 23_124, "pairs": 15_658_489},
    "adience": {},
    "tinyface": {},
    "wider_face": {},
}


def test_every_data_set_of_the_papers_is_shipped() -> None:
    assert set(shipped_names()) == set(COUNTS)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_shipped_manifest(name: str) -> None:
    manifest = load_manifest(name)
    assert manifest.name == name
    assert {field: getattr(manifest, field) for field in COUNTS[name]} == COUNTS[name]
    assert manifest.licence
    assert manifest.download
    assert manifest.root.is_absolute()
    assert hash(manifest) == hash(load_manifest(name))
    if name != "sample":
        assert manifest.homepage.startswith("http")
        assert "FIQA_DATA" in (FOLDER / f"{name}.toml").read_text().split("name =")[0]


def test_fiqa_data_moves_the_shipped_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_manifest("lfw").data_path == tmp_path / "data" / "faces_emore" / "lfw.bin"
    monkeypatch.setenv("FIQA_DATA", str(tmp_path / "elsewhere"))
    assert load_manifest("ms1mv2").data_path == tmp_path / "elsewhere" / "faces_emore" / "train.rec"
    assert load_manifest(FOLDER / "ms1mv2.toml").root == tmp_path / "elsewhere" / "faces_emore"


def test_the_sample_lies_in_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_manifest("sample").root == tmp_path / "workspace" / "sample" / "_source"
    monkeypatch.setenv("FIQA_WORKSPACE", str(tmp_path / "w"))
    assert load_manifest("sample").root == tmp_path / "w" / "sample" / "_source"
    assert load_manifest("sample", tmp_path / "given").root == tmp_path / "given" / "sample" / "_source"


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ManifestError, match=r"no data set is called 'ms1m'.*did you mean ms1mv2.*give the path"):
        load_manifest("ms1m")


# --- a user's own -----------------------------------------------------------------------------------------------------


def test_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOS", "deep/er")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for root, expected in {
        "photos": tmp_path / "photos",
        "${PHOTOS}/x": tmp_path / "deep/er/x",
        "$PHOTOS": tmp_path / "deep/er",
        "~/photos": tmp_path / "home/photos",
        "/photos": Path("/photos"),
    }.items():
        path = write_manifest(tmp_path, MINIMAL.replace('"photos"', f'"{root}"'))
        assert load_manifest(path).root == expected
        assert load_manifest(str(path)).root == expected


def test_data_need_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my photos!" / "anna").mkdir(parents=True)
    (tmp_path / "faces").mkdir()
    for name in ("faces/train.rec", "faces/other.rec", "faces/lfw.bin"):
        (tmp_path / name).write_bytes(b"")
    told = {
        "my photos!": ("my_photos_", Format.IMAGE_FOLDER, "my photos!"),
        "faces": ("faces", Format.RECORDIO, "faces/train.rec"),
        "faces/other.rec": ("faces", Format.RECORDIO, "faces/other.rec"),
        "faces/lfw.bin": ("lfw", Format.VERIFICATION, "faces/lfw.bin"),
    }
    for place, (name, form, data) in told.items():
        found = load_manifest(tmp_path / place)
        assert (found.name, found.format, found.data_path) == (name, form, tmp_path / data)
    monkeypatch.chdir(tmp_path)
    assert load_manifest("faces").root == tmp_path / "faces"
    (tmp_path / "lfw").mkdir()
    assert load_manifest("lfw").file == FOLDER / "lfw.toml"  # a name that is shipped is no folder
    assert load_manifest("./lfw").root == tmp_path / "lfw"
    (tmp_path / "...").mkdir()
    assert load_manifest(tmp_path / "...").name == "images"


def test_a_path_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path, MINIMAL)
    monkeypatch.chdir(tmp_path)
    assert load_manifest("mine.toml").root == tmp_path / "photos"


def test_all_choices(tmp_path: Path) -> None:
    text = (
        'name = "mine"\nformat = "recordio"\nroot = "r"\nrecord_file = "a.rec"\nimages = 5\nidentities = 2\n'
        'recognition_model = "glintr100"\npose_model = "fr_pose"\nfactors_model = "factors_mini"\n'
        'centres = "head"\nhead = "h.npy"\nhead_tensor = "w"\nhead_layout = "classes_first"\nanchor = "plain_ratio"\n'
    )
    manifest = load_manifest(write_manifest(tmp_path, text))
    assert manifest.data_path == tmp_path / "r" / "a.rec"
    assert (manifest.centres, manifest.anchor) == (Centres.HEAD, Anchor.PLAIN_RATIO)
    assert manifest.overrides() == {
        "recognition_model": "glintr100",
        "pose_model": "fr_pose",
        "factors_model": "factors_mini",
        "centres": "head",
        "head": str(tmp_path / "h.npy"),
        "head_tensor": "w",
        "head_layout": "classes_first",
        "anchor": "plain_ratio",
    }
    assert load_manifest(write_manifest(tmp_path, MINIMAL)).overrides() == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL.replace('root = "photos"\n', ""), "field `root` is missing: add it"),
        (MINIMAL + "image = 5\n", "there is no field `image` (did you mean images?): correct or remove it"),
        (MINIMAL.replace("image_folder", "folder"), "field `format`: input should be 'recordio', 'image_folder'"),
        (MINIMAL + 'images = "many"\n', "field `images`: input should be a valid integer, not 'many'"),
        (MINIMAL + "images = true\n", "field `images`"),
        (MINIMAL + "images = 0\n", "field `images`: input should be greater than 0, not 0"),
        (MINIMAL.replace('"photos"', "7"), "field `root`"),
        (MINIMAL.replace('"mine"', '"../mine"'), "field `name`"),
        (MINIMAL + 'centres = "head"\n', "add `head`"),
        (MINIMAL + 'head = "h.npy"\n', "`centres` = head only"),
        (MINIMAL + 'head_tensor = "weight"\n', "`head_tensor` is used with `centres` = head only"),
        (
            MINIMAL + 'centres = "head"\nhead = "h.onnx"\n',
            "`head` must end in .npy, .safetensors, .pt, .pth, not h.onnx",
        ),
        (MINIMAL + 'pairs_file = "p.txt"\n', "`pairs_file` belongs to verification sets, not to image_folder"),
        (
            MINIMAL + 'images_folder = "p"\n',
            "`images_folder` belongs to sets with `pairs_file` or templates: set `root`",
        ),
        (MINIMAL + 'record_file = "p.rec"\n', "`record_file` belongs to recordio and verification"),
        (MINIMAL.replace("image_folder", "verification"), "either `record_file` (a .bin) or `pairs_file`"),
        (MINIMAL + 'recognition_model = "w600k"\n', "field `recognition_model`: no network is called 'w600k' (did you"),
        (
            MINIMAL + 'recognition_model = "fr_pose"\n',
            "fr_pose is a network for pose, not recognition: use one of ",
        ),
        (MINIMAL + 'pose_model = "face_landmark"\n', "did you mean face_landmarker?"),
        (MINIMAL.replace("photos", "$NOT_SET_HERE/x"), "NOT_SET_HERE, which is not set: set it"),
        (MINIMAL + 'file = "x"\n', "there is no field `file`"),
        ("name = mine\n", "is not valid TOML"),
        ("", "field `name` is missing: add it; field `format` is missing: add it"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    message = complaint(tmp_path, text)
    assert said in message
    assert "pydantic" not in message


@pytest.mark.parametrize("folder", ["", ".", "/tmp", "../..", "a/../../b"])
def test_a_folder_of_the_workspace_lies_in_it(tmp_path: Path, folder: str) -> None:
    path = write_manifest(tmp_path, MINIMAL.replace("photos", f"workspace:{folder}"))
    with pytest.raises(ManifestError, match=re.escape(f'`root = "workspace:{folder}"` is no folder of the workspace')):
        load_manifest(path)


def test_a_file_that_nests_deep_is_named(tmp_path: Path) -> None:
    assert "it nests too deep" in complaint(tmp_path, "a = " + "[" * 5000 + "]" * 5000)


def test_a_name_is_one_that_every_file_system_takes(tmp_path: Path) -> None:
    for name in ("a" * 101, "../a", "/a", "..", "a\\nb", "<b>"):
        assert "field `name`" in complaint(tmp_path, MINIMAL.replace('"mine"', f'"{name}"'))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TomlFileError, match=r"nowhere\.toml cannot be read: No such file.*check the path"):
        load_manifest(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TomlFileError, match="not valid TOML"):
        load_manifest(tmp_path / "binary.toml")


toml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*Manifest.model_fields, "unknown"]), toml_values))
@settings(max_examples=60, deadline=None)
def test_any_content_is_taken_or_explained(values: dict[str, object]) -> None:
    base = {"file": Path("f.toml"), "name": "n", "format": "image_folder", "root": "/r"}
    with contextlib.suppress(TomlFileError):
        assert check(Manifest, base | values, Path("f.toml")).name


# --- what it holds ----------------------------------------------------------------------------------------------------


def test_counts() -> None:
    manifest = load_manifest("ms1mv2")
    assert check_counts(manifest, images=5_822_653, identities=85_742) is None
    message = check_counts(manifest, images=3_804_846, identities=85_742)
    assert message is not None
    assert "expected 5,822,653 images, found 3,804,846 (that is MS1M-IBUG" in message
    assert "identities" not in message
    assert "get it again" in message
    assert check_counts(load_manifest("adience"), images=1, identities=1) is None


def test_missing_data_say_where_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIQA_DATA", str(tmp_path))
    with pytest.raises(ManifestError, match=r"not at .*faces_emore/train\.rec: get faces_emore"):
        load_manifest("ms1mv2").require_data()
    path = write_manifest(tmp_path, MINIMAL)
    with pytest.raises(ManifestError, match=r"mine\.toml.*not at .*photos: put it there, or correct `root`"):
        load_manifest(path).require_data()
    (tmp_path / "photos").mkdir()
    load_manifest(path).require_data()


def test_a_set_with_lists_needs_its_lists_and_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIQA_DATA", str(tmp_path))
    manifest = load_manifest("xqlfw")
    with pytest.raises(ManifestError, match=r"not at .*xqlfw/xqlfw_pairs\.txt: get xqlfw_aligned_112\.zip"):
        manifest.require_data()
    (tmp_path / "xqlfw").mkdir()
    (tmp_path / "xqlfw" / "xqlfw_pairs.txt").touch()
    with pytest.raises(ManifestError, match=r"not at .*xqlfw/xqlfw_aligned_112: get xqlfw_aligned_112\.zip"):
        manifest.require_data()
    (tmp_path / "xqlfw" / "xqlfw_aligned_112").mkdir()
    manifest.require_data()
    (tmp_path / "IJBC").mkdir()
    with pytest.raises(ManifestError, match=r"(?s)not at .*IJBC/aligned_112: ask NIST.*align loose_crop/"):
        load_manifest("ijbc").require_data()


def test_where_the_images_lie(tmp_path: Path) -> None:
    base = 'name = "mine"\nformat = "{}"\nroot = "r"\n{}'
    for form, more, expected in (
        ("recordio", "", None),
        ("verification", 'record_file = "p.bin"\n', None),
        ("image_folder", "", "r"),
        ("verification", 'pairs_file = "p.txt"\n', "r"),
        ("verification", 'pairs_file = "p.txt"\nimages_folder = "photos/112"\n', "r/photos/112"),
        ("templates", "", "r/aligned_112"),
        ("templates", 'images_folder = "crops"\n', "r/crops"),
    ):
        found = load_manifest(write_manifest(tmp_path, base.format(form, more))).image_root
        assert found == (None if expected is None else tmp_path / expected)


def test_benchmarks_are_measured_and_not_labelled() -> None:
    for name in ("ms1mv2", "adience", "tinyface"):
        load_manifest(name).require_labelled()
    for name in ("lfw", "xqlfw", "ijbc"):
        manifest = load_manifest(name)
        manifest.require_images()
        with pytest.raises(
            ManifestError, match=rf"{name} .*{manifest.format}, which cannot be labelled.*EmbeddingsAll"
        ):
            manifest.require_labelled()
    wider = load_manifest("wider_face")
    with pytest.raises(ManifestError, match=r"labelling works with recordio and image_folder$"):
        wider.require_labelled()
    with pytest.raises(ManifestError, match="recordio, image_folder, verification and templates can be measured"):
        wider.require_images()


def test_real_data_set_has_the_counts_of_its_manifest(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "data" / "lfw112_natural"
    text = f'name = "lfw112"\nformat = "recordio"\nroot = "{folder}"\nimages = 10743\nidentities = 4658\n'
    manifest = load_manifest(write_manifest(tmp_path, text))
    records = RecordFile(manifest.data_path)
    assert check_counts(manifest, images=len(records), identities=len(records.identities)) is None


# --- what it is known by ----------------------------------------------------------------------------------------------


def record_set(folder: Path, rec: bytes = b"records", idx: bytes | None = b"0\t0\n") -> Manifest:
    (folder / "r").mkdir(parents=True, exist_ok=True)
    (folder / "r" / "train.rec").write_bytes(rec)
    os.utime(folder / "r" / "train.rec", ns=(5, 1_700_000_000_000_000_001))
    if idx is not None:
        (folder / "r" / "train.idx").write_bytes(idx)
    return load_manifest(write_manifest(folder, 'name = "mine"\nformat = "recordio"\nroot = "r"\n'))


def test_identity_holds_no_path_and_every_change(tmp_path: Path) -> None:
    first = read_identity(record_set(tmp_path / "a"))
    assert first.kind is Format.RECORDIO
    assert (first.size, first.mtime_ns, first.content_sha256) == (7, 1_700_000_000_000_000_001, None)
    assert read_identity(record_set(tmp_path / "b")).digest == first.digest
    assert read_identity(record_set(tmp_path / "c", idx=b"0\t8\n")).digest != first.digest
    assert read_identity(record_set(tmp_path / "d", rec=b"records.")).digest != first.digest
    no_index = read_identity(record_set(tmp_path / "e", idx=None))
    assert no_index.index_sha256 is None
    assert no_index.digest != first.digest
    manifest = record_set(tmp_path / "f")
    os.utime(manifest.data_path, ns=(5, 6))
    assert read_identity(manifest).digest != first.digest


def test_recheck_sees_a_change_that_size_and_time_hide(tmp_path: Path) -> None:
    before = read_identity(record_set(tmp_path), recheck=True)
    after = read_identity(record_set(tmp_path, rec=b"RECORDS"), recheck=True)
    assert before.digest == after.digest
    assert before.content_sha256 != after.content_sha256
    assert before.digest == read_identity(record_set(tmp_path)).digest


def image_set(folder: Path) -> Manifest:
    photos = folder / "photos"
    for name, content in {"b/1.jpg": b"one", "a/2.jpg": b"two"}.items():
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(content)
        os.utime(photos / name, ns=(7, 7))
    return load_manifest(write_manifest(folder, MINIMAL))


def test_identity_of_a_folder(tmp_path: Path) -> None:
    first = read_identity(image_set(tmp_path / "a"), recheck=True)
    assert first.size == 6
    second = image_set(tmp_path / "b")
    assert read_identity(second, recheck=True) == first
    (second.root / "notes.txt").write_text("not an image")
    assert read_identity(second, recheck=True) == first
    (second.root / "a" / "2.jpg").rename(second.root / "a" / "3.jpg")
    assert read_identity(second).digest != first.digest
    assert hash_content(second) != first.content_sha256


def test_identity_of_benchmarks(tmp_path: Path) -> None:
    text = 'name = "mine"\nformat = "{}"\nroot = "{}"\n{}'
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "lfw.bin").write_bytes(b"pairs")
    manifest = load_manifest(write_manifest(tmp_path, text.format("verification", "v", 'record_file = "lfw.bin"\n')))
    first = read_identity(manifest)
    os.utime(manifest.data_path, ns=(1, 1))
    assert read_identity(manifest) == first
    (tmp_path / "v" / "lfw.bin").write_bytes(b"PAIRS")
    assert read_identity(manifest).digest != first.digest


@pytest.mark.parametrize("form", ["verification", "templates"])
def test_identity_of_sets_with_lists(tmp_path: Path, form: str) -> None:
    photos, more = (tmp_path / "v" / "aligned_112" / "a"), ""
    if form == "verification":
        more = 'pairs_file = "pairs.txt"\nimages_folder = "aligned_112"\n'
    photos.mkdir(parents=True)
    (photos / "1.jpg").write_bytes(b"one")
    os.utime(photos / "1.jpg", ns=(7, 7))
    manifest = load_manifest(write_manifest(tmp_path, f'name = "mine"\nformat = "{form}"\nroot = "v"\n{more}'))
    if form == "verification":
        (tmp_path / "v" / "pairs.txt").write_text("1")
        lists = [tmp_path / "v" / "pairs.txt"]
    else:
        with pytest.raises(ManifestError, match=r"has no meta/\*_face_tid_mid\.txt in"):
            read_identity(manifest)
        (tmp_path / "v" / "meta").mkdir()
        kinds = ("face_tid_mid", "name_5pts_score", "template_pair_label")
        lists = [tmp_path / "v" / "meta" / f"x_{kind}.txt" for kind in kinds]
        for path in lists:
            path.write_text("1")
    first = read_identity(manifest, recheck=True)
    assert (first.kind, first.size) == (Format(form), 3)
    (tmp_path / "v" / "archive.zip").write_bytes(b"what the images came in")
    os.utime(lists[0], ns=(8, 8))
    assert read_identity(manifest, recheck=True) == first
    digests, contents = {first.digest}, {first.content_sha256}
    for path in lists:
        path.write_text("2")
        changed = read_identity(manifest, recheck=True)
        digests.add(changed.digest)
        contents.add(changed.content_sha256)
    (photos / "1.jpg").write_bytes(b"ONE")
    os.utime(photos / "1.jpg", ns=(7, 7))
    hidden = read_identity(manifest, recheck=True)
    assert hidden.digest == changed.digest
    assert hidden.content_sha256 not in contents
    (photos / "2.jpg").write_bytes(b"two")
    digests.add(read_identity(manifest).digest)
    assert len(digests) == len(lists) + 2
    assert len(contents) == len(lists) + 1


def test_identity_of_wider_face(real_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "wider"
    shutil.copytree(real_data / "data" / "wider_mini" / "wider_face_split", copy / "wider_face_split")
    texts = list((copy / "wider_face_split").iterdir())
    manifest = load_manifest(write_manifest(tmp_path, 'name = "mine"\nformat = "wider_face"\nroot = "wider"\n'))
    first = read_identity(manifest)
    texts[0].chmod(0o644)
    texts[0].write_text(texts[0].read_text() + "\n")
    assert read_identity(manifest).digest != first.digest


def test_missing_data_have_no_identity(tmp_path: Path) -> None:
    manifest = load_manifest(write_manifest(tmp_path, MINIMAL))
    for read in (read_identity, hash_content):
        with pytest.raises(ManifestError, match="is not at"):
            read(manifest)


@given(st.integers(0, 2**40), st.integers(0, 2**62), st.none() | st.text("0123456789abcdef", min_size=64, max_size=64))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_digest_is_stable_and_ignores_content(size: int, mtime: int, index: str | None) -> None:
    one = DataIdentity(kind=Format.RECORDIO, index_sha256=index, size=size, mtime_ns=mtime)
    other = DataIdentity(kind=Format.RECORDIO, index_sha256=index, size=size, mtime_ns=mtime, content_sha256="0" * 64)
    assert one.digest == other.digest
    assert len(one.digest) == 64
    swapped = DataIdentity(kind=Format.IMAGE_FOLDER, index_sha256=index, size=size, mtime_ns=mtime)
    assert swapped.digest != one.digest


def test_a_picture_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "a.JPG").write_bytes(b"\xff\xd8")
    with pytest.raises(ManifestError, match=r"a\.JPG is one picture: give its folder"):
        load_manifest(str(tmp_path / "a.JPG"))
