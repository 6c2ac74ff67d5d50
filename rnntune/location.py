"""Where a file or folder is: a local path or a URI, taken apart in one place."""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

__all__ = ["Location"]
_LOCAL = "file"


@dataclass(frozen=True)
class Location:
    """A local path or a URI.

    Attributes:
        scheme: `s3`, `gs`, `file`; nothing for a path.
        path: the path, of a URI with its bucket (`bucket/folder`).
        query: the query of a URI without the question mark (`region=eu-west-1`), or nothing.
    """

    scheme: str
    path: str
    query: str = ""

    @classmethod
    def parse(cls, uri: str) -> "Location":
        """Take a path or URI apart; a `?` that begins no query is a wildcard and stays."""
        scheme, mark, path = uri.partition("://")
        if not mark or scheme == _LOCAL:
            return cls(scheme if mark else "", path if mark else uri)
        head, _, query = path.rpartition("?")
        return cls(scheme, head, query) if head and "=" in query else cls(scheme, path)

    def __str__(self) -> str:
        start = f"{self.scheme}://" if self.scheme else ""
        return f"{start}{self.path}?{self.query}" if self.query else start + self.path

    def __truediv__(self, name: str) -> "Location":
        return replace(self, path=f"{self.path.rstrip('/')}/{name}")

    @property
    def is_remote(self) -> bool:
        """Whether it is a URI other than `file://`."""
        return self.scheme not in ("", _LOCAL)

    @property
    def name(self) -> str:
        """The last component."""
        return PurePosixPath(self.path).name

    @property
    def suffixes(self) -> list[str]:
        """The ends of the name in small letters: `.csv`, `.gz`."""
        return [suffix.lower() for suffix in PurePosixPath(self.path).suffixes]

    @property
    def parent(self) -> "Location":
        """The folder that it lies in."""
        head, _, _ = self.path.rstrip("/").rpartition("/")
        return replace(self, path=head or ("/" if self.path.startswith("/") else "."))

    @property
    def is_relative(self) -> bool:
        """Whether it depends on the working directory."""
        return not self.is_remote and not self.path.startswith(("/", "~"))

    def absolute(self) -> "Location":
        """The same place for every working directory, without a slash at its end."""
        if self.is_remote:
            return replace(self, path=self.path.rstrip("/"))
        return Location("", str(Path(self.path).expanduser().absolute()))

    def resolve(self) -> "Location":
        """`absolute`, and links of a local path are followed."""
        whole = self.absolute()
        return whole if self.is_remote else Location("", str(Path(whole.path).resolve()))

    def contains(self, other: "Location") -> bool:
        """Whether `other` is this folder itself or inside it, links followed."""
        inner, outer = other.resolve(), self.resolve()
        same = inner.scheme == outer.scheme
        return same and PurePosixPath(inner.path).is_relative_to(outer.path)
