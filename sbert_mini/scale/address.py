"""The address of a collection in Milvus."""

import re
from dataclasses import dataclass

from sbert_mini.errors import UsageError

SCHEME = "milvus:"
FORM = f"{SCHEME}//HOST[:PORT]/COLLECTION"
PORT = 19530
_ADDRESS = SCHEME + r"//(?P<host>\[[^\]]+\]|[^/:@]+)(?::(?P<port>\d+))?/(?P<name>[A-Za-z_]\w{0,200})"


@dataclass(frozen=True)
class Address:
    """The address of a collection.

    Attributes:
        uri: of the server.
        name: of the collection.
    """

    uri: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return the address that `milvus://HOST[:PORT]/COLLECTION` stands for.

        Raises:
            UsageError: the text has another form.
        """
        parts = re.fullmatch(_ADDRESS, text)  # compiled here: commands import this module at every start
        if parts is None:
            raise UsageError(f"the address must be {FORM}; found {text!r}")
        return cls(f"http://{parts['host']}:{parts['port'] or PORT}", parts["name"])
