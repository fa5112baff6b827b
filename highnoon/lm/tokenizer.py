"""Text to ids and back: bytes as they are, and a byte-pair encoding that the user trains.

Owns the special ids. Does not know models: the trainer checks that all ids are below a model's vocabulary size.
Both kinds are lossless for any text: unknown text falls back to its 256 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import Self

from highnoon.shared.domain.errors import InvalidInput, UserInputError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "[SEP]", "[CLS]", "[MASK]")
PAD, UNK, BOS, EOS, SEP, CLS, MASK = range(len(SPECIAL_TOKENS))
"""The special ids of QWTTextTokenizer, in this order on purpose. A byte tokenizer has none."""

SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)


class Tokenizer(Protocol):
    """What data and trainer need: every id is below `vocab_size`, `separator` separates documents."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def separator(self) -> int: ...

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, ids: Iterable[int]) -> str: ...


class _Batches:
    """The methods for several texts, over `encode` and `decode` of one."""

    encode: Callable[..., list[int]]
    decode: Callable[..., str]

    def batch_encode(self, texts: Iterable[str], **options: Any) -> list[list[int]]:
        """`encode` of each, with its options."""
        return [self.encode(text, **options) for text in texts]

    def batch_decode(self, rows: Iterable[Iterable[int]], **options: Any) -> list[str]:
        """`decode` of each, with its options."""
        return [self.decode(row, **options) for row in rows]


class ByteStreamTokenizer(_Batches):
    """UTF-8 as it is: an id is the value of a byte, so there are 256 ids and no special ones."""

    vocab_size = 256
    separator = 0

    def encode(
        self, text: str, add_special_tokens: bool = True, max_length: int | None = None, padding: bool = False
    ) -> list[int]:
        """The bytes of the text, at most `max_length`; with `padding`, zeros up to it. Never fails."""
        return _fitted(list(text.encode("utf-8", "surrogatepass")), max_length, padding, pad=self.separator)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text; invalid UTF-8 becomes U+FFFD, zeros are dropped as padding. Raises ValueError over 255."""
        values = (int(value) for value in ids)
        return bytes(value for value in values if value or not skip_special_tokens).decode("utf-8", "replace")

    def save(self, path: str | Path) -> None:
        """Writes a folder that `load_tokenizer` and `load` read."""
        _write(Path(path), {"kind": type(self).__name__})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Raises UserInputError when the folder holds another kind of tokenizer, or none."""
        _described(Path(path), cls.__name__)
        return cls()


class QWTTextTokenizer(_Batches):
    """Byte-pair encoding with special ids 0 to 6, trained by `train` or read from `model_path`.

    Untrained it has the special ids and the 256 bytes. Raises InvalidInput for a vocabulary that cannot hold those.
    """

    separator = EOS

    def __init__(self, vocab_size: int = 32000, model_path: str | Path | None = None) -> None:
        _check_size(vocab_size)
        self._wanted = vocab_size
        self._encoding = _byte_pairs() if model_path is None else _read(Path(model_path))

    @property
    def vocab_size(self) -> int:
        """How many ids there are; training may find fewer than requested."""
        return int(self._encoding.get_vocab_size())

    def train(
        self, files: str | Path | Sequence[str | Path], vocab_size: int | None = None, min_frequency: int = 2
    ) -> None:
        """Learns the pairs of these text files. Raises UserInputError for a file that cannot be read."""
        paths = [Path(files)] if isinstance(files, (str, Path)) else [Path(file) for file in files]
        missing = [str(path) for path in paths if not path.is_file()]
        if missing or not paths:
            raise UserInputError(
                f"a tokenizer is trained on text files, and there is no {', '.join(missing) or 'file'}"
            )
        self.train_on((path.read_text(encoding="utf-8") for path in paths), vocab_size, min_frequency)

    def train_on(self, texts: Iterable[str], vocab_size: int | None = None, min_frequency: int = 2) -> None:
        """Learns the pairs of these texts, replacing earlier ones. Raises InvalidInput as the constructor does."""
        from tokenizers import pre_tokenizers
        from tokenizers.trainers import BpeTrainer

        size = self._wanted if vocab_size is None else vocab_size
        _check_size(size)
        self._encoding = _byte_pairs()
        self._encoding.train_from_iterator(
            texts,
            BpeTrainer(
                vocab_size=size,
                min_frequency=min_frequency,
                special_tokens=list(SPECIAL_TOKENS),
                initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                show_progress=False,
            ),
        )

    def encode(
        self, text: str, add_special_tokens: bool = True, max_length: int | None = None, padding: bool = False
    ) -> list[int]:
        """The ids, by default between BOS and EOS, at most `max_length`; with `padding`, padded up to it."""
        # A special token in the text is text: else a document could end itself, and decoding would lose it.
        self._encoding.encode_special_tokens = True
        ids = self._encoding.encode(text, add_special_tokens=False).ids
        if add_special_tokens:
            longest = None if max_length is None else max(max_length - 2, 0)
            ids = [BOS, *ids[:longest], EOS]
        return _fitted(ids, max_length, padding, pad=PAD)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text. Unknown ids are left out."""
        return str(self._encoding.decode([int(value) for value in ids], skip_special_tokens=skip_special_tokens))

    def save(self, path: str | Path) -> None:
        """Writes a folder that `load_tokenizer`, `load` and `model_path` read."""
        described = {"kind": type(self).__name__, "encoding": json.loads(self._encoding.to_str())}
        _write(Path(path), described)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Raises UserInputError when the folder holds another kind of tokenizer, or none."""
        loaded = cls(model_path=path)
        loaded._wanted = max(loaded.vocab_size, SMALLEST_VOCABULARY)
        return loaded


def load_tokenizer(path: str | Path) -> ByteStreamTokenizer | QWTTextTokenizer:
    """The tokenizer that was saved there, of either kind. Raises UserInputError when there is none."""
    kinds: dict[str, type[ByteStreamTokenizer] | type[QWTTextTokenizer]] = {
        kind.__name__: kind for kind in (ByteStreamTokenizer, QWTTextTokenizer)
    }
    return kinds[_described(Path(path), *kinds)["kind"]].load(path)


_FILE = "tokenizer.json"


def _write(folder: Path, described: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FILE).write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")


def _described(folder: Path, *kinds: str) -> dict[str, Any]:
    path = folder / _FILE if folder.is_dir() else folder
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserInputError(f"no tokenizer can be read from {path}: {error}") from None
    if not isinstance(described, dict) or described.get("kind") not in kinds:
        raise UserInputError(f"{path} does not hold a {' or '.join(kinds)}")
    return described


def _read(folder: Path) -> Any:
    from tokenizers import Tokenizer as Encoding

    return Encoding.from_str(json.dumps(_described(folder, QWTTextTokenizer.__name__)["encoding"]))


def _byte_pairs() -> Any:
    """An encoding without any pair: special ids first, then the bytes."""
    from tokenizers import Tokenizer as Encoding
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    encoding = Encoding(models.BPE(vocab=vocabulary, merges=[], unk_token=SPECIAL_TOKENS[UNK]))
    encoding.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoding.decoder = decoders.ByteLevel()
    encoding.add_special_tokens(list(SPECIAL_TOKENS))
    return encoding


def _check_size(vocab_size: object) -> None:
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, Integral) or vocab_size < SMALLEST_VOCABULARY:
        message = (
            f"must be an integer of at least {SMALLEST_VOCABULARY}: 256 bytes and {len(SPECIAL_TOKENS)} special ids"
        )
        raise InvalidInput.of("QWTTextTokenizer", "vocab_size", message, value=vocab_size)


def _fitted(ids: list[int], max_length: int | None, padding: bool, *, pad: int) -> list[int]:
    if max_length is None:
        return ids
    return ids[:max_length] + [pad] * (max_length - len(ids) if padding else 0)
