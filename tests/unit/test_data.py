"""Where text is found, what is held out, how it is packed and in which order it comes."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import highnoon as hn
from highnoon.lm.data import known_datasets, sources
from highnoon.lm.data.sources import load_documents, split_documents, without_leaks
from highnoon.lm.data.windows import IGNORED, TextDataset, epoch_order, training_batches, validation_batches
from highnoon.shared.domain.errors import InvalidInput, UserInputError


@pytest.fixture(autouse=True)
def _nothing_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_registered", {})
    monkeypatch.chdir(tmp_path)


def test_every_kind_of_source(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    (folder / "a.txt").write_text("first")
    (folder / "deeper" / "b.jsonl").write_text('{"text": "second"}\n\n{"text": "third", "id": 3}\n')
    (folder / "ignored.md").write_text("not text of ours")

    hn.register_dataset("folder", folder)
    hn.register_dataset("file", str(folder / "deeper" / "b.jsonl"))
    hn.register_dataset("texts", ["one", "two", "  "])
    hn.register_dataset("function", lambda: (f"text {number}" for number in range(2)))

    assert load_documents("folder") == ["first", "second", "third"]
    assert load_documents("file") == ["second", "third"]
    assert load_documents("texts") == ["one", "two"]
    assert load_documents("function") == ["text 0", "text 1"]
    assert load_documents(f"{folder}/*.txt") == ["first"]


def test_names_are_found_in_the_data_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "news_1.txt").write_text("here")
    (tmp_path / "data" / "news_2.jsonl").write_text('{"text": "and here"}')
    assert load_documents("news") == ["here", "and here"]

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "news.txt").write_text("the variable's folder goes first")
    monkeypatch.setenv("HIGHNOON_DATA_DIR", str(tmp_path / "elsewhere"))
    assert load_documents("news") == ["the variable's folder goes first"]


def test_a_name_is_not_the_beginning_of_another_name(tmp_path: Path) -> None:
    # Given a file of the name, and others that only begin with it
    (tmp_path / "data").mkdir()
    for name in ("train", "train_val", "training_old", "train_2", "model.v2", "parts-00001-of-00002", "parts-x"):
        (tmp_path / "data" / f"{name}.txt").write_text(name)

    # Then the name is that file alone, and a beginning of it is a misspelling
    assert load_documents("train") == ["train"]
    assert load_documents("model.v2") == ["model.v2"]
    with pytest.raises(UserInputError, match=r"there is no dataset 'tra'\. Did you mean train\?"):
        load_documents("tra")
    with pytest.raises(UserInputError, match="there is no dataset 'model'"):
        load_documents("model")

    # And without a file of that name, its numbered parts
    assert load_documents("parts") == ["parts-00001-of-00002"]
    assert {"train", "train_2", "train_val", "parts"} <= set(known_datasets())


def test_the_built_in_text_is_real_prose() -> None:
    documents = load_documents("python-docs")

    assert len(documents) > 50
    assert sum(map(len, documents)) > 300_000


@pytest.mark.parametrize("name", ["train_data", "train_subset"])
def test_guide_names_use_the_built_in_text_with_one_warning(name: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        documents = load_documents(name)

    assert documents == load_documents("python-docs")
    assert [str(warning.message).split(":")[0] for warning in said] == [f"there is no dataset {name!r}"]


def test_file_in_the_data_folder_precedes_the_built_in_text(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train_data.txt").write_text("mine")

    assert load_documents("train_data") == ["mine"]


def test_an_unknown_name_lists_what_is_known() -> None:
    hn.register_dataset("shakespeare", ["a", "b"])

    with pytest.raises(UserInputError, match=r"Did you mean shakespeare\? Known: python-docs, shakespeare\."):
        load_documents("shakespear")
    assert known_datasets() == ["python-docs", "shakespeare"]


def test_unreadable_sources_are_reported(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"text": "fine"}\n{"txt": "not"}\n')
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    (tmp_path / "empty").mkdir()

    with pytest.raises(UserInputError, match=r"broken\.jsonl, line 2: expected an object with a key \"text\""):
        load_documents(str(tmp_path / "broken.jsonl"))
    with pytest.raises(UserInputError, match=r"latin\.txt is not UTF-8 text: .* at byte 2"):
        load_documents(str(tmp_path / "latin.txt"))
    with pytest.raises(UserInputError, match="holds no file"):
        load_documents(str(tmp_path / "empty") + "/")
    hn.register_dataset("blank", ["", " \n"])
    with pytest.raises(UserInputError, match="dataset 'blank': there is no text in a list of 2 documents"):
        load_documents("blank")
    hn.register_dataset("numbers", lambda: [1, 2])  # type: ignore[arg-type, list-item]
    with pytest.raises(UserInputError, match="document 0 of a dataset is not text but a int"):
        load_documents("numbers")
    with pytest.raises(InvalidInput, match=r"(?s)name: .*source: "):
        hn.register_dataset("a/b", 3)  # type: ignore[arg-type]


def test_single_text_is_cut_into_documents(tmp_path: Path) -> None:
    text = "\n\n".join(f"paragraph {number} " + "word " * 30 for number in range(200))
    (tmp_path / "book.txt").write_text(text)

    documents = load_documents("book.txt")

    assert 10 < len(documents) < 64
    assert "\n\n".join(documents) == text


DOCUMENTS = [f"document {number} " + "x" * (number % 7 * 50) for number in range(60)]


@given(st.permutations(DOCUMENTS), st.integers(0, 5))
def test_split_depends_on_texts_and_seed_only(documents: list[str], seed: int) -> None:
    split = split_documents(documents, share=0.2, seed=seed)

    assert set(split.held_out) == set(split_documents(DOCUMENTS, share=0.2, seed=seed).held_out)
    assert set(split.training) | set(split.held_out) == set(DOCUMENTS)
    assert not set(split.training) & set(split.held_out)
    share = sum(map(len, split.held_out)) / sum(map(len, DOCUMENTS))
    assert 0.1 < share <= 0.2


def test_another_seed_holds_out_other_documents() -> None:
    splits = {split_documents(DOCUMENTS, share=0.2, seed=seed).held_out for seed in range(5)}

    assert len(splits) == 5


def test_the_same_text_twice_stays_on_one_side() -> None:
    split = split_documents(DOCUMENTS * 2, share=0.2, seed=0)

    assert not set(split.training) & set(split.held_out)
    with pytest.raises(UserInputError, match="two different documents"):
        split_documents(["same", "same"], share=0.2, seed=0)


def test_two_documents_give_one_to_each_side() -> None:
    split = split_documents(["short", "a longer one"], share=0.1, seed=0)

    assert (split.held_out, split.training) == (("short",), ("a longer one",))


def test_held_out_paragraphs_are_removed_from_the_training_text() -> None:
    split = split_documents(load_documents("python-docs"), share=0.1, seed=0)

    training = " ".join(" ".join(without_leaks(split.training, split.held_out)).split())

    repeated = [
        paragraph
        for document in split.held_out
        for paragraph in (" ".join(part.split()) for part in document.split("\n\n"))
        if len(paragraph) >= 80 and paragraph in training
    ]
    assert repeated == []
    assert sum(map(len, split.held_out)) > 30_000


def test_windows_hold_the_ids_and_the_next_ids() -> None:
    dataset = TextDataset(["abcd", "efg"], max_length=3)
    stream = list(b"abcd\0efg")

    assert (len(dataset), dataset.token_count) == (3, 8)
    inputs, labels = dataset.windows([0, 1, 2, -1])
    assert inputs[:2].ravel().tolist() == stream[:6]
    assert labels[:2].ravel().tolist() == stream[1:7]
    assert (inputs[2].tolist(), labels[2].tolist()) == ([stream[6], 0, 0], [stream[7], IGNORED, IGNORED])
    assert labels[3].tolist() == [IGNORED] * 3
    assert dataset[-1][0].tolist() == inputs[2].tolist()
    with pytest.raises(IndexError):
        dataset[3]


def test_a_dataset_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "def"}))

    dataset = TextDataset.from_files([tmp_path / "a.txt", tmp_path / "b.jsonl"], max_length=4)

    assert [tuple(window[0].tolist()) for window in dataset] == [tuple(b"abc\0"), (*b"de", 0, 0)]


@pytest.mark.parametrize("documents", ["corpus.txt", Path("corpus.txt"), None])
def test_a_path_is_no_documents(documents: Any) -> None:
    with pytest.raises(InvalidInput, match=r"documents: must be a list of texts \(got .*from_files"):
        TextDataset(documents)


@pytest.mark.parametrize("length", [0, -3, "4", 2.5, True, None])
def test_length_of_a_window_is_a_whole_number(length: Any) -> None:
    with pytest.raises(InvalidInput, match=r"max_length: must be an integer of at least 1 \(got"):
        TextDataset(["some text"], max_length=length)


@pytest.mark.parametrize("documents", [[], [""], ["a"]])
def test_too_little_text_has_no_windows(documents: list[str]) -> None:
    assert len(TextDataset(documents, max_length=4)) == 0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 9))
def test_without_shares_every_window_is_used_once(counts: list[int], seed: int) -> None:
    order = epoch_order(counts, None, sum(counts), (seed, 0, 0))

    assert sorted(map(tuple, order.tolist())) == [(d, w) for d, count in enumerate(counts) for w in range(count)]


def test_shares_are_kept_exactly_and_small_datasets_repeat_evenly() -> None:
    order = epoch_order([90, 10], (0.7, 0.3), 100, (0, 0, 0))

    assert Counter(order[:, 0].tolist()) == {0: 70, 1: 30}
    assert set(Counter(order[order[:, 0] == 1, 1].tolist()).values()) == {3}


def test_each_epoch_has_its_own_reproducible_order() -> None:
    orders = [epoch_order([20], None, 20, (7, 0, epoch)) for epoch in (0, 1, 0)]

    assert orders[0].tolist() == orders[2].tolist() != orders[1].tolist()


def batches_of(dataset: TextDataset, first_step: int = 0) -> Iterator[np.ndarray]:
    order = epoch_order([len(dataset)], None, len(dataset), (0, 0, 0))
    batches = training_batches([dataset], lambda: (order, first_step), batch_size=2, accumulation=3)
    return (inputs.numpy() for inputs, _ in batches)


def test_batches_have_one_shape_and_can_be_continued() -> None:
    dataset = TextDataset(["abcdefgh" * 12], max_length=4)

    whole = list(batches_of(dataset))

    assert [batch.shape for batch in whole] == [(3, 2, 4)] * 4
    assert np.array_equal(list(batches_of(dataset, first_step=3)), whole[3:])


def test_each_pass_over_the_batches_asks_for_its_order() -> None:
    dataset = TextDataset(["abcdefgh" * 12], max_length=4)
    orders = [epoch_order([len(dataset)], None, len(dataset), (0, 0, epoch)) for epoch in range(2)]
    positions = iter([(orders[0], 0), (orders[1], 0), (orders[1], 2)])

    batches = training_batches([dataset], lambda: next(positions), batch_size=2, accumulation=3)
    first, second, rest = ([inputs.numpy() for inputs, _ in batches] for _ in range(3))

    assert not np.array_equal(first, second)
    assert np.array_equal(rest, second[2:])


def test_validation_uses_every_label_once() -> None:
    dataset = TextDataset(["abcdefgh" * 3], max_length=4)

    batches = list(validation_batches(dataset, batch_size=4, windows=len(dataset)))

    assert [labels.shape for _, labels in batches] == [(4, 4), (4, 4)]
    assert sum(int((labels.numpy() != IGNORED).sum()) for _, labels in batches) == dataset.token_count - 1
