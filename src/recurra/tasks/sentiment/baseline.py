"""The baseline that every text classifier has to beat: TF-IDF and logistic regression.

Words and pairs of words, weighted 1 + log tf and by idf; the strength of the regularisation and the
least number of texts that a feature is in are chosen on the validation texts.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recurra.errors import MissingExtraError
from recurra.tasks.sentiment.examples import Examples
from recurra.tasks.sentiment.words import written_words

STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)
"""C, the inverse strengths that are tried."""
LEAST = (1, 2)


def tfidf_logistic(
    train: Examples, valid: Examples, texts: Sequence[str], labels: Sequence[str]
) -> tuple[npt.NDArray[np.float64], str]:
    """(probabilities (N, C) of some texts, what was chosen).

    Raises: MissingExtraError without scikit-learn.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "sentiment", "The TF-IDF baseline") from error
    best: tuple[float, float, int] | None = None
    probabilities = np.empty((len(texts), len(labels)))
    for least in LEAST:
        vectors = TfidfVectorizer(
            tokenizer=written_words,
            token_pattern=None,
            ngram_range=(1, 2),
            min_df=least,
            sublinear_tf=True,
        )
        x = vectors.fit_transform(train.texts)
        x_valid, x_texts = vectors.transform(valid.texts), vectors.transform(texts)
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=1000)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of iterations; its accuracy is what counts
                model.fit(x, train.labels)
            accuracy = float(np.mean(model.predict(x_valid) == np.array(valid.labels)))
            if best is None or accuracy > best[0]:
                best = (accuracy, strength, least)
                columns = [list(model.classes_).index(label) for label in labels]
                probabilities = model.predict_proba(x_texts)[:, columns]
    assert best is not None
    chosen = f"C={best[1]:g}, min_df={best[2]}, accuracy {best[0]:.4f} on validation"
    return probabilities, chosen
