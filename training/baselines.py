"""What the model has to beat: classifiers that see no picture, or a few figures of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from imaging.measurements import measure
from training.data import ImageFolder, LabelledImage

Features = NDArray[np.float64]
"""(images, figures)"""


def metadata_features(images: Sequence[LabelledImage], folder: ImageFolder) -> Features:
    """Width, height, bytes and JPEG quality: what betrays a label without looking at a pixel."""
    return np.array(
        [
            (
                image.width,
                image.height,
                folder.size_of(image.ref),
                image.jpeg_quality or 0,
                image.jpeg_quality is None,
            )
            for image in images
        ],
        dtype=float,
    )


def measurement_features(
    images: Sequence[LabelledImage],
    folder: ImageFolder,
    *,
    after_image: Callable[[], None],
) -> Features:
    """The figures that the rehearsal teacher measures (imaging.measurements)."""
    rows = []
    for image in images:
        rows.append(list(measure(np.asarray(folder.read(image.ref))).as_dict().values()))
        after_image()
    return np.array(rows)


def logistic_scores(
    train: Features, labels: NDArray[np.bool_], test: Features
) -> NDArray[np.float64]:
    """Log-odds of fake on `test` from a logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    classifier.fit(train, labels)
    return np.asarray(classifier.decision_function(test), dtype=float)
