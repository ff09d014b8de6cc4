"""Readers on their own: what they read, how often, and what they say of themselves."""

import gc

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from within_backward import in_backward

from razorlight import Dense, TopK, Uniform
from razorlight.records import (
    NOTHING,
    Record,
    as_it_is,
    caching,
    encoded_record,
    join,
    product_of,
    record_of,
    room_for,
)

X = torch.arange(24.0).view(4, 6)


def counted(function):
    def count(*args):
        count.calls += 1
        return function(*args)

    count.calls = 0
    return count


def test_a_value_as_it_is():
    record = as_it_is(X)
    assert record.read().data_ptr() == X.data_ptr()
    assert not record.reader.makes_new
    value, is_owned = record.take()
    assert torch.equal(value, X)
    assert not is_owned
    assert as_it_is(None) is NOTHING


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("codec", [Dense(), Uniform(8), Uniform(8, axis=-2), TopK(0.0)])
def test_a_decoded_value_lies_as_the_tensor_did(codec, layout):
    x = torch.randn(2, 3, 4, 5).to(memory_format=layout)
    record = record_of(x, codec, x.dtype, channels=1)
    value = record.read()
    torch.testing.assert_close(value, x, rtol=0, atol=0.05)
    assert value.stride() == x.stride()
    assert record.reader.makes_new == (not isinstance(codec, Dense))
    assert record.reader.is_pruned == isinstance(codec, TopK)


def test_a_record_may_not_share_memory_with_what_is_overwritten():
    shared = record_of(X, Dense(), X.dtype)
    assert shared.tensors[0].data_ptr() == X.data_ptr()
    apart = record_of(X, Dense(), X.dtype, unshared_with=X)
    assert apart.tensors[0].data_ptr() != X.data_ptr()


def test_of_a_function_of_the_value():
    codec = Uniform(8)
    record = record_of(X, codec, X.dtype, of=torch.sin)
    expected = encoded_record(codec.encode(X.sin()), X, codec, X.dtype)
    assert torch.equal(record.read(), expected.read())


def test_what_is_derived_is_given_more_tensors_and_none():
    record = as_it_is(X).then(lambda x, a, b, c: (x + a, b, x * c), X + 1, None, X.new_tensor(2.0))
    sums, nothing, products = record.read()
    assert torch.equal(sums, 2 * X + 1)
    assert nothing is None
    assert torch.equal(products, 2 * X)
    assert len(record.tensors) == 3


def test_a_derived_value_is_new_if_its_function_or_its_source_makes_it_so():
    kept, decoded = as_it_is(X), record_of(X, Uniform(8), X.dtype)
    assert not kept.then(torch.t).reader.makes_new
    assert kept.then(torch.neg, returns_new=True).reader.makes_new
    assert decoded.then(torch.t).reader.makes_new
    assert kept.then(torch.neg, returns_new=True).take()[1]


def test_joined_values_store_each_tensor_once():
    first = as_it_is(X)
    both = join(first, first.then(torch.neg), NOTHING)
    assert len(both.tensors) == 1
    value, negated, nothing = both.read()
    assert torch.equal(value, -negated)
    assert nothing is None
    assert torch.equal(join(first, first).then(product_of).read(), X * X)


def test_joined_values_are_what_their_parts_are():
    plain, pruned = as_it_is(X), record_of(X, TopK(0.5), X.dtype)
    product = plain.recomputed(torch.neg)
    assert join(plain, pruned).reader.is_pruned
    assert not join(plain, plain).reader.is_pruned
    assert join(plain, product).reader.products_away == 1
    assert join(plain, product.recomputed(torch.neg), NOTHING).reader.products_away == 2
    assert join(plain, product).reader.is_cached
    assert not join(plain, plain).reader.is_cached
    assert join(plain, plain._replace(is_costly=True)).is_costly
    assert not join(plain, plain).is_costly


def test_products_are_counted():
    once = as_it_is(X).recomputed(torch.neg)
    assert once.reader.products_away == 1
    assert once.then(torch.abs).reader.products_away == 1
    assert once.recomputed(torch.neg).reader.products_away == 2
    assert as_it_is(X).cached().reader.products_away == 0
    assert record_of(X, TopK(0.5), X.dtype).recomputed(torch.neg).reader.is_pruned


def test_what_is_cached_is_read_once_by_neighbours():
    double = counted(lambda x: x * 2)
    record = as_it_is(X).then(double, returns_new=True).cached()
    assert record.cached() is record
    assert not record.reader.makes_new

    def read():
        first, second = record.read(), record.read()
        assert first is second
        last, is_owned = record.take()
        assert last is first
        assert is_owned
        return record.reader.value

    assert in_backward(read) is None
    assert double.calls == 1


def test_reading_another_value_evicts_the_one_before():
    double = counted(lambda x: x * 2)
    one, other = (as_it_is(X).then(double).cached() for _ in range(2))

    def read():
        one.read()
        other.read()
        assert one.reader.value is None
        assert other.reader.value is not None
        one.read()

    in_backward(read)
    assert double.calls == 3
    assert one.reader.value is other.reader.value is None, "the end of backward evicts all"


def test_of_a_product_what_it_was_recomputed_from_stays():
    negate = counted(torch.neg)
    first = as_it_is(X).recomputed(negate, within_samples=True)
    second = first.recomputed(torch.abs, within_samples=True)
    other = as_it_is(X).cached()

    def read():
        second.read()
        assert first.reader.value is not None
        first.read()
        other.read()
        assert first.reader.value is second.reader.value is None

    in_backward(read)
    assert negate.calls == 1


def test_a_value_that_is_released_is_read_again():
    double = counted(lambda x: x * 2)
    record = as_it_is(X).then(double).cached()

    def read():
        record.read()
        record.release()
        assert record.reader.value is None
        record.read()

    in_backward(read)
    assert double.calls == 2
    NOTHING.release()
    as_it_is(X).release()


def test_a_cached_value_goes_with_its_reader():
    record = as_it_is(X).then(lambda x: x * 2).cached()

    def read():
        nonlocal record
        record.read()
        record = None
        gc.collect()
        return [ref() for ref in caching._CACHE.readers]

    assert in_backward(read) == [None]


def test_in_another_dtype():
    record = as_it_is(X).to(torch.float64)
    assert record.read().dtype == torch.float64
    assert torch.equal(record.read(), X.double())


@pytest.mark.parametrize("chunk", [1, 6, 7, 12, 13])
def test_a_large_value_comes_in_chunks_that_make_the_whole(chunk, monkeypatch):
    monkeypatch.setattr(caching, "_DERIVED_CHUNK_ENTRIES", chunk)
    add = counted(torch.add)
    record = as_it_is(X).then(add, torch.tensor(1.0), returns_new=True, within_samples=True)
    chunks, read = record.in_chunks()
    assert torch.equal(torch.cat([read(samples) for samples in chunks]), X + 1)
    assert len(chunks) == {1: 4, 6: 4, 7: 4, 12: 2, 13: 1}[chunk]
    assert add.calls == len(chunks)


def test_the_size_of_a_chunk_follows_from_the_shape_of_the_value(monkeypatch):
    monkeypatch.setattr(caching, "_DERIVED_CHUNK_ENTRIES", 12)
    record = as_it_is(X).then(torch.neg, returns_new=True, within_samples=True)
    assert len(record.in_chunks((4, 12))[0]) == 4
    assert len(record.in_chunks((4, 2))[0]) == 1


def test_a_gpu_derives_larger_chunks(monkeypatch):
    monkeypatch.setattr(caching, "_DERIVED_CHUNK_ENTRIES", 1)
    with FakeTensorMode():
        values = [torch.empty(64, 2, device=device) for device in ("cpu", "cuda")]
    records = [as_it_is(x).then(torch.neg, returns_new=True, within_samples=True) for x in values]
    assert [len(record.in_chunks()[0]) for record in records] == [64, 8]


def test_only_what_is_derived_within_samples_comes_in_chunks(monkeypatch):
    monkeypatch.setattr(caching, "_DERIVED_CHUNK_ENTRIES", 1)
    for record in (as_it_is(X), as_it_is(X).then(torch.neg), as_it_is(X).recomputed(torch.neg)):
        chunks, read = in_backward(record.in_chunks)
        assert chunks == [slice(None)]
        assert read(slice(1, 2)).shape == (1, 6)


def test_a_value_joined_of_several_comes_in_chunks(monkeypatch):
    monkeypatch.setattr(caching, "_DERIVED_CHUNK_ENTRIES", 6)
    flipped = as_it_is(X).then(lambda x: x.flip(0))  # not within samples: read whole
    both = join(as_it_is(X).then(torch.neg, within_samples=True), flipped)
    chunks, read = both.then(product_of, returns_new=True, within_samples=True).in_chunks()
    assert len(chunks) == 4
    assert torch.equal(torch.cat([read(samples) for samples in chunks]), -X * X.flip(0))
    first, second = join(as_it_is(X), NOTHING).reader.by_sample([X], [])(slice(0, 1))
    assert torch.equal(first, X[:1])
    assert second is None


def test_a_product_is_recomputed_in_chunks_and_lies_as_one(monkeypatch):
    monkeypatch.setattr(caching, "_DERIVED_CHUNK_ENTRIES", 6)
    images = torch.randn(4, 2, 3, 3).to(memory_format=torch.channels_last)
    convolve = counted(torch.nn.functional.conv2d)
    weight = torch.randn(5, 2, 1, 1)
    record = as_it_is(images).recomputed(convolve, weight, within_samples=True)
    value = in_backward(record.read)
    expected = torch.nn.functional.conv2d(images, weight)
    torch.testing.assert_close(value, expected)
    assert value.stride() == expected.stride()
    assert convolve.calls == 4
    whole = room_for([slice(0, 2), slice(2, 5)], expected[:2])
    assert whole.shape == (5, *expected.shape[1:])
    assert isinstance(record, Record)
