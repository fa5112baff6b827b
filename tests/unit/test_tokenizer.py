"""Text to ids and back, and that no id is larger than the tokenizer's size."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import highnoon as hn
from highnoon.lm.tokenizer import (
    BOS,
    EOS,
    SMALLEST_VOCABULARY,
    SPECIAL_TOKENS,
    ByteStreamTokenizer,
    QWTTextTokenizer,
)
from highnoon.shared.domain.errors import InvalidInput, UserInputError

TEXT = "the cat sat on the mat and the dog sat on the log; " * 20


@pytest.fixture(scope="module")
def trained() -> QWTTextTokenizer:
    tokenizer = QWTTextTokenizer(vocab_size=300)
    tokenizer.train_on([TEXT])
    return tokenizer


@given(st.text().filter(lambda text: "\0" not in text))
def test_byte_tokenizer_encodes_utf8(text: str) -> None:
    ids = ByteStreamTokenizer().encode(text)

    assert ids == list(text.encode())
    assert ByteStreamTokenizer().decode(ids) == text


@given(text=st.text())
@example(text="a [BOS] and an [EOS] in the text")
def test_untrained_encoding_is_lossless(text: str) -> None:
    tokenizer = QWTTextTokenizer()

    ids = tokenizer.encode(text)

    assert (ids[0], ids[-1]) == (BOS, EOS)
    assert max(ids) < tokenizer.vocab_size == SMALLEST_VOCABULARY
    assert tokenizer.decode(ids) == text


def test_special_ids_match_the_guide() -> None:
    names = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "[SEP]", "[CLS]", "[MASK]")

    assert names == SPECIAL_TOKENS
    assert [QWTTextTokenizer()._encoding.token_to_id(name) for name in names] == list(range(7))


def test_training_shortens_texts_and_keeps_the_vocabulary_size(trained: QWTTextTokenizer) -> None:
    ids = trained.encode(TEXT, add_special_tokens=False)

    assert len(ids) < len(TEXT) / 2
    assert max(ids) < trained.vocab_size <= 300
    assert trained.decode(trained.encode("ein Satz, den es nie sah: ✓")) == "ein Satz, den es nie sah: ✓"


def test_encode_truncates_and_pads(trained: QWTTextTokenizer) -> None:
    cut = trained.encode(TEXT, max_length=5)
    padded = trained.encode("a", max_length=5, padding=True)

    assert (len(cut), cut[0], cut[-1]) == (5, BOS, EOS)
    assert (len(padded), padded[-2:]) == (5, [0, 0])
    assert trained.decode(padded) == "a"
    assert ByteStreamTokenizer().encode("abc", max_length=2) == [97, 98]
    assert ByteStreamTokenizer().decode(ByteStreamTokenizer().encode("a", max_length=3, padding=True)) == "a"


def test_batches(trained: QWTTextTokenizer) -> None:
    for tokenizer in (trained, ByteStreamTokenizer()):
        rows = tokenizer.batch_encode(["the cat", "dog"], add_special_tokens=True, max_length=12, padding=True)
        assert [len(row) for row in rows] == [12, 12]
        assert tokenizer.batch_decode(rows) == ["the cat", "dog"]


def test_both_kinds_are_saved_and_loaded(trained: QWTTextTokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path / "pairs")
    ByteStreamTokenizer().save(tmp_path / "bytes")

    for again in (
        QWTTextTokenizer.load(tmp_path / "pairs"),
        QWTTextTokenizer(model_path=tmp_path / "pairs"),
        hn.load_tokenizer(tmp_path / "pairs"),
    ):
        assert again.encode(TEXT) == trained.encode(TEXT)
        assert again.vocab_size == trained.vocab_size
    assert isinstance(hn.load_tokenizer(tmp_path / "bytes"), ByteStreamTokenizer)


def test_training_from_files(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    tokenizer = QWTTextTokenizer(vocab_size=300)

    tokenizer.train([tmp_path / "text.txt"], vocab_size=280, min_frequency=2)

    assert SMALLEST_VOCABULARY < tokenizer.vocab_size <= 280


def test_invalid_vocabulary_and_files_are_refused(tmp_path: Path) -> None:
    for size in (256, "a", 300.5, None, True):
        with pytest.raises(InvalidInput, match=r"vocab_size: must be an integer of at least 263: .*\(got"):
            QWTTextTokenizer(vocab_size=size)  # type: ignore[arg-type]
    with pytest.raises(UserInputError, match=r"there is no .*nowhere\.txt"):
        QWTTextTokenizer().train(tmp_path / "nowhere.txt")
    with pytest.raises(UserInputError, match="no tokenizer can be read from"):
        hn.load_tokenizer(tmp_path)
    ByteStreamTokenizer().save(tmp_path)
    with pytest.raises(UserInputError, match="does not hold a QWTTextTokenizer"):
        QWTTextTokenizer.load(tmp_path)
