"""The registry of networks: the shipped entries against the files and their makers' facts, and a user's own."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_manifests.storage.toml_file import TomlFileError, check
from data_manifests.weights import files as weights
from data_manifests.weights.entry import (
    AnglesOutput,
    BinsOutput,
    Colour,
    EmbeddingOutput,
    Kind,
    ModelEntry,
    NetworkInput,
    NpmSource,
    ProbabilitiesOutput,
    UrlSource,
)
from data_manifests.weights.registry import (
    SHIPPED,
    RegistryError,
    find_network,
    load_registry,
    model_folders,
    read_entries,
)

SHA = "ab" * 32
OWN = f"""
[mine]
kind = "recognition"
version = 1
licence = "mine"
batch = 8
files = [{{ name = "mine.onnx", sha256 = "{SHA}" }}]
input = {{ width = 112, height = 112, colour = "rgb", mean = [0, 0, 0], std = [255, 255, 255] }}
output = {{ kind = "embedding", dimension = 128 }}
"""


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIQA_MODELS", raising=False)
    monkeypatch.setenv("FIQA_CACHE", str(tmp_path / "cache"))


def use_folders(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    monkeypatch.setenv("FIQA_MODELS", ":".join(str(folder) for folder in folders))


def own_folder(folder: Path, text: str = OWN) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "models.toml").write_text(text)
    return folder


JUDGES = {
    "arcface_ms1mv3", "cosface_glint360k", "adaface_webface4m",
    "arcface_r100", "elasticface_r100", "magface_r100", "curricularface_r100",
}  # fmt: skip
"""The recognisers of CLIB-FIQA's Tables 1 to 3, and of CR-FIQA's Tables I and II."""

RECIPES = Path(__file__).parents[3] / "recipes"


# --- the shipped ones -------------------------------------------------------------------------------------------------


def test_every_network_is_there() -> None:
    registry = load_registry()
    assert set(registry.names(Kind.RECOGNITION)) == {"fr_feature", "dlib_resnet", "w600k_r50", "glintr100"} | JUDGES
    assert set(registry.names(Kind.POSE, Kind.LANDMARKS)) == {"face_landmarker", "face_mesh", "fr_pose", "fsanet"}
    assert registry.names(Kind.FACTORS) == ("factors_mini",)
    assert {"yunet", "clip_rn50", "fr_expression"} <= set(registry.names())
    assert all(registry.origins[name] == SHIPPED for name in registry.names())


@pytest.mark.parametrize("name", load_registry().names())
def test_shipped_entry_is_complete(name: str) -> None:
    entry = load_registry().get(name)
    assert 256 % entry.batch == 0, "a batch divides the slice in which images are measured"
    assert entry.licence
    for file in entry.files:
        if name in JUDGES:
            # Nobody publishes the ONNX file, so it has no hash either.
            assert (file.name, file.sources, file.sha256) == (f"{name}.onnx", (), None)
            assert f" --output FOLDER/{name}.onnx" in entry.notes
            continue
        assert file.sources, "where the file comes from"
        if name != "factors_mini":
            assert file.sha256 is not None
            assert file.bytes is not None
    assert len(entry.files) == (2 if name == "fsanet" else 1)


def test_known_facts() -> None:
    """Sizes, colour orders and scales as the networks' makers describe them."""
    registry = load_registry()
    arcface = {"width": 112, "height": 112, "colour": Colour.RGB, "mean": (127.5,) * 3, "std": (127.5,) * 3}
    for name in ("w600k_r50", "glintr100"):
        entry = registry.get(name)
        assert entry.input == NetworkInput(**arcface)
        assert entry.output == EmbeddingOutput(kind="embedding", dimension=512)
    given = dict.fromkeys(("arcface_ms1mv3", "cosface_glint360k", "elasticface_r100", "curricularface_r100"), arcface)
    given["adaface_webface4m"] = arcface | {"colour": Colour.BGR}
    given["arcface_r100"] = arcface | {"std": (1 / 0.0078125,) * 3}
    given["magface_r100"] = arcface | {"colour": Colour.BGR, "mean": (0.0,) * 3, "std": (255.0,) * 3}
    assert given.keys() == JUDGES
    for name, wanted in given.items():
        assert registry.get(name).input == NetworkInput(**wanted)
        assert registry.get(name).output == EmbeddingOutput(kind="embedding", dimension=512, norm=False)
    feature = registry.get("fr_feature")
    assert feature.input == NetworkInput(**arcface | {"colour": Colour.BGR, "mean": (127.0,) * 3, "std": (128.0,) * 3})
    fsanet = registry.get("fsanet")
    assert fsanet.input == NetworkInput(width=64, height=64, colour=Colour.BGR, mean=(127.5,) * 3, std=(128.0,) * 3)
    assert fsanet.output == AnglesOutput(kind="angles", signs=(-1, 1, 1))
    pose = registry.get("fr_pose")
    assert pose.output == BinsOutput(kind="bins66", width_deg=3.0, offset_deg=-99.0, signs=(-1, 1, 1))
    assert pose.input is not None
    np.testing.assert_allclose(np.divide(pose.input.mean, 255), [0.485, 0.456, 0.406], rtol=1e-9)
    np.testing.assert_allclose(np.divide(pose.input.std, 255), [0.229, 0.224, 0.225], rtol=1e-9)
    factors = registry.get("factors_mini").output
    assert isinstance(factors, ProbabilitiesOutput)
    assert factors.columns == ("p_obstructed", "p_exaggerated", "p_extreme_lighting")


def test_the_recipes_of_the_tables_judge_by_networks_that_are_known() -> None:
    text = "".join((RECIPES / name).read_text() for name in ("clib_tables.sh", "cr_fiqa_tables.sh"))
    commands = re.sub(r"^ *#.*$", "", text, flags=re.MULTILINE)
    assert set(",".join(re.findall(r"--recognition ([\w,]+)", commands)).split(",")) == JUDGES


def test_clip_scale_is_that_of_open_clip() -> None:
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    constants = runpy.run_path(str(Path(spec.origin).with_name("constants.py")))
    for name in load_registry().names(Kind.CLIP):
        scale = load_registry().get(name).input
        assert scale is not None
        np.testing.assert_allclose(np.divide(scale.mean, 255), constants["OPENAI_DATASET_MEAN"], rtol=1e-9)
        np.testing.assert_allclose(np.divide(scale.std, 255), constants["OPENAI_DATASET_STD"], rtol=1e-9)


def test_openai_puts_the_hash_into_the_url() -> None:
    for name in load_registry().names(Kind.CLIP):
        (file,) = load_registry().get(name).files
        (url,) = [source.url for source in file.sources if isinstance(source, UrlSource)]
        assert url.split("/")[-2] == file.sha256
        assert url.split("/")[-1] == file.name


def test_one_package_is_one_tarball() -> None:
    sources = [s for e in load_registry().entries.values() for f in e.files for s in f.sources]
    assert len({(s.package, s.tarball_sha256) for s in sources if isinstance(s, NpmSource)}) == 1
    zips = {(s.url.split("/")[-1], s.archive_sha256) for s in sources if isinstance(s, UrlSource) and s.member}
    assert {name for name, _ in zips} == {"buffalo_l.zip", "antelopev2.zip"}
    assert len(zips) == 2


@pytest.mark.parametrize("name", ["face_landmarker", "face_mesh", "fsanet", "yunet"])
def test_real_files_are_what_their_entries_say(real_data: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    use_folders(monkeypatch, real_data / "models")
    entry = load_registry().get(name)
    paths = weights.find(entry)
    assert [path.name for path in paths] == [file.name for file in entry.files]
    if name == "fsanet":
        for path in paths:
            graph = onnx.load(path).graph
            (shape,) = [v.type.tensor_type.shape.dim for v in graph.input if v.name == "input"]
            assert entry.input is not None
            assert [d.dim_value for d in shape[1:]] == [3, entry.input.height, entry.input.width]
            assert graph.output[0].type.tensor_type.shape.dim[1].dim_value == 3


def test_no_machine_path_and_no_name_twice() -> None:
    text = SHIPPED.read_text()
    assert not re.search(r"/(home|work|tmp|root)/", text)
    tables = re.findall(r"^\[(\w+)\]$", text, re.MULTILINE)
    assert len(tables) == len(set(tables)) == len(load_registry().entries)


# --- asking -----------------------------------------------------------------------------------------------------------


def test_get() -> None:
    registry = load_registry()
    assert registry.get("fsanet").kind is Kind.POSE
    assert registry.get("fsanet", Kind.POSE, Kind.LANDMARKS).name == "fsanet"
    with pytest.raises(RegistryError, match=r"no network is called 'fsanett' \(did you mean fsanet\?\): there are"):
        registry.get("fsanett")
    with pytest.raises(
        RegistryError,
        match=r"fsanet is a network for pose, not recognition: use one of adaface_webface4m, arcface_ms1mv3",
    ):
        registry.get("fsanet", Kind.RECOGNITION)


# --- a user's own -----------------------------------------------------------------------------------------------------


def test_folders_add_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = own_folder(tmp_path / "one"), own_folder(tmp_path / "two", OWN.replace("[mine]", "[yours]"))
    (tmp_path / "bare").mkdir()
    use_folders(monkeypatch, one, tmp_path / "bare", two)
    registry = load_registry()
    assert registry.get("mine", Kind.RECOGNITION).files[0].sha256 == SHA
    assert registry.origins["yours"] == two / "models.toml"
    assert "fsanet" in registry.names()


def test_a_known_name_is_not_given_to_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_folders(monkeypatch, own_folder(tmp_path / "one", OWN.replace("[mine]", "[glintr100]")))
    with pytest.raises(RegistryError, match=r"one/models\.toml describes 'glintr100' differently from .*another name"):
        load_registry()
    two = own_folder(tmp_path / "two", OWN)
    use_folders(monkeypatch, two, own_folder(tmp_path / "three", OWN.replace("[255, 255, 255]", "[128, 128, 128]")))
    with pytest.raises(RegistryError, match=r"three/models\.toml describes 'mine' differently from .*two"):
        load_registry()


def test_the_same_network_may_stand_in_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = own_folder(tmp_path / "copy", SHIPPED.read_text().replace('licence = "MIT', 'licence = "still MIT'))
    use_folders(monkeypatch, copy)
    registry = load_registry()
    assert registry.origins["yunet"] == SHIPPED
    assert registry.get("fr_pose").licence.startswith("MIT")


def test_a_folder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_folders(monkeypatch, tmp_path / "nowhere")
    with pytest.raises(RegistryError, match=r"FIQA_MODELS names .*nowhere, which is no folder"):
        load_registry()
    monkeypatch.setenv("FIQA_MODELS", " : ")
    assert model_folders() == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "recognition"', 'kind = "recognise"', "field `mine.kind`: input should be 'recognition', 'pose'"),
        ("version = 1\n", "", "field `mine.version` is missing: add it"),
        ("batch = 8", "batch = 8.5", "field `mine.batch`"),
        ("batch = 8", "batches = 8", "there is no field `mine.batches` (did you mean batch?)"),
        (SHA, SHA.upper(), "field `mine.files[0].sha256`"),
        (f', sha256 = "{SHA}"', ', sha256 = ""', "field `mine.files[0].sha256`"),
        ('"mine.onnx"', '"../mine.onnx"', "field `mine.files[0].name`"),
        ("[255, 255, 255]", "[255, 0, 255]", "field `mine.input.std[1]`: input should be greater than 0"),
        ("[255, 255, 255]", "[255, nan, 255]", "field `mine.input.std[1]`"),
        ('"rgb"', '"grey"', "field `mine.input.colour`"),
        (
            'kind = "embedding", dimension = 128',
            'kind = "boxes"',
            "`output.kind` of a recognition network is embedding",
        ),
        ('kind = "embedding"', 'kind = "vector"', "`mine.output`"),
        ("input = {", "# {", "a recognition network needs a table `input`"),
        ("files = [{", "files = [] # {", "`mine.files`"),
        ("[mine]", "", "stands outside any network's table"),
        ("[mine]", '[mine]\nname = "mine"', "`mine.name`"),
        (
            f'sha256 = "{SHA}"',
            'sources = [{ type = "url", url = "ftp://x" }]',
            "field `mine.files[0].sources[0].url.url`",
        ),
        (
            f'sha256 = "{SHA}"',
            f'sources = [{{ type = "url", url = "http://x/y", archive_sha256 = "{SHA}" }}]',
            "name the `member` to take from it",
        ),
        (f'sha256 = "{SHA}"', 'sources = [{ type = "repository", path = "../x" }]', "sources[0].repository.path"),
        (f'sha256 = "{SHA}"', 'sources = [{ type = "torrent" }]', "`mine.files[0].sources[0]`"),
    ],
)
def test_what_is_wrong_in_an_entry_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in OWN
    path = own_folder(tmp_path / "own", OWN.replace(old, new)) / "models.toml"
    with pytest.raises(TomlFileError) as caught:
        read_entries(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_two_files_of_one_name(tmp_path: Path) -> None:
    twice = OWN.replace("files = [{", 'files = [{ name = "mine.onnx" }, {')
    with pytest.raises(TomlFileError, match="two files have the same name"):
        read_entries(own_folder(tmp_path / "own", twice) / "models.toml")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
tables = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "kind", "name", "url", "member", "width"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*ModelEntry.model_fields, "unknown"]), tables))
@settings(max_examples=80, deadline=None)
def test_any_entry_is_taken_or_explained(values: dict[str, object]) -> None:
    base = load_registry().get("fr_pose").model_dump()
    with contextlib.suppress(TomlFileError):
        assert check(ModelEntry, base | values, Path("m.toml"), "t").files


# --- a network by the folder of its training --------------------------------------------------------------------------


def test_a_folder_stands_for_the_network_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, other = own_folder(tmp_path / "run"), own_folder(tmp_path / "other", OWN.replace("mine]", "theirs]"))
    (tmp_path / "current").symlink_to("run")
    use_folders(monkeypatch, other)
    assert find_network(str(tmp_path / "current"), Kind.RECOGNITION) == ("mine", folder)
    assert model_folders() == (folder, other)
    assert find_network(str(folder)) == ("mine", folder)
    assert model_folders() == (folder, other)
    assert load_registry().get("mine").name == "mine"


def test_a_name_stays_a_name_whatever_folders_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    own_folder(tmp_path / "fr_feature")
    assert find_network("fr_feature", Kind.RECOGNITION) == ("fr_feature", None)
    assert find_network("nothing_yet", Kind.RECOGNITION) == ("nothing_yet", None)
    assert not model_folders()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is no folder of a trained network: it has no models.toml"),
        (OWN.replace("recognition", "pose"), "holds 0 networks for recognition"),
        (OWN + OWN.replace("[mine]", "[second]"), "holds 2 networks for recognition: mine, second; name a folder with"),
    ],
)
def test_a_folder_without_one_network_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    folder = tmp_path / "run"
    if text is not None:
        own_folder(folder, text.replace('"embedding", dimension = 128', '"angles", signs = [1, 1, 1]')
                   if "pose" in text else text)  # fmt: skip
    with pytest.raises(RegistryError, match=re.escape(said)) as raised:
        find_network(f"{folder}/", Kind.RECOGNITION)
    assert str(folder) in str(raised.value)
    assert not model_folders()
