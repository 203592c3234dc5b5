"""What can be wrong with one image, under the same names as the HTTP problems."""

BROKEN = "invalid-image"
INVALID_REQUEST = "invalid-request"
UNSUPPORTED = "unsupported-media"
CONSTANT = "constant-image"
TOO_LARGE = "too-large"
TOO_MANY_PIXELS = "too-many-pixels"


class ImageProblem(Exception):  # noqa: N818 - it is named after the HTTP problem that it becomes
    """One image can't be used; `kind` is the problem's slug, the message says why."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
