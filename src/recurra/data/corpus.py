"""Files of text as one sequence of token ids, on disk rather than in memory.

Each file is a document of its own: it begins with the end of a line, which is what its first token
follows, and the recurrent state is to begin anew there.

    inputs    end  t_1  t_2 …  t_n  end  u_1 …
    reset      x                     x

The ids lie in a nameless file, mapped into memory: the system keeps in memory what there is room
for, and nothing is left behind by a process that is killed.
"""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recurra.data.textfiles import check_files
from recurra.data.tokenizer import Tokenizer, encode_file
from recurra.errors import DataError
from recurra.runs import explained


@dataclass(frozen=True)
class Document:
    """One file: where its ids begin in the corpus, how many they are, and what it was.

    begin        position of the line end before its first token
    tokens       of the text; they are at begin + 1 …
    unknown      of them, those that the tokenizer does not know
    """

    path: Path
    begin: int
    tokens: int
    characters: int
    bytes: int
    unknown: int


@dataclass(frozen=True)
class Corpus:
    """The token ids of some files.

    ids          (N,) uint8, int16 or int32, of all documents one after another
    counts       (vocab_size,) how often each token occurs
    fingerprint  SHA-256 of all ids
    """

    ids: Tensor
    documents: tuple[Document, ...]
    counts: npt.NDArray[np.int64]
    fingerprint: str

    @property
    def tokens(self) -> int:
        """Tokens of all texts together."""
        return sum(document.tokens for document in self.documents)

    def text_of(self, document: Document) -> Tensor:
        """The ids of one document after the line end that it begins with."""
        return self.ids[document.begin + 1 : document.begin + 1 + document.tokens]

    def resets(self) -> Tensor | None:
        """(N,) bool, True where a document begins; None when there is one only."""
        if len(self.documents) == 1:
            return None
        # In a file with holes, like the ids: as many bytes as a text has tokens may be too many.
        with tempfile.TemporaryFile() as file:
            file.truncate(len(self.ids))
            for document in self.documents:
                file.seek(document.begin)
                file.write(b"\x01")
            file.flush()
            return torch.from_numpy(np.frombuffer(_mapped(file), dtype=np.bool_))


def read_corpus(
    paths: Sequence[Path], tokenizer: Tokenizer, *, folder: Path | None = None
) -> Corpus:
    """Read files into a corpus, piece by piece.

    folder   where the ids are kept while they are used; None for the system's temporary folder

    Raises: DataError for files that cannot be read, RunError when the disk is full.
    """
    check_files(paths)
    where = folder or Path(tempfile.gettempdir())
    dtype = _narrowest(tokenizer.vocab_size)
    digest, total = hashlib.sha256(), 0
    documents: list[Document] = []
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    with explained(where, "write"), tempfile.TemporaryFile(dir=where) as file:
        for path in paths:
            begin = total
            total += _write(file, np.array([tokenizer.end_id]), dtype, digest)
            characters = size = unknown = 0
            for ids, more_characters, more_bytes in encode_file(tokenizer, path):
                total += _write(file, ids, dtype, digest)
                found = np.bincount(ids, minlength=tokenizer.vocab_size)
                counts += found
                characters, size = characters + more_characters, size + more_bytes
                if tokenizer.unk_id is not None:
                    unknown += int(found[tokenizer.unk_id])
            tokens = total - begin - 1
            if tokens == 0:
                raise DataError(f"{path} holds no words; expected a file with text.")
            documents.append(Document(path, begin, tokens, characters, size, unknown))
        file.flush()
        stored = torch.from_numpy(np.frombuffer(_mapped(file), dtype=dtype))
    return Corpus(stored, tuple(documents), counts, digest.hexdigest())


def _mapped(file: IO[bytes]) -> mmap.mmap:
    """The content of a file as memory; private, as torch wants it writable and nothing writes."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _narrowest(vocab_size: int) -> npt.DTypeLike:
    if vocab_size <= 256:
        return np.uint8
    return np.int16 if vocab_size <= 2**15 else np.int32


def _write(file: IO[bytes], ids: npt.NDArray[np.generic], dtype: npt.DTypeLike, digest) -> int:  # type: ignore[no-untyped-def]
    raw = ids.astype(dtype).tobytes()
    file.write(raw)
    digest.update(raw)
    return len(ids)
