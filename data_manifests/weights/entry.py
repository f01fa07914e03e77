"""What describes a network: its weight files, where they come from, what goes in and what comes out."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

if TYPE_CHECKING:
    from collections.abc import Mapping

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(gt=0, strict=True)]
Sign = Literal[-1, 1]
PlainName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Kind(StrEnum):
    """What a network is for."""

    RECOGNITION = "recognition"
    POSE = "pose"
    LANDMARKS = "landmarks"
    FACTORS = "factors"
    DETECTOR = "detector"
    CLIP = "clip"
    EXPRESSION = "expression"


POSE_KINDS = (Kind.POSE, Kind.LANDMARKS)
"""The kinds that may stand as `pose_model`."""


class Colour(StrEnum):
    """The order of a network's three input channels."""

    RGB = "rgb"
    BGR = "bgr"


class _Frozen(BaseModel):
    """A part of a registry file: immutable, and no field more than it knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NpmSource(_Frozen):
    """A file inside a package of the npm registry."""

    type: Literal["npm"]
    package: Annotated[str, StringConstraints(pattern=r"^(@[a-z0-9._-]+/)?[a-z0-9][a-z0-9._-]*@[0-9][0-9A-Za-z.+-]*$")]
    tarball_sha256: Sha256
    member: Text


class UrlSource(_Frozen):
    """A file behind a URL, or a member of a zip archive behind it."""

    type: Literal["url"]
    url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
    member: Text | None = None
    archive_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _archive_has_member(self) -> Self:
        if self.archive_sha256 and not self.member:
            raise ValueError("`archive_sha256` is the hash of a zip archive: name the `member` to take from it")
        return self


class RepositorySource(_Frozen):
    """A file that comes with this project; the path starts at the folder that holds its packages."""

    type: Literal["repository"]
    path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$")]


class OpenClipSource(_Frozen):
    """The original file behind a pretrained tag of open_clip."""

    type: Literal["open_clip"]
    model: Text
    tag: Text


Source = Annotated[NpmSource | UrlSource | RepositorySource | OpenClipSource, Field(discriminator="type")]


class WeightFile(_Frozen):
    """One file of a network.

    Attributes:
        name: the file's name, without a folder.
        sha256: of its content; absent means that the hash found at first use is recorded and held to.
        bytes: its size.
        sources: where to get it, tried in order; none means that the user has to bring it.
    """

    name: PlainName
    sha256: Sha256 | None = None
    bytes: Count | None = None
    sources: tuple[Source, ...] = ()


class NetworkInput(_Frozen):
    """How a picture becomes a network's input, float32 [N, 3, height, width].

    Attributes:
        width: in pixels.
        height: in pixels.
        colour: order of the channels.
        mean: of each channel in that order, on the scale 0..255.
        std: likewise; the network sees (x - mean) / std.
        resize: how another size is brought to this one.
    """

    width: Count
    height: Count
    colour: Colour
    mean: tuple[Finite, Finite, Finite]
    std: tuple[Deviation, Deviation, Deviation]
    resize: Literal["bilinear"] = "bilinear"


class EmbeddingOutput(_Frozen):
    """One vector [N, dimension], not normalised.

    Attributes:
        norm: whether the length of the vector is a second output, [N, 1], as of a network that gives the vector at unit
            length (AdaFace).
    """

    kind: Literal["embedding"]
    dimension: Count
    norm: Annotated[bool, Field(strict=True)] = False


class AnglesOutput(_Frozen):
    """Yaw, pitch and roll in degrees, [N, 3]; several files are averaged.

    Attributes:
        signs: for yaw, pitch and roll, what to multiply with so that positive means: the nose towards the right of
            the picture, the face up, clockwise in the picture.
    """

    kind: Literal["angles"]
    signs: tuple[Sign, Sign, Sign]


class BinsOutput(_Frozen):
    """Three outputs [N, bins] of logits for yaw, pitch and roll.

    An angle is the mean of (bin number x width_deg + offset_deg) under the softmax, in degrees.

    Attributes:
        signs: as in AnglesOutput.
    """

    kind: Literal["bins66"]
    bins: Literal[66] = 66
    width_deg: Deviation
    offset_deg: Finite
    signs: tuple[Sign, Sign, Sign]


class MatrixOutput(_Frozen):
    """MediaPipe's 4x4 head matrix; the angles come from its column-normalised 3x3 part R.

    yaw = atan2(R02, R22), pitch = atan2(R12, hypot(R02, R22)), roll = -atan2(R10, R11).
    """

    kind: Literal["matrix"]


class MeshOutput(_Frozen):
    """The points of MediaPipe's face mesh and whether there is a face; the angles are those of the head laid onto it.

    They are read from the head's rotation as in MatrixOutput.
    """

    kind: Literal["mesh"]


class ProbabilitiesOutput(_Frozen):
    """One value a column, [N, columns].

    Attributes:
        columns: what the values are, in order.
        activation: what turns the network's output into probabilities; none when it gives them itself.
        thresholds: one a column: the probability at which its training found that the two classes part best. The file
            gives 0.5 there: it was shifted. None where no threshold was looked for.
    """

    kind: Literal["probabilities"]
    columns: Annotated[tuple[Text, ...], Field(min_length=1)]
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    thresholds: tuple[Share, ...] | None = None

    @model_validator(mode="after")
    def _threshold_of_each(self) -> Self:
        if self.thresholds is not None and len(self.thresholds) != len(self.columns):
            raise ValueError(f"{len(self.thresholds)} `thresholds` for {len(self.columns)} `columns`: name one each")
        return self


class BoxesOutput(_Frozen):
    """Boxes with five landmarks, as OpenCV's FaceDetectorYN decodes them."""

    kind: Literal["boxes"]


class ClipOutput(_Frozen):
    """The towers of CLIP.

    Attributes:
        dimension: of the space that images and texts share.
        architecture: open_clip's name of the model that these weights fit.
    """

    kind: Literal["clip"]
    dimension: Count
    architecture: Text


Output = Annotated[
    EmbeddingOutput
    | AnglesOutput
    | BinsOutput
    | MatrixOutput
    | MeshOutput
    | ProbabilitiesOutput
    | BoxesOutput
    | ClipOutput,
    Field(discriminator="kind"),
]

OUTPUTS: Mapping[Kind, tuple[str, ...]] = MappingProxyType({
    Kind.RECOGNITION: ("embedding",),
    Kind.POSE: ("angles", "bins66"),
    Kind.LANDMARKS: ("matrix", "mesh"),
    Kind.FACTORS: ("probabilities",),
    Kind.DETECTOR: ("boxes",),
    Kind.CLIP: ("clip",),
    Kind.EXPRESSION: ("probabilities",),
})  # fmt: skip
"""The outputs that a network of each kind can have."""


class ModelEntry(_Frozen):
    """One network of the registry.

    Attributes:
        name: its name in models.toml.
        kind: what it is for.
        version: the entry's own; raise it when the entry changes what the network gives.
        licence: of the weights, not of the code around them.
        notes: what a user should know.
        files: the weight files, in the order in which they are used.
        input: how a picture goes in; absent where a library does that itself.
        output: what comes out, and how to read it.
        batch: the number of images that always go in together; results depend on it in the last digits.
    """

    name: PlainName
    kind: Kind
    version: Count
    licence: Text
    notes: str = ""
    files: Annotated[tuple[WeightFile, ...], Field(min_length=1)]
    input: NetworkInput | None = None
    output: Output
    batch: Count

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [file.name for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError(f"two files have the same name: {', '.join(names)}")
        if self.output.kind not in OUTPUTS[self.kind]:
            allowed = " or ".join(OUTPUTS[self.kind])
            raise ValueError(f"`output.kind` of a {self.kind} network is {allowed}, not {self.output.kind}")
        if self.input is None and self.output.kind not in ("matrix", "boxes"):
            raise ValueError(f"a {self.kind} network needs a table `input`")
        return self

    def same_network(self, other: ModelEntry) -> bool:
        """Whether both give the same output; sources, licence and notes may differ."""
        return self._essence() == other._essence()

    def _essence(self) -> tuple[object, ...]:
        files = tuple((file.name, file.sha256) for file in self.files)
        return self.kind, self.version, files, self.input, self.output, self.batch
