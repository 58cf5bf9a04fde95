"""The container images of the steps, by role.

The tag is the version of the package: Kubeflow caches by the text of the image reference, so that a tag that is used
again for other code would bring back old results.
"""

VERSION = "0.1.0"
REGISTRY = "unmask"

PIPELINE = f"{REGISTRY}/pipeline:{VERSION}"
# Training has its own role, so that it can get its own image; for now one image holds everything.
TRAINING = PIPELINE
