"""Images by their ids, which an engine can lose while a container of them runs."""

from __future__ import annotations

from collections.abc import Callable

from .engine import Answer, Engine, EngineRefused


class ImageLost(EngineRefused):
    """The engine no longer has the image that a container was made from."""


def usable(engine: Engine, image: str, container: str | None) -> str:
    """Return a name by which the engine has the image `image` (an id or a name): that, or else the one that `container`
    was made with, if it still names the same image.

    containerd's image store removes an image when the last tag moves on to another one, though containers of it go on
    (seen on engine 26.1 after `docker load`). Raises ImageLost.
    """
    if engine.has_image(image):
        return image
    made = _found(engine.inspect_container, container) if container else None
    if made is None:
        raise ImageLost(
            f"The image {image} is no longer on this engine.",
            404,
            "Get it back with `docker pull` or `docker load`, then try again.",
        )
    name = str(made["Config"]["Image"])
    present = _found(engine.inspect_image, name)
    if present is not None and image in _digests(present):
        return name
    raise _lost(image, made["Name"].lstrip("/"), name, present)


def _found(inspect: Callable[[str], Answer], name: str) -> Answer | None:
    try:
        return inspect(name)
    except EngineRefused as refused:
        if refused.status == 404:
            return None
        raise


def _digests(image: Answer) -> set[str]:
    """Return an image's id, and the digests that registries know it by: containerd's store has one of those as id."""
    names: list[str] = image.get("RepoDigests") or []
    return {image["Id"], *(name.rpartition("@")[2] for name in names)}


def _lost(image: str, container: str, name: str, present: Answer | None) -> ImageLost:
    now = f"{name} now names another one ({present['Id'][:19]})" if present else f"nor is {name}"
    repository = name.partition("@")[0]
    repository = repository.rpartition(":")[0] if ":" in repository.rpartition("/")[2] else repository
    return ImageLost(
        f"The image {image[:19]} that the container {container} was made from is no longer on this engine; {now}.",
        404,
        f"Get it back with `docker pull {repository}@{image}`. Or, if all its data is on a volume, make the container "
        f"from {name} again (with Compose `docker compose up -d`), then try again.",
    )
