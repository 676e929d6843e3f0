"""Random TFRecords in the schema of the TF Object Detection API, mutated.

Images have no files of their own here: the key of one is that of its file, `#`, and the number of
its record.
"""

from __future__ import annotations

import gzip
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

Truth = dict[str, list[tuple[str, tuple[float, float, float, float]]]]

HEIGHT, WIDTH = 16, 32
NAMES = ("nodule", "kyste rénal", "7", "Mass")
SIDES = ("ymin", "xmin", "ymax", "xmax")
BOX_KEYS = tuple(f"image/object/bbox/{side}" for side in SIDES)
TEXT, LABEL = "image/object/class/text", "image/object/class/label"
Features = dict[str, list[bytes] | list[float] | list[int]]


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one source of records; see the module for the keys of what is returned."""
    truth: Truth = {}
    has_map = rng.random() < 0.5
    style = rng.choice(("both", "text") if not has_map else ("both", "text", "label"))
    mutate = rng.choice(MUTATIONS)
    name = rng.choice(("train.tfrecord", "a.record", "train-00000-of-00001.tfrecord"))
    records = []
    for index in range(rng.randint(1, 4)):
        boxes = [_make_box(rng) for _ in range(rng.randint(0, 3))]
        features = _make_features(rng, index, boxes, style)
        if rng.random() < 0.7:
            mutate(rng, features)
        records.append(_serialize(rng, features))
        truth[f"{name}#{index}"] = [(NAMES[number - 1], box) for number, box in boxes]
    path = folder / name
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    if has_map:
        _write_map(rng, folder / "label_map.pbtxt")
    if rng.random() < 0.2:
        _damage(rng, path)
    return truth


def _make_box(rng: random.Random) -> tuple[int, tuple[float, float, float, float]]:
    """Make a class and `xyxy` on a grid of half pixels, which float32 holds exactly."""
    left, top = rng.randrange(0, 2 * WIDTH - 8) / 2, rng.randrange(0, 2 * HEIGHT - 8) / 2
    right, bottom = left + rng.randint(1, 6) / 2, top + rng.randint(1, 6) / 2
    return rng.randint(1, len(NAMES)), (left, top, right, bottom)


def _make_features(rng: random.Random, index: int, boxes: list, style: str) -> Features:
    pixels = np.full((HEIGHT, WIDTH), index * 50 + 3, np.uint8)
    features: Features = {
        "image/encoded": [cv2.imencode(".png", pixels)[1].tobytes()],
        "image/source_id": [f"image {index}".encode()],
        "image/format": [b"png"],
        "image/height": [HEIGHT],
        "image/width": [WIDTH],
    }
    for side, key in enumerate(BOX_KEYS):
        place = (1, 0, 3, 2)[side]
        size = HEIGHT if place % 2 else WIDTH
        features[key] = [box[place] / size for _, box in boxes]
    if style != "label":
        features[TEXT] = [NAMES[number - 1].encode() for number, _ in boxes]
    if style != "text":
        features[LABEL] = [number for number, _ in boxes]
    return features


def _serialize(rng: random.Random, features: Features) -> bytes:
    keys = list(features)
    rng.shuffle(keys)
    return tf.train.Example(
        features=tf.train.Features(feature={key: _make_feature(features[key]) for key in keys})
    ).SerializeToString()


def _make_feature(values: list) -> tf.train.Feature:
    if values and isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if values and isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _write_map(rng: random.Random, path: Path) -> None:
    items = [f'item {{ id: {i} name: "{name}" }}' for i, name in enumerate(NAMES, start=1)]
    rng.shuffle(items)
    text = rng.choice(("\n", "\r\n", " ")).join(items)
    path.write_bytes(rng.choice((b"", b"\xef\xbb\xbf")) + text.encode())


def _damage(rng: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    match rng.randrange(4):
        case 0:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del data[rng.randrange(len(data)) :]
        case 2:
            data = bytearray(gzip.compress(bytes(data), mtime=0))
        case _:
            data += bytes(rng.randrange(256) for _ in range(rng.randrange(30)))
    path.write_bytes(data)


# --- Mutations of one record


def _keep(rng: random.Random, features: Features) -> None:
    pass


def _dress_text(rng: random.Random, features: Features) -> None:
    """White space, line ends, and another Unicode form."""
    form = rng.choice(("NFC", "NFD"))
    dress = rng.choice(("{}\n", " {}", "{}\r\n", "\t{} "))
    features[TEXT] = [
        dress.format(unicodedata.normalize(form, text.decode())).encode()
        for text in features.get(TEXT, [])
    ]


def _break_text(rng: random.Random, features: Features) -> None:
    features[TEXT] = [b"\xff" + text for text in features.get(TEXT, [])]


def _lose_key(rng: random.Random, features: Features) -> None:
    """Not of the text: where it is gone, the number is the name, and no loss."""
    features.pop(rng.choice([key for key in features if "object" in key and key != TEXT]), None)


def _lose_value(rng: random.Random, features: Features) -> None:
    """Not the only text, as above."""
    key = rng.choice([key for key in features if "object" in key])
    if key != TEXT or len(features[key]) > 1:
        features[key] = features[key][:-1]


def _rename_boxes(rng: random.Random, features: Features) -> None:
    begin = rng.choice(("image/bbox/", "", "objects/", "image/object/"))
    for side, key in zip(SIDES, BOX_KEYS, strict=True):
        features[begin + side] = features.pop(key)
    if rng.random() < 0.5:
        features.pop(TEXT, None)
        features.pop(LABEL, None)


def _use_pixels(rng: random.Random, features: Features) -> None:
    for side, key in zip(SIDES, BOX_KEYS, strict=True):
        size = HEIGHT if side[0] == "y" else WIDTH
        as_integers = rng.random() < 0.3
        values = [value * size for value in features[key]]
        features[key] = [int(value) for value in values] if as_integers else values


def _spoil_value(rng: random.Random, features: Features) -> None:
    key = rng.choice(BOX_KEYS)
    if features[key]:
        values = (float("nan"), float("inf"), -5.0, 40.0, 2.0)
        features[key][rng.randrange(len(features[key]))] = rng.choice(values)


def _shift_labels(rng: random.Random, features: Features) -> None:
    """Where there is a text, too, which tells."""
    if TEXT in features:
        features[LABEL] = [number - 1 for number in features.get(LABEL, [])]


def _share_id(rng: random.Random, features: Features) -> None:
    features["image/source_id"] = [rng.choice((b"", b"0", b"same"))]


def _state(rng: random.Random, features: Features) -> None:
    features["image/annotation"] = [rng.choice((b"none", b"faulty", b"complete", b"what"))]


def _say_nothing(rng: random.Random, features: Features) -> None:
    """Only of an image without boxes, whose features other tools leave out."""
    if not features[BOX_KEYS[0]]:
        for key in [key for key in features if "object" in key]:
            del features[key]


MUTATIONS: tuple[Callable[[random.Random, Features], None], ...] = (
    _keep,
    _dress_text,
    _break_text,
    _lose_key,
    _lose_value,
    _rename_boxes,
    _use_pixels,
    _spoil_value,
    _shift_labels,
    _share_id,
    _state,
    _say_nothing,
)
