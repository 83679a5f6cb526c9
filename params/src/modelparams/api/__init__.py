"""The three kinds of `modelparams.dev/v1alpha1` as frozen values, parsed once at the edge.

`crds/` is the source of truth; `tests/contract` holds both to each other.
"""

GROUP = "modelparams.dev"
API_VERSION = "v1alpha1"
MODEL_LABEL = f"{GROUP}/model"
FINALIZER = f"{GROUP}/operator"
