"""The figures of gpu_check as a section of Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_manifests.storage.atomic import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

BEGIN, END = "<!-- gpu: made by python -m benchmarks.gpu_check -->", "<!-- end of gpu -->"
Figures = dict[str, Any]


def write_section(document: Path, found: Figures) -> None:
    """Write the figures between the markers of a document, or at its end where it has none."""
    text = document.read_text() if document.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if begin else "\n"
    section = "\n".join([BEGIN, "", *render(found), "", END])
    write_atomically(document, lambda file: file.write((before + section + after).encode()))


def render(found: Figures) -> Iterator[str]:
    """The lines of the section."""
    machine = found["machine"]
    where = found["gpu"] or "no GPU"
    yield f"{where}; {machine['cores']} cores of {machine['processor']}; {found['seconds']:.0f} s in all."
    if found["small"]:
        yield "Only a small run, which shows that it works: its figures tell nothing."
    yield f"PyTorch {found['torch']}, ONNX Runtime {found['versions']['onnxruntime-gpu']}."
    for name, step in found["steps"].items():
        yield ""
        memory = f", {step['peak_gpu_mib']:,} MiB of the GPU" if "peak_gpu_mib" in step else ""
        yield f"### {TITLES[name]}"
        yield ""
        yield f"{step['seconds']:.0f} s, a process of {step['peak_process_mib']:,.0f} MiB at most{memory}."
        if "error" in step:
            yield f"It failed: `{step['error'].splitlines()[-1]}`"
        if "figures" in step:
            yield ""
            yield from _RENDERERS[name](step["figures"])


TITLES = {
    "networks": "Networks: the device beside the processor in float32",
    "labels": "LabelAll",
    "same_classes": "Labels: the device beside the processor",
    "nearest": "The nearest of all class centres",
    "all_pairs": "All pairs",
    "training": "Training",
    "resume": "A training that is killed",
    "training_compiled": "Training, compiled",
    "recognition": "Training a recogniser",
    "training_graphs": "Training, 32 images a step, compiled with CUDA graphs",
}


def _networks(figures: Figures) -> Iterator[str]:
    rates = ", ".join(f"{name} {rate / 1e12:,.1f}" for name, rate in figures["product_flops"].items())
    yield f"Matrix products, TFLOP/s: {rates}. One process; the bound is the network's multiply-adds at that rate."
    yield ""
    rows = []
    for line in figures["networks"]:
        if "error" in line:
            rows.append((line["network"], line["precision"], "", "", "", line["error"].splitlines()[0]))
            continue
        rate, bound = line["images_per_second"], line["arithmetic_bound"]
        same = ", ".join(f"{_words(name)} {value:.6g}" for name, value in line.items() if _compares(name))
        rows.append((line["network"], line["precision"], f"{rate:,.0f}", f"{bound:,.0f}", f"{rate / bound:.2f}", same))
    yield from _table(("network", "precision", "images/s", "bound", "share", "beside the processor"), rows)


def _same_classes(figures: Figures) -> Iterator[str]:
    shares = ", ".join(f"{name} {share:.2%}" for name, share in figures["same_class"].items())
    yield (
        f"{figures['images']} images in {figures['precision']}, and in float32 on the processor, of the same class: "
        f"{shares} (aim {figures['aim']:.1%})."
    )
    if (difference := figures["largest_difference_quality"]) is not None:
        yield f"Their quality differs by {difference:.2g} at most."


def _labels(figures: Figures) -> Iterator[str]:
    images = figures["images"]
    yield (
        f"{images:,} made images, {figures['workers']} workers, {figures['recogniser']} in {figures['precision']}, "
        f"pose by {figures['pose']}, {figures['classes']:,} class centres: {figures['wall_seconds']:.0f} s, "
        f"{images / figures['wall_seconds']:,.0f} images/s."
    )
    yield (
        f"Reckoned from this run and one of {figures['first_images']:,} images: 5,822,653 images take "
        f"**{figures['projected_minutes']:.0f} minutes** (aim 15). `images/s` leaves the start of a stage out."
    )
    yield ""
    rows = [
        (s["stage"], f"{s['seconds']:.1f}", _number(s["images_per_second"]), _number(s["ideal"]), _share(s))
        for s in figures["stages"]
    ]
    yield from _table(("stage", "seconds", "images/s", "its kernel alone", "share"), rows)


def _nearest(figures: Figures) -> Iterator[str]:
    yield (
        f"{figures['rows']:,} embeddings of 512 values and {figures['classes']:,} centres: "
        f"{figures['rows_per_second']:,.0f} a second, {figures['ratio']:.2f} of the bare products "
        f"({figures['gflops']:,.0f} GFLOP/s); {figures['wrong']} of {figures['checked']} differ from float64."
    )


def _all_pairs(figures: Figures) -> Iterator[str]:
    passes = ", ".join(f"{name} {share:.2f}" for name, share in figures["shares"].items())
    yield f"{figures['pairs']:,} pairs; of the bare products ({figures['products']:,.0f} pairs/s) reach: {passes}."


def _training(figures: Figures) -> Iterator[str]:
    about, ideal = figures["machine"], figures["ideal"]
    rates = ", ".join(f"{kind} {rate:,.4g} TFLOP/s" for kind, rate in ideal["matrix_tflops"].items())
    model = about.get("tower") or f"{about['backbone']}, {about['classes']:,} class centres"
    yield f"{model}, batch {about['batch']}, bf16 {about['bf16']}, compiled {about['compiled']}; {rates}."
    yield f"The ideal is {ideal['images_per_second']:,.0f} images/s."
    yield ""
    rows = [
        (
            part["name"],
            _number(part["images_per_second"]),
            "" if part["share_of_ideal"] is None else f"{part['share_of_ideal']:.2f}",
            "" if part["peak_gpu_mib"] is None else f"{part['peak_gpu_mib']:,.0f}",
        )
        for part in figures["parts"]
    ]
    yield from _table(("part", "images/s", "of ideal", "GPU MiB"), rows)
    if figures["aims"]:
        yield ""
        yield from _table(
            ("aim", "wanted", "reached"),
            [(aim["text"], f"{aim['wanted']:,g}", f"{aim['reached']:,.2f}") for aim in figures["aims"]],
        )


def _resume(figures: Figures) -> Iterator[str]:
    for name, text in (("resumed", "killed and run again"), ("repeated", "run twice, undisturbed")):
        if part := figures.get(name):
            yield (
                f"{figures['steps']} steps {text}: {part['unequal']:,} of {part['of']:,} weights differ, by "
                f"{part['largest_difference']:.2g} at most."
            )
    yield f"The undisturbed one ran under torchrun: {figures['torchrun_seconds']} s, start included."


_RENDERERS: Mapping[str, Callable[[Figures], Iterator[str]]] = {
    "networks": _networks,
    "labels": _labels,
    "same_classes": _same_classes,
    "nearest": _nearest,
    "all_pairs": _all_pairs,
    "training": _training,
    "resume": _resume,
    "training_compiled": _training,
    "recognition": _training,
    "training_graphs": _training,
}


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A Markdown table."""
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"


def _number(value: float | None) -> str:
    """A rate, or nothing."""
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def _share(stage: Figures) -> str:
    """What a stage reaches of its kernel."""
    return f"{stage['images_per_second'] / stage['ideal']:.2f}" if stage["ideal"] and stage["images_per_second"] else ""


def _compares(name: str) -> bool:
    """Whether a figure of a network tells how far it is from the processor."""
    return name.startswith(("same_", "least_", "median_", "largest_"))


def _words(name: str) -> str:
    """A figure's name in words."""
    return name.replace("_", " ").replace("largest difference", "largest difference of")
