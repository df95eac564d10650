"""Boards of other programs come in, films go out to editors and to the public: a file a format, all in one table."""

from .formats import FORMATS, import_board, write_import

__all__ = ["FORMATS", "import_board", "write_import"]
