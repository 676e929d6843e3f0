"""What users get wrong, and what is said of it: a table of calls and of words of their messages.

Every row of `REFUSED` raises, every row of `SAID` is a warning and changes nothing.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
import tensorflow as tf
from fake_vae import FakeVAE

from vae_aug.augment.transform import VAEAugment

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 1)).astype(np.uint8)
FLOATS = IMAGE.astype(np.float32)
HU = FLOATS * 16 - 1024
RELATIVE = np.array([[0.1, 0.2, 0.5, 0.6]], np.float32)
PIXELS = np.array([[12, 4, 36, 20]], np.float32)
GRAPH_ERROR = tf.errors.InvalidArgumentError


def make(**settings):
    return lambda: VAEAugment(FakeVAE(), **settings)


def call(element, **settings):
    return lambda: VAEAugment(FakeVAE(), seed=1, **settings)(element)


def tfds(boxes, image=IMAGE):
    return {"image": image, "objects": {"bbox": boxes}}


REFUSED = {
    # Settings.
    "factor as a range": (
        make(factor=(0.5, 1.0)),
        TypeError,
        r"range, factor=1\.0",
    ),
    "a range for denoise": (
        make(mode="denoise", weakest=0.5),
        ValueError,
        "weakest is for modes that vary images; got mode='denoise'",
    ),
    "factor as a list": (make(factor=[0, 2]), TypeError, r"got \[0, 2\] \(list\).*factor=2"),
    "factor as text": (make(factor="0.5"), TypeError, r"got '0.5' \(str\).*without quotes"),
    "factor as a switch": (make(factor=True), TypeError, r"got True \(bool\)"),
    "factor None": (make(factor=None), TypeError, "factor must be a number; got None"),
    "factor below 0": (make(factor=-0.5), ValueError, r"factor must be in \[0, inf\); got -0.5"),
    "factor infinite": (make(factor=float("inf")), ValueError, "factor must be in.*got inf"),
    "factor as a tensor": (make(factor=tf.constant(1.0)), TypeError, "EagerTensor"),
    "detail in per cent": (make(detail=50), ValueError, "detail must be in.*50% is 0.5"),
    "p in per cent": (make(p=50), ValueError, r"p must be in \[0, 1\]; got 50.*50% is 0\.5"),
    "min_fidelity in per cent": (make(min_fidelity=80), ValueError, "min_fidelity must be in"),
    "value_range of one number": (make(value_range=255), TypeError, r"pass value_range=\(0, 255\)"),
    "value_range the wrong way": (make(value_range=(255, 0)), ValueError, r"Pass \(0, 255\)"),
    "value_range empty": (make(value_range=(1, 1)), ValueError, "low < high"),
    "value_range as text": (make(value_range="0,255"), TypeError, r"pair.*got '0,255' \(str\)"),
    "value_range of three": (make(value_range=(0, 1, 2)), TypeError, r"pair.*\(0, 1, 2\)"),
    "value_range with None": (make(value_range=(None, 1)), TypeError, r"value_range\[0\]"),
    "value_range without end": (make(value_range=(0, np.inf)), ValueError, "must be finite"),
    "format in capitals": (make(bounding_box_format="XYXY"), ValueError, "Did you mean 'xyxy'"),
    "format of COCO": (make(bounding_box_format="coco"), ValueError, "are 'xywh' here"),
    "format of YOLO": (make(bounding_box_format="yolo"), ValueError, "Convert them"),
    "format of none": (make(bounding_box_format="corners"), ValueError, "must be one of 'xyxy'"),
    "guard off in YAML": (make(guard=False), ValueError, "guard='off', in YAML with the quotes"),
    "mode misspelled": (make(mode="denoised"), ValueError, "Did you mean 'denoise'"),
    "engine misspelled": (make(engine="open-vino"), ValueError, "Did you mean 'openvino'"),
    "batch_size of a fraction": (make(batch_size=2.5), TypeError, r"integer; got 2.5 \(float\)"),
    "batch_size 0": (make(batch_size=0), ValueError, "batch_size must be in"),
    "seed of a fraction": (make(seed=0.5), TypeError, "seed must be an integer; got 0.5"),
    "device that is not there": (make(device="/GPU:7"), ValueError, r"/GPU:7.*finds '/CPU:0'"),
    "device misspelled": (make(device="graphics"), ValueError, "name such as '/GPU:0'"),
    "device by number": (make(device=0), TypeError, r"got 0 \(int\)"),
    "no checkpoint": (lambda: VAEAugment(None), TypeError, "ckpt must be a path.*NoneType"),
    # Keys, dtypes and shapes.
    "bboxes": (
        call({"image": IMAGE, "bboxes": RELATIVE}),
        ValueError,
        r"\['bboxes'\] would not be guarded.*'bbox' \(rel_yxyx\)",
    ),
    "boxes in another group": (
        call({"image": IMAGE, "annotations": {"bbox": RELATIVE}}),
        ValueError,
        r"\['annotations', 'bbox'\] would not be guarded",
    ),
    "boxes of Model Garden": (
        call((IMAGE, {"groundtruth_boxes": RELATIVE})),
        ValueError,
        r"\[1, 'groundtruth_boxes'\] would not be guarded",
    ),
    "one box without its axis": (call(tfds(RELATIVE[0])), ValueError, r"must be \[N, 4\]"),
    "range of floats for integers": (
        call(IMAGE, value_range=(0, 1)),
        ValueError,
        r"value_range=\(0, 1\) leaves nothing.*uint8.*\(0, 255\)",
    ),
    "signed range for unsigned": (
        call(IMAGE, value_range=(-1024, 0)),
        ValueError,
        "leaves nothing",
    ),
    # Values.
    "Hounsfield units": (call(HU), GRAPH_ERROR, r"-1024.*value_range=.*\(-1024, 3071\)"),
    "12 bits as floats": (call(FLOATS * 16), GRAPH_ERROR, r"value_range=.*\(0, 4095\) for 12 bits"),
    "[0, 255] said to be [0, 1]": (
        call(FLOATS, value_range=(0, 1)),
        GRAPH_ERROR,
        r"value_range=\(0, 1\), and received.*255",
    ),
    "[0, 255] said to be [-1, 1]": (call(FLOATS, value_range=(-1, 1)), GRAPH_ERROR, "received"),
    "not a number": (
        call(np.full_like(HU, np.nan), value_range=(-1024, 3071)),
        GRAPH_ERROR,
        "must be finite",
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_that_is_certain_is_refused(mistake):
    run, error, words = REFUSED[mistake]
    with pytest.raises(error, match=rf"(?s){words}"):
        run()


SAID = {
    "no boxes": (
        {"image": IMAGE, "name": np.int64(3)},
        {},
        r"nothing to guard.*'name' int64 \(\).*guard='off'",
    ),
    "boxes without a key": ((IMAGE, RELATIVE), {}, r"\[1\].*shape of boxes and no key"),
    "target without boxes": ((IMAGE, {"label": np.int64(3)}), {}, "'1/label' int64"),
    "boxes a coordinate at a time": (
        {"image": IMAGE, "image/object/bbox/xmin": RELATIVE[:, 0]},
        {},
        "nothing to guard.*bbox/xmin",
    ),
    "pixels as fractions": (
        tfds(PIXELS),
        {},
        r"\['objects', 'bbox'\] are read as 'rel_yxyx'.*\[12.0, 4.0, 36.0, 20.0\].*\[40, 60\]",
    ),
    "integers as fractions": (tfds(np.array([[0, 0, 1, 1]])), {}, "int64.*fractions"),
    "fractions as pixels": (
        {"images": IMAGE, "bounding_boxes": {"boxes": RELATIVE}},
        {},
        "'xyxy', which cannot be",
    ),
    "sides as corners": (
        {"image": IMAGE, "boxes": np.float32([[40, 20, 10, 10]])},
        {},
        "read as 'xyxy'.*no area",
    ),
    "corners as sides": (
        {"image": IMAGE, "boxes": np.float32([[40, 20, 60, 40]])},
        {"bounding_box_format": "xywh"},
        "read as 'xywh'",
    ),
    "[0, 1] said to be [0, 255]": (
        tfds(RELATIVE, FLOATS / 255),
        {"value_range": (0, 255)},
        "do not look like it",
    ),
    "12 bits said to be 8": (
        tfds(RELATIVE, IMAGE.astype(np.uint16) * 16),
        {"value_range": (0, 255)},
        r"much of it lies above white.*\[0.0, 4080.0\]",
    ),
    "12 bits in 8": (
        tfds(RELATIVE),
        {"value_range": (0, 4095)},
        r"uint8, whose highest value is 255",
    ),
}


def test_the_tables_are_long_enough():
    assert len(REFUSED) + len(SAID) >= 25


def to_bytes(element):
    return [np.asarray(part).tobytes() for part in tf.nest.flatten(element)]


@pytest.mark.parametrize("mistake", SAID)
def test_a_mistake_that_is_likely_is_said_once_and_changes_nothing(mistake, logged):
    element, settings, words = SAID[mistake]
    augment = VAEAugment(FakeVAE(), seed=1, **settings)
    for _ in range(2):
        changed = augment(*element) if isinstance(element, tuple) else augment(element)
    [record] = logged
    assert record.levelno == logging.WARNING and record.name.startswith("vae_aug.")
    with pytest.raises(AssertionError, match=rf"(?s){words}"):
        raise AssertionError(record.getMessage())
    before, after = to_bytes(element), to_bytes(changed)
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


FINE = {
    "bare image": (IMAGE, {}),
    "bare batch": (np.stack([IMAGE] * 2), {}),
    "image and class": ((IMAGE, np.int64(3)), {}),
    "batch and scores of four classes": ((np.stack([IMAGE] * 2), np.ones([2, 4], np.float32)), {}),
    "guard off": ({"image": IMAGE, "bboxes": RELATIVE}, {"guard": "off"}),
    "anchors beside boxes": ({**tfds(RELATIVE), "anchor_boxes": PIXELS}, {}),
    "number of boxes": ({**tfds(RELATIVE), "num_boxes": np.int64(1)}, {}),
    "nothing changes": ({"image": IMAGE, "bboxes": RELATIVE}, {"factor": 0.0}),
    "padding": (tfds(np.float32([[0.1, 0.2, 0.5, 0.6], [-1] * 4, [0] * 4, [np.nan] * 4])), {}),
    "no box": (tfds(np.zeros([0, 4], np.float32)), {}),
    "a little outside": (tfds(np.float32([[0.1, 0.2, 1.02, 1.05]])), {}),
    "window on Hounsfield units": (tfds(RELATIVE, HU - 800), {"value_range": (-160, 1500)}),
    "signed": (tfds(RELATIVE, FLOATS / 127.5 - 1), {"value_range": (-1, 1)}),
    "an empty slice": (tfds(RELATIVE, FLOATS * 0), {"value_range": (0, 255)}),
    "12 bits": (tfds(RELATIVE, IMAGE.astype(np.uint16) * 16), {"value_range": (0, 4095)}),
    "a box of a pixel": (
        {"image": IMAGE[:6, :6], "boxes": np.float32([[0, 0, 1, 1]])},
        {},
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_nothing_is_said_of_what_is_fine(name, logged, capfd):
    element, settings = FINE[name]
    augment = VAEAugment(FakeVAE(), seed=1, **settings)
    list(tf.data.Dataset.from_tensors(element).map(augment))
    _ = augment(*element) if isinstance(element, tuple) else augment(element)
    assert not logged
    assert "VAEAugment" not in capfd.readouterr().err


@pytest.mark.parametrize("way", ["map", "apply", "parallel", "batch", "ragged images"])
def test_datasets_say_it_once_in_a_pass(way, capfd):
    dataset = tf.data.Dataset.from_tensors(tfds(PIXELS)).repeat(6)
    augment = VAEAugment(FakeVAE(), seed=1)
    ways = {
        "map": lambda: dataset.map(augment),
        "apply": lambda: dataset.apply(augment),
        "parallel": lambda: dataset.map(augment, num_parallel_calls=4),
        "batch": lambda: dataset.batch(2).map(augment),
        "ragged images": lambda: dataset.map(loosen).ragged_batch(2).map(augment),
    }

    def loosen(element):
        image = tf.ensure_shape(
            tf.py_function(lambda x: x, [element["image"]], "uint8"), [None, None, 1]
        )
        return {**element, "image": image}

    elements = list(ways[way]())
    told = capfd.readouterr().err
    assert told.count("VAEAugment") == 1
    assert "are read as 'rel_yxyx'" in told and "[12 4 36 20][40 60]" in told
    boxes = elements[0]["objects"]["bbox"]
    assert np.asarray(boxes).reshape(-1, 4)[:1].tobytes() == PIXELS.tobytes()


def test_datasets_are_refused_when_they_are_made():
    dataset = tf.data.Dataset.from_tensors({"image": IMAGE, "bboxes": RELATIVE})
    for way in (lambda augment: dataset.map(augment), lambda augment: dataset.apply(augment)):
        with pytest.raises(ValueError, match="would not be guarded"):
            way(VAEAugment(FakeVAE()))


def test_a_dataset_without_boxes_is_told_of_once(logged):
    augment = VAEAugment(FakeVAE(), seed=1)
    dataset = tf.data.Dataset.from_tensors({"image": IMAGE, "name": "a"})
    list(dataset.map(augment)), list(dataset.apply(augment))
    assert ["nothing to guard" in record.getMessage() for record in logged] == [True]


def test_the_look_at_boxes_can_be_serialised_and_resumed(tmp_path):
    augment = VAEAugment(FakeVAE(), seed=1)
    dataset = tf.data.Dataset.from_tensors(tfds(PIXELS)).repeat(4).apply(augment)
    graph = tf.raw_ops.DatasetToGraphV2(
        input_dataset=dataset._variant_tensor, external_state_policy=2
    )
    assert b"PyFunc" not in graph.numpy()
    iterator = iter(dataset)
    next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).save(tmp_path / "state")
    expected = [element["image"].numpy() for element in iterator]
    resumed = iter(dataset)
    tf.train.Checkpoint(iterator=resumed).restore(path)
    np.testing.assert_array_equal([element["image"].numpy() for element in resumed], expected)


def test_a_training_step_that_xla_compiles_holds_no_printing():
    augment = VAEAugment(FakeVAE(), seed=1)
    step = tf.function(lambda element: augment(element), autograph=False)
    graph = step.get_concrete_function(tfds(tf.constant(PIXELS), tf.constant(IMAGE))).graph
    assert "Print" not in str({node.op for node in graph.as_graph_def().node})
    assert "Print" not in {
        node.op for function in graph.as_graph_def().library.function for node in function.node_def
    }


def test_numbers_of_numpy_become_python_s():
    config = VAEAugment(
        FakeVAE(), factor=np.float32(0.5), seed=np.int64(3), value_range=np.array([0, 255])
    ).config
    assert (config.factor, config.seed, config.value_range) == (0.5, 3, (0, 255))
    assert [type(value) for value in (config.factor, config.seed)] == [float, int]
    assert type(config.value_range) is tuple
