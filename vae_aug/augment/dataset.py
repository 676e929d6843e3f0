"""The fast path: a whole dataset, which is batched inside for the network alone.

    element -> (element, request) -> batch -> network -> unbatch -> (element, output) -> element

Images of mixed sizes meet as the network's squares. A network that sees them in their own size gets
those of one size together where `element_spec` promises it, and out of ragged batches on a device
that the user names; else one at a time, which spares the memory of a batch of large images. The
elements themselves are carried past the network boxed as scalar variants
(`tf.data.experimental.Optional`), which batch and unbatch whatever is inside and copy nothing.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from vae_aug.augment.batches import Request
from vae_aug.augment.elements import Example, get_at, make_dense, read_example, replace_at
from vae_aug.augment.seeds import count_epochs, hash_content
from vae_aug.augment.steps import Steps
from vae_aug.autotune import leave_untuned
from vae_aug.engines.engine import Known

# Nothing here branches in Python on tensors, and converted code is slow to trace and to debug.
_do_not_convert = tf.autograph.experimental.do_not_convert

NETWORK_CALLS = 2
"""Batches under way in the network: one computes while the other waits for a free core."""


_MISPLACED = (
    "An element is not the one that the cache has in its place. The dataset must be the one that "
    "the cache was made of, in the same order: shuffle after cache(), not before, and delete the "
    "folder if the data changed."
)


def augment_dataset(
    dataset: tf.data.Dataset, steps: Steps, described: tf.data.Dataset | None = None
) -> tf.data.Dataset:
    """Augment every element of a dataset.

    Order, cardinality and element structure are kept. With a seed, every pass over the returned
    dataset is an epoch of its own, see `vae_aug.augment.seeds.count_epochs`. Within `interleave`
    or `flat_map` tf.data makes the inner dataset anew in every pass, so each is epoch 0 there.

    tf.data's tuner is switched off, see `vae_aug.autotune.leave_untuned`.

    At native resolution on a CPU, images of one size run faster if their `element_spec` says so
    (see `tf.ensure_shape`): without it, the network runs on one at a time.

    Args:
        dataset: Of elements or of batches.
        steps: The transform.
        described: Descriptions of the elements, which must be single, from
            `vae_aug.augment.cache.open_cache`; None if there is no cache.

    Returns:
        A dataset with the same `element_spec`, up to static shapes that become known.

    Raises:
        ValueError: If there is no image in its elements, or its shape is not supported.
        TypeError: If the image's dtype is not supported.
    """
    layout = steps.find_layout(dataset.element_spec)
    if steps.is_identity:
        return dataset
    numbered = leave_untuned(_number_epochs(dataset, steps.config.seed))

    @_do_not_convert
    def run(epoch: tf.Tensor, element: Any) -> Any:
        return steps.run(element, layout, epoch)[0]

    @_do_not_convert
    def prepare(epoch: tf.Tensor, element: Any, *described: Any) -> tuple[tf.Tensor, Request]:
        example = read_example(element, layout, epoch)
        known = _check_known(example, *described) if described else None
        return _box(element), steps.prepare(example, known)

    @_do_not_convert
    def compute(boxed: tf.Tensor, requests: Request) -> tuple[tf.Tensor, ...]:
        return boxed, steps.compute(requests), requests.chosen

    @_do_not_convert
    def finish(boxed: tf.Tensor, computed: tf.Tensor | tf.RaggedTensor, chosen: tf.Tensor) -> Any:
        element = _unbox(boxed, dataset.element_spec)
        example = read_example(element, layout)
        image, _ = steps.finish(layout, example, make_dense(computed), chosen)
        return replace_at(element, layout.image, image)

    in_network = {"num_parallel_calls": NETWORK_CALLS, "deterministic": True}
    if layout.batched:
        return numbered.map(run, **in_network)
    around = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    if described is not None:
        numbered = tf.data.Dataset.zip((numbered, described)).map(
            _do_not_convert(lambda pair, description: (*pair, *description))
        )
    one_size = get_at(dataset.element_spec, layout.image).shape.is_fully_defined()
    prepared = numbered.map(prepare, **around)
    if steps.engine.image_size is not None or one_size:
        batches = prepared.batch(steps.config.batch_size)
    elif steps.config.device is not None:
        batches = prepared.ragged_batch(steps.config.batch_size)
    else:
        batches = prepared.batch(1)
    augmented = batches.map(compute, **in_network).unbatch().map(finish, **around)
    return _keep_cardinality(augmented, dataset)


def _check_known(example: Example, fingerprint: tf.Tensor, known: Known) -> Known:
    """Check that a description is of the example that it comes with."""
    same = tf.equal(hash_content(example.image), fingerprint)
    with tf.control_dependencies([tf.debugging.Assert(same, [_MISPLACED])]):
        return {name: tf.identity(part) for name, part in known.items()}


def _keep_cardinality(changed: tf.data.Dataset, source: tf.data.Dataset) -> tf.data.Dataset:
    """Say how many elements there are, which `unbatch` forgets.

    Within `interleave` or `flat_map` the number is a tensor of the graph, and stays unknown.
    """
    cardinality = source.cardinality()
    if not tf.executing_eagerly() or cardinality == tf.data.UNKNOWN_CARDINALITY:
        return changed
    return changed.apply(tf.data.experimental.assert_cardinality(cardinality))


def _number_epochs(dataset: tf.data.Dataset, seed: int | None) -> tf.data.Dataset:
    """Pair every element with the number of the pass over the dataset, 0 without a seed."""
    if seed is None:
        zeros = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64)).repeat()
        return tf.data.Dataset.zip((zeros, dataset))
    # Otherwise an iterator's checkpoint holds the count as of what was read ahead, up to several
    # epochs beyond the element that the consumer has reached.
    options = tf.data.Options()
    options.experimental_symbolic_checkpoint = True
    return tf.data.Dataset.zip((count_epochs(seed), dataset)).with_options(options)


def _box(element: Any) -> tf.Tensor:
    """Put an element of any structure into a scalar variant."""
    return tf.raw_ops.OptionalFromValue(components=tf.nest.flatten(element, expand_composites=True))


def _unbox(boxed: tf.Tensor, spec: Any) -> Any:
    """Take an element out of `_box`'s variant."""
    specs = tf.nest.flatten(spec, expand_composites=True)
    components = tf.raw_ops.OptionalGetValue(
        optional=boxed,
        output_types=[part.dtype for part in specs],
        output_shapes=[part.shape for part in specs],
    )
    return tf.nest.pack_sequence_as(spec, components, expand_composites=True)
