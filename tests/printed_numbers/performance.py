"""Where the numbers of `docs/performance.md` come from."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from printed_numbers import read_results

ENGINES = {
    "tensorflow": "TensorFlow",
    "openvino": "OpenVINO",
    "openvino-bfloat16": "OpenVINO in bfloat16",
}
CHECKPOINTS = ("vector", "demo")

pipeline = read_results("pipeline.json")
one_thread = read_results("pipeline-one-thread.json")
pipeline_amx = read_results("pipeline-amx.json")
startup = {
    name: statistics.median(s) for name, s in read_results("startup.json")["seconds"].items()
}
throughput = read_results("throughput.json")["results"]
throughput_amx = read_results("throughput-amx.json")["results"]
engine_quality = read_results("engine-quality.json")
quality = {(row["ckpt"], row["engine"], row["mode"]): row for row in engine_quality["results"]}
rivals = read_results("rivals.json")
growth = {name: table["results"] for name, table in read_results("growth.json")["tables"].items()}
load = read_results("load.json")["results"]


def make_rows(cells: str, rows: Mapping[str, Sequence[float]]) -> tuple[str, list[float]]:
    """Make one piece of rows that follow each other, since a row alone may be in two tables."""
    piece = " ".join(f"| {name} | {cells} |" for name in rows)
    return piece, [value for values in rows.values() for value in values]


def spread(found: Mapping[str, float]) -> list[float]:
    """List what `{} ({} to {})` prints."""
    return [found["median"], found["lowest"], found["highest"]]


def rate(found: Mapping[str, Any]) -> float:
    """Return the median of images per second."""
    return found["images_per_second"]["median"]


# What an image costs

cost = {name: step["processor_ms"]["median"] for name, step in pipeline["steps"].items()}
STEPS = {
    "carry an element through tf.data and do nothing (part of every row but the network's)": (
        "carry an element"
    ),
    "decode a record: PNG, boxes, labels": "decode a record",
    "ask: grey, fit into the square of 224 pixels": "ask: grey, square",
    "ask with a `seed`: also a hash of the content": (
        "ask with a seed: the same, and a hash of the content"
    ),
    "network, TensorFlow, an image at a time (what a `seed` asks for)": (
        "network, TensorFlow, an image at a time (with a seed)"
    ),
    "network, TensorFlow, 32 at a time": "network, tensorflow, 32 at a time",
    "network, OpenVINO": "network, openvino, 32 at a time",
    "network, OpenVINO in bfloat16": "network, openvino-bfloat16, 32 at a time",
    "of the network, TensorFlow's encoder alone, an image at a time": (
        "encoder, TensorFlow, an image at a time"
    ),
    "finish: bring the change back to the image's size, add it": (
        "finish: restore the size, no boxes"
    ),
    "finish with boxes judged and guarded": "finish: the same, boxes guarded",
}
"""Rows of the page, and the names of the results."""

ask_seeded = cost["ask with a seed: the same, and a hash of the content"]
ends = cost["decode a record"] + cost["finish: the same, boxes guarded"]
around, around_seeded = ends + cost["ask: grey, square"], ends + ask_seeded


def compare_ends(results: Mapping[str, Any], engine: str) -> list[float]:
    """List the ratio of records to batches and the network alone, then the rates of both."""
    found = results["pipelines"][engine]
    alone, whole = found["network alone"], found["records, decode, apply, batch"]
    return [whole["ratio"]["median"], rate(whole), rate(alone)]


def compare_threads() -> list[float]:
    """List both ratios with one thread, then the rates of both engines."""
    (ratio, *rates), (ratio_bfloat16, *rates_bfloat16) = (
        compare_ends(one_thread, engine) for engine in ("openvino", "openvino-bfloat16")
    )
    return [ratio, ratio_bfloat16, *rates, *rates_bfloat16]


PIPELINE: list[tuple[str, Sequence[float]]] = [
    make_rows("{}", {name: [cost[result]] for name, result in STEPS.items()}),
    (
        "decoding, asking and finishing take {} ms: {}% of TensorFlow's time with a seed and {}%"
        " without, {}% of OpenVINO's and {}% in bfloat16",
        [
            around,
            100 * around_seeded / cost["network, TensorFlow, an image at a time (with a seed)"],
            *(100 * around / cost[f"network, {engine}, 32 at a time"] for engine in ENGINES),
        ],
    ),
    (
        "records to batches ran at {} of the speed of the network alone on TensorFlow ({} of {}"
        " images/s), {} on OpenVINO ({} of {}) and {} in bfloat16 ({} of {})",
        [value for engine in ENGINES for value in compare_ends(pipeline, engine)],
    ),
    ("asking takes {} ms", [one_thread["steps"]["ask: grey, square"]["processor_ms"]["median"]]),
    (
        "records to batches ran at {} of the network alone on OpenVINO and {} in bfloat16: {} of {}"
        " and {} of {} images/s",
        compare_threads(),
    ),
    (
        "its first image after {} s on TensorFlow, which gets the network ready once more for every"
        " new iterator, and after {} s on OpenVINO",
        [
            throughput[f"apply, {engine}, without a seed"]["seconds_to_first_image"]["median"]
            for engine in ("tensorflow", "openvino")
        ],
    ),
]

# Until the first image

STARTS = {
    "construction, first start with these settings": "first start: construction",
    "first image after it: trace, fold, keep": "first start: to the first image",
    "construction, later start": "later start: construction",
    "first image after it": "later start: to the first image",
    "first image of a second pass": "later start: to the first image of a second pass",
}
STARTUP: list[tuple[str, Sequence[float]]] = [
    make_rows(
        "{} | {}",
        {
            name: [startup[f"{ckpt}, apply, {result}"] for ckpt in CHECKPOINTS]
            for name, result in STARTS.items()
        },
    ),
    (
        "importing TensorFlow and Keras ({} and {} s)",
        [startup["from vae_aug import VAEAugment"], startup["import tensorflow, keras"]],
    ),
]

# Engines

naive = rate(throughput["plain network, map an image at a time"])


def list_quality(engine: str) -> list[float]:
    """List PSNR and share of the change by mode, then by checkpoint."""
    rows = [quality[ckpt, engine, mode] for mode in ("denoise", "sample") for ckpt in CHECKPOINTS]
    return [value for row in rows for value in (row["psnr_db"], row["share_of_change"])]


moved = quality["demo", "openvino", "sample"]
rounded = [r for r in quality.values() if r["engine"] != "openvino-bfloat16" and r is not moved]
SPEED: list[tuple[str, Sequence[float]]] = [
    ("in a per-image `map`, which makes {} images/s", [naive]),
    make_rows(
        "{} ({} to {}) | {} ({} to {})",
        {
            f'`"{engine}"`': [
                value
                for way in (f"apply, {engine}", f"apply, {engine}, without a seed")
                for value in spread(throughput[way]["ratio_to_naive"])
            ]
            for engine in ENGINES
        },
    ),
    *(
        (
            f'| `"{engine}"` | `denoise` | {{}} dB, {{}} | {{}} dB, {{}} |'
            " | | `sample` | {} dB, {} | {} dB, {} |",
            list_quality(engine),
        )
        for engine in ("openvino", "xla", "openvino-bfloat16")
    ),
    ("from float32 TensorFlow's, {} images of brain MR", [engine_quality["settings"]["images"]]),
    ("in {} of a million pixels", [1e6 * max(row["share_of_levels"] for row in rounded)]),
    (
        "and {}% of the pixels differ, by {} levels at most",
        [100 * moved["share_of_levels"], moved["max_levels"]],
    ),
]

# Arithmetic

flops = rivals["gflop_an_image"]
contestants = rivals["results"]
openvino_alone = rate(contestants["network alone, OpenVINO"])
AIMS = (5, 8)
"""What `apply` should gain over the per-image `map` on TensorFlow and on OpenVINO."""


def share_of_product(name: str) -> float:
    """Return the share of a float32 matrix product that a contestant reached."""
    return contestants[name]["share_of_matrix_product"]["median"]


ARITHMETIC: list[tuple[str, Sequence[float]]] = [
    make_rows("{} | {} | {}", {f"`{c}`": list(flops[c].values()) for c in CHECKPOINTS}),
    (
        "`apply` reached {} of it on TensorFlow and {} on OpenVINO",
        [share_of_product("apply, tensorflow"), share_of_product("apply, openvino")],
    ),
    (
        "OpenVINO alone {} and ONNX Runtime alone {}",
        [
            share_of_product("network alone, OpenVINO"),
            share_of_product("network alone, ONNX Runtime, an image at a time"),
        ],
    ),
    (
        "5 times the per-image `map` on TensorFlow and 8 times on OpenVINO are {} and {}"
        " images/s, or {} and {} GFLOP/s of samples, where a matrix product of these cores"
        " reaches {} at its best (2,048 rows)",
        [
            *(aim * naive for aim in AIMS),
            *(aim * naive * flops["vector"]["sample"] for aim in AIMS),
            rivals["matrix_product_gflop_per_second"]["best"]["median"],
        ],
    ),
    (
        "in float32, makes {} images/s there, which is {} times, within the spread of the {} above",
        [
            openvino_alone,
            openvino_alone / naive,
            throughput["apply, openvino, without a seed"]["ratio_to_naive"]["median"],
        ],
    ),
    ("`denoise` has {} of them", [flops["vector"]["denoise"] / flops["vector"]["sample"]]),
]

# Beside others

RIVALS = {
    '`apply`, `"openvino"`': ["apply, openvino"],
    '`apply`, `"openvino"`, with a seed': ["apply, openvino, with a seed"],
    '`apply`, `"openvino-bfloat16"`': ["apply, openvino-bfloat16"],
    '`apply`, `"tensorflow"`': ["apply, tensorflow"],
    '`apply`, `"tensorflow"`, with a seed': ["apply, tensorflow, with a seed"],
    "network alone, TensorFlow": ["network alone, TensorFlow"],
    "network alone, OpenVINO in bfloat16": ["network alone, OpenVINO, bfloat16"],
    "network alone, ONNX Runtime, an image / 8 at a time": [
        "network alone, ONNX Runtime, an image at a time",
        "network alone, ONNX Runtime, 8 images at a time",
    ],
    "network alone, PyTorch, 8 at a time: eager / TorchScript / `torch.compile`": [
        f"network alone, PyTorch, {way}, 8 images at a time"
        for way in ("eager", "TorchScript", "torch.compile")
    ],
    "Albumentations: elastic, shot noise": ["Albumentations: elastic, shot noise"],
    "Keras's layers: flip, contrast, elastic": ["Keras layers: flip, contrast, elastic"],
    "MONAI's AutoencoderKL of like cost, 8 at a time": ["MONAI AutoencoderKL, 8 images at a time"],
}
"""Rows of the page, and the names of the results that each holds."""

bfloat16_to_bare = statistics.median(
    applied / bare
    for applied, bare in zip(
        contestants["apply, openvino-bfloat16"]["rounds"],
        contestants["network alone, OpenVINO, bfloat16"]["rounds"],
        strict=True,
    )
)
BESIDE: list[tuple[str, Sequence[float]]] = [
    ("Five rounds of {} images of `vector`", [rivals["settings"]["images"]]),
    ("in float32 ({} images/s), median and spread", [openvino_alone]),
    *(
        (
            f"| {row} | {' / '.join(['{} ({} to {})'] * len(names))} |",
            [value for name in names for value in spread(contestants[name]["ratio"])],
        )
        for row, names in RIVALS.items()
    ),
    (
        "is at {} of a bare loop around the same network in float32, which was the aim, and at {}"
        " of one in bfloat16",
        [contestants["apply, openvino"]["ratio"]["median"], bfloat16_to_bare],
    ),
]

# On another processor

slower = [rate(throughput[way]) / rate(throughput_amx[way]) for way in throughput_amx]
AMX: list[tuple[str, Sequence[float]]] = [
    ("was {} to {} times slower", [min(slower), max(slower)]),
    (
        "Over the per-image `map` ({} images/s), `apply` made {}, {} and {} on TensorFlow, OpenVINO"
        " and in bfloat16 with a seed and {}, {} and {} without",
        [
            rate(throughput_amx["plain network, map an image at a time"]),
            *(
                throughput_amx[f"apply, {engine}{seed}"]["ratio_to_naive"]["median"]
                for seed in ("", ", without a seed")
                for engine in ENGINES
            ),
        ],
    ),
    (
        "Records to batches ran at {}, {} and {} of the network alone",
        [compare_ends(pipeline_amx, engine)[0] for engine in ENGINES],
    ),
]

# Growth and memory

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
SIZES = [f"{ckpt}, {size}" for ckpt in CHECKPOINTS for size in (224, 512)]
starts = {
    name: found["construction_s"]["median"] + found["first_image_s"]["median"]
    for name, found in growth["start"].items()
}
constructions = [found["construction_s"]["median"] for found in growth["start"].values()]
peaks = growth["peak"]
peak_gb = peaks["tensorflow, vector"]["all_passes_mib"] * 2**20 / 1e9
memory = {engine: list(found["rss_mib"].values()) for engine, found in growth["growth"].items()}


def list_rates(table: str, engine: str, cases: Sequence[object]) -> list[float]:
    """List the rates of an engine in a table of `growth.json`."""
    return [rate(growth[table][f"{engine}, {case}"]) for case in cases]


def list_starts(ckpt: str) -> list[float]:
    """List seconds on TensorFlow, then on both engines of OpenVINO with and without a cache."""
    cases = [f"{e}, {ckpt}, {c}" for e in list(ENGINES)[1:] for c in ("cached", "not cached")]
    return [starts[f"tensorflow, {ckpt}"], *(starts[case] for case in cases)]


def list_lengths(engine: str) -> list[float]:
    """List milliseconds an image of passes of three lengths."""
    return [growth["dataset_length"][f"{engine}, {length}"]["median"] for length in (64, 256, 1024)]


GROWTH: list[tuple[str, Sequence[float]]] = [
    make_rows(
        "{} | {} | {} | {} | {} | {}",
        {name: list_rates("batch_size", e, BATCH_SIZES) for e, name in ENGINES.items()},
    ),
    make_rows(
        "{} | {} | {} | {}",
        {name: list_rates("image_size", e, SIZES) for e, name in ENGINES.items()},
    ),
    (
        "took {}, {} and {} ms an image on TensorFlow, {}, {} and {} on OpenVINO and {}, {} and {}"
        " in bfloat16",
        [value for engine in ENGINES for value in list_lengths(engine)],
    ),
    (
        "made {}, {}, {} and {} images/s on TensorFlow, {}, {}, {} and {} on OpenVINO, and {}, {},"
        " {} and {} in bfloat16",
        [v for engine in ENGINES for v in list_rates("parallel_calls", engine, (1, 2, 4, 8))],
    ),
    ("which takes {} to {} s itself", [min(constructions), max(constructions)]),
    make_rows("{} | {} ({}) | {} ({})", {f"`{ckpt}`": list_starts(ckpt) for ckpt in CHECKPOINTS}),
    (
        "of which {} to {} are there before the first pass",
        [f(found["loaded_mib"] for found in peaks.values()) for f in (min, max)],
    ),
    make_rows(
        "{} / {} | {} / {}",
        {
            f"{ENGINES[engine]}, `{ckpt}`": [
                peaks[f"{engine}, {ckpt}{arena}"][passes]
                for arena in ("", ", one arena")
                for passes in ("one_pass_mib", "all_passes_mib")
            ]
            for engine in ("tensorflow", "openvino")
            for ckpt in CHECKPOINTS
        },
    ),
    (
        "`vector` on TensorFlow misses it by {}% ({} MiB are {} GB)",
        [100 * (peak_gb / 2 - 1), peaks["tensorflow, vector"]["all_passes_mib"], peak_gb],
    ),
    (
        "{} s in place of {} (`vector`) and {} in place of {} (`demo`) on TensorFlow",
        [
            peaks[f"tensorflow, {ckpt}{arena}"]["pass_s"]
            for ckpt in CHECKPOINTS
            for arena in (", one arena", "")
        ],
    ),
    (
        "memory grew by {}% on OpenVINO and {}% on TensorFlow",
        [100 * growth["growth"][engine]["growth"] for engine in ("openvino", "tensorflow")],
    ),
    (
        "TensorFlow's process stood at {} MiB all along, with an EfficientNet-B1 of random weights,"
        " OpenVINO's at {}",
        [max(memory["tensorflow"]), max(memory["openvino"])],
    ),
]

# The load test


def list_held(case: str, field: str) -> list[float]:
    """List what a process held at each tenth of the elements."""
    return [note[field] for note in load[case]["notes"]]


def list_load(case: str) -> list[float]:
    """List what a row of the load test prints."""
    megabytes = list_held(case, "megabytes")
    return [
        min(megabytes),
        max(megabytes),
        max(list_held(case, "threads")),
        max(list_held(case, "descriptors")),
        statistics.mean(list_held(case, "images_per_second")),
        *load[case]["rate_to_fresh"],
    ]


held = {case: list_held(case, "megabytes") for case in load}
moves = {case: max(megabytes) - min(megabytes) for case, megabytes in held.items()}
speeds = [list_held(case, "images_per_second") for case in load]
variations = [100 * statistics.stdev(tenths) / statistics.mean(tenths) for tenths in speeds]
slowest = {case: 100 * (1 - found["rate_to_fresh"][1]) for case, found in load.items()}
many = [case for case in load if case.startswith("200000x64")]
PASSES = 200_000 / 250  # `benchmarks/load.py` has 250 images
LOAD: list[tuple[str, Sequence[float]]] = [
    make_rows("{} to {} | {} | {} | {} | {} ({} to {})", {case: list_load(case) for case in load}),
    (
        "Memory moves by {}% at most",
        [max(100 * move / min(held[case]) for case, move in moves.items())],
    ),
    ("a fresh one took {} turns", [max(len(found["turns"]) for found in load.values())]),
    ("varies by {} to {}% from tenth to tenth", [min(variations), max(variations)]),
    (
        "the intervals reach {}% (64 pixels, OpenVINO) and {}% (512 pixels, TensorFlow)",
        [slowest["200000x64, openvino"], slowest["20000x512, tensorflow"]],
    ),
    (
        "{} to {} MB in the {} passes of the table above",
        [min(moves[case] for case in many), max(moves[case] for case in many), PASSES],
    ),
]

MEASURED: list[tuple[str, Sequence[float]]] = [
    *PIPELINE,
    *STARTUP,
    *SPEED,
    *ARITHMETIC,
    *BESIDE,
    *AMX,
    *GROWTH,
    *LOAD,
]
GIVEN: list[str] = [
    "on brain MR of 256 by 256 pixels",
    "where 10% was the aim",
    "where 0.95 was the aim",
    "[ADR 0009]",
    "[ADR 0011]",
    "[ADR 0014]",
    "The aims were 3 s from construction to the first image of a later start, and 0.2 s for a pass",
    "The aims were 5 on TensorFlow and 8 on OpenVINO",
    "one grey level of 255 at most",
    "The aim was 50 dB there",
    "counted from the frozen graph at 224 pixels",
    "where 0.5 was the aim",
    "`sample` at 224 pixels without a seed unless said otherwise",
    "| images/s by `batch_size`, `vector` | 1 | 2 | 4 | 8 | 16 | 32 |",
    "| images/s by size, batches of 8 |",
    "| `vector`, 224 | `vector`, 512 | `demo`, 224 | `demo`, 512 |",
    "A pass over 64, 256 and 1,024 images took",
    "`map` of single images with 1, 2, 4 and 8 parallel calls made",
    "Under 10 s was the aim",
    "after eight passes over 96 images of 224 pixels",
    "| MiB after 1 / 8 passes |",
    "Under 2 GB without that setting was the aim",
    "Over one pass of 20,000 images with a seed, from element 2,000 on",
    "Over 200,000 elements of 64 pixels, and 20,000 of 512",
    "in many passes over 250 images",
    "(mean and 95% interval)",
    "A slowing by more than 2% is excluded in two cases of four",
]
